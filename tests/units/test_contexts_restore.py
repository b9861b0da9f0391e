"""Returning to earlier values, and what the API says of contexts."""

import hashlib

import pytest

from api_parts import Api, served
from hub_parts import deployment, put, remove, tenant
from transom.catalog.contexts import shipped_contexts
from transom.hub.contexts.past import Past
from transom.hub.contexts.restore import planned
from transom.model.names import Key
from transom.model.resources import Metadata, Resource
from transom.runtime.clock import rfc3339

KINDS = shipped_contexts()


class FixedContexts:
    """Contexts that always say the same."""

    kinds = KINDS

    async def describe(self):
        return {"items": [], "holds": [], "refused": []}

    async def diff(self, region):
        return {"items": [], "more": False, "asked": region}

    def signing(self):
        return {"keyId": "0011", "publicKey": "abc="}


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path, contexts=lambda _store: FixedContexts()) as made:
        yield made


def key(name, **spec):
    hashed = hashlib.sha256(name.encode()).hexdigest()
    return Resource("ApiKey", Metadata(name, "acme"), spec={"hash": hashed, "scopes": ["*"], **spec})


def acme(**spec):
    return Resource("Tenant", Metadata("acme"), spec=spec)


async def declare(api: Api, *resources):
    for outcome in await api.store.write_all([put(resource) for resource in resources]):
        assert not isinstance(outcome, Exception), outcome
    return api.store.changed.value


async def restored(api, revision, kind="ApiKey", **more):
    wanted = {"kind": kind, "revision": revision, "why": "it was better", **more}
    return await api.ask("POST", "/hub/contexts/restore", wanted)


async def spec_of(api, name):
    return (await api.store.get(Key("ApiKey", "acme", name))).spec


async def test_what_was_is_written_again_at_new_versions_with_who_and_why(api):
    then = await declare(api, key("a", requestsPerSecond=5.0), key("b"))
    await declare(api, key("a", requestsPerSecond=9.0))
    before = api.store.changed.value
    answer = await restored(api, then)
    assert (answer.code, answer.body) == (
        200,
        {"items": [{"key": "ApiKey/acme/a", "change": "change"}], "skipped": []},
    )
    assert (await spec_of(api, "a"))["requestsPerSecond"] == 5.0
    (event,) = await api.store.events(before, 10)
    assert (event.who, event.why, event.event) == ("administrator", "it was better", "MODIFIED")
    assert (await restored(api, then)).body == {"items": [], "skipped": []}


async def test_what_restricts_stays_and_is_told(api):
    then = await declare(api, key("a", requestsPerSecond=5.0), key("gone"), acme(title="Acme"))
    await declare(api, key("a", requestsPerSecond=9.0, revoked=True), acme(title="New", suspended=True))
    await api.store.write(remove(Key("ApiKey", "acme", "gone")))
    answer = (await restored(api, then)).body
    assert answer["items"] == [{"key": "ApiKey/acme/a", "change": "change"}]
    assert {each["key"]: each["why"] for each in answer["skipped"]} == {
        "ApiKey/acme/a": "it stays revoked",
        "ApiKey/acme/gone": "it was deleted, and what was taken away that way stays away",
    }
    spec = await spec_of(api, "a")
    assert (spec["revoked"], spec["requestsPerSecond"]) == (True, 5.0)
    answer = (await restored(api, then, "Tenant", name="acme")).body
    assert [each["why"] for each in answer["skipped"]] == ["it stays suspended"]
    held = (await api.store.get(Key("Tenant", "", "acme"))).spec
    assert (held["title"], held["suspended"]) == ("Acme", True)


async def test_what_was_deleted_is_made_again_and_what_is_new_is_not_deleted(api):
    then = await declare(api, tenant("old"))
    await api.store.write(remove(Key("Tenant", "", "old")))
    await declare(api, tenant("new"))
    answer = (await restored(api, then, "tenant")).body
    assert answer["items"] == [{"key": "Tenant//old", "change": "create"}]
    assert [each["key"] for each in answer["skipped"]] == ["Tenant//new"]
    assert await api.store.get(Key("Tenant", "", "new"))


async def test_one_tenant_or_one_name_alone(api):
    await declare(api, tenant("other"))
    then = await declare(api, key("a"), key("b"))
    await declare(api, key("a", requestsPerSecond=9.0), key("b", requestsPerSecond=9.0))
    answer = (await restored(api, then, tenant="acme", name="b")).body
    assert [each["key"] for each in answer["items"]] == ["ApiKey/acme/b"]
    assert (await restored(api, then, tenant="other")).code == 404


async def test_a_tenant_goes_back_to_no_regions_where_what_it_has_would_be_left(api):
    then = await declare(api, acme(regions=["eu"], title="Then"))
    await declare(api, acme(regions=["eu", "us"]), deployment(regions=["us"]))
    told = (await restored(api, then, "Tenant")).body
    assert told["items"] == []
    assert [each["key"] for each in told["skipped"]] == ["Tenant//acme"]
    assert "cannot leave us, which is still named by Deployment 'shop'" in told["skipped"][0]["why"]
    await declare(api, deployment(regions=["eu"]))
    assert (await restored(api, then, "Tenant")).body["skipped"] == []
    assert (await api.store.get(acme().key)).spec["regions"] == ["eu"]


async def test_a_past_that_is_forgotten_is_not_guessed(api):
    then = await declare(api, key("a"))
    await declare(api, key("a", requestsPerSecond=9.0))
    await declare(api, key("a", requestsPerSecond=10.0))
    first = (await api.store.events(then, 1))[0].at
    await api.store.prune_history(first, first)  # the creation is forgotten, the changes are not
    answer = await restored(api, then)
    assert (answer.code, answer.body["reason"]) == (410, "Expired")
    assert (await spec_of(api, "a"))["requestsPerSecond"] == 10.0
    # What was not changed for as long as is remembered was then as it is now.
    await api.store.prune_history(rfc3339(4e9), rfc3339(4e9))
    assert (await restored(api, then)).body == {"items": [], "skipped": []}


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"kind": "ApiKey"}, 400),
        ({"kind": "ApiKey", "revision": "5"}, 400),
        ({"kind": "ApiKey", "revision": 1, "force": True}, 400),
        ({"kind": "ApiKey", "revision": 1, "why": "x" * 1001}, 400),
        ({"kind": "ApiKey", "revision": 0}, 422),
        ({"kind": "ApiKey", "revision": 10**9}, 422),
        ({"kind": "Nonsense", "revision": 1}, 404),
        ({"kind": "RegionalDeployment", "revision": 1}, 403),
    ],
)
async def test_requests_that_cannot_be(api, wanted, code):
    assert (await api.ask("POST", "/hub/contexts/restore", wanted)).code == code


async def test_the_pages_about_contexts(api):
    assert (await api.ask("GET", "/hub/contexts")).body == {"items": [], "holds": [], "refused": []}
    assert (await api.ask("GET", "/hub/contexts/diff?region=eu")).body["asked"] == "eu"
    assert (await api.ask("GET", "/hub/contexts/diff")).code == 400
    assert (await api.ask("GET", "/hub/signing")).body["publicKey"] == "abc="
    assert (await api.ask("GET", "/hub/contexts", key="")).code == 401
    assert (await api.ask("GET", "/hub/contexts/restore")).code == 405


def test_a_context_of_anybody_s_kind_that_restricts_is_not_lifted():
    class Strict(type(KINDS["route"])):
        name = "strict"

        def build(self, subject, tenant):
            return subject.spec.get("closed", False)

        def restricts(self, value):
            return value

    closed = Resource("Deployment", Metadata("d", "acme"), spec={"closed": True})
    opened = Resource("Deployment", Metadata("d", "acme"), spec={})
    (told,) = planned([Past(closed.key, closed, opened, forgotten=False)], [Strict()])
    assert told.wanted is None
    assert "strict" in told.skipped
    (told,) = planned([Past(closed.key, opened, closed, forgotten=False)], [Strict()])
    assert told.change == "change"
