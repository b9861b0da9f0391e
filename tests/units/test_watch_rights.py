"""A watch ends where its right ends: nothing that came after a revocation is told by it."""

import asyncio
import contextlib

import msgspec
import pytest

from access_parts import binding, hub_key, made_key
from api_parts import DEPLOYMENTS, KEY, manifest, served
from hub_parts import CLOCK, deployment, put, remove
from transom.hub.api import lists as api_lists
from transom.hub.api import watch as api_watch
from transom.model.names import Key

HELD = Key("RoleBinding", "acme", "ci.viewer")
HUB_KEY = Key("HubKey", "", "ci")


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


@contextlib.asynccontextmanager
async def watching(api, key, query="", path=DEPLOYMENTS):
    """A watch with `key` as an async function that gives the next line; None when it is over."""
    headers = {"Authorization": f"Bearer {key}"}
    async with api.session.get(f"{api.address}{path}?watch=true{query}", headers=headers) as response:
        assert response.status == 200

        async def following():
            async with asyncio.timeout(30):
                line = await response.content.readline()
            return msgspec.json.decode(line) if line else None

        yield following


async def ended(following):
    """The code and the reason with which the watch ends now."""
    line = await following()
    assert line["type"] == "ERROR", line
    assert await following() is None
    return line["object"]["code"], line["object"]["reason"]


async def changed_key(api, **spec):
    """The HubKey as it would be with other fields."""
    held = await api.store.get(HUB_KEY)
    return put(msgspec.structs.replace(held, spec=held.spec | spec))


async def unbound(_api):
    return remove(HELD)


async def bound_to_another(_api):
    return put(binding("ci.viewer", "acme", "key:another", role="viewer"))


async def bound_to_less(_api):
    rules = [{"verbs": ["get", "list"], "resources": ["deployments"]}]
    return put(binding("ci.viewer", "acme", "key:ci", rules=rules))


async def revoked(api):
    return await changed_key(api, revoked=True)


async def no_key(_api):
    return remove(HUB_KEY)


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (unbound, (404, "NotFound")),
        (bound_to_another, (404, "NotFound")),
        (bound_to_less, (403, "Forbidden")),
        (revoked, (401, "Unauthorized")),
        (no_key, (401, "Unauthorized")),
    ],
)
@pytest.mark.parametrize("from_store", [False, True])
async def test_nothing_is_told_that_came_after_the_right_was_lost(api, monkeypatch, lose, told, from_store):
    if from_store:
        monkeypatch.setattr(api_watch, "_FEED_CHANGES_MAX", 0)
    key = await made_key(api.store, "ci", acme="viewer")
    async with watching(api, key, f"&resourceVersion={await api.revision()}") as following:
        await api.ask("POST", DEPLOYMENTS, manifest("before"))
        assert (await following())["object"]["metadata"]["name"] == "before"
        # In one commit, so that both are read at once.
        await api.store.write_all([await lose(api), put(deployment("secret"))])
        assert await ended(following) == told


async def test_who_may_watch_goes_on_whatever_others_lose(api):
    key = await made_key(api.store, "ci", acme="viewer")
    await made_key(api.store, "other", acme="viewer")
    for shown in (key, KEY):
        async with watching(api, shown, f"&resourceVersion={await api.revision()}") as following:
            await api.store.write_all([remove(Key("RoleBinding", "acme", "other.viewer"))])
            name = f"d{await api.revision()}"
            await api.ask("POST", DEPLOYMENTS, manifest(name))
            assert (await following())["object"]["metadata"]["name"] == name
            await api.store.write(put(binding("other.viewer", "acme", "key:other", role="viewer")))


async def test_a_watch_of_nothing_new_ends_too(api):
    key = await made_key(api.store, "ci", acme="viewer")
    async with watching(api, key) as following:
        await api.store.write(remove(HELD))
        assert await ended(following) == (404, "NotFound")


async def test_a_revocation_that_is_read_before_it_is_announced_counts(api, monkeypatch):
    key = await made_key(api.store, "ci", acme="viewer")
    async with watching(api, key, f"&resourceVersion={await api.revision()}") as following:
        await api.ask("POST", DEPLOYMENTS, manifest("before"))
        assert (await following())["object"]["metadata"]["name"] == "before"
        announce, held = api.store.levels.committed, []
        with monkeypatch.context() as patched:
            patched.setattr(api.store.levels, "committed", held.append)
            for change in (put(deployment("seen")), remove(HELD), put(deployment("secret"))):
                await api.store.write(change)
        announce(held.pop(0))
        for _ in range(10):  # turns for a watch that does not wait
            await api.ask("GET", DEPLOYMENTS)
        for news in held:
            announce(news)
        assert await ended(following) == (404, "NotFound")


async def test_a_key_that_expires_ends_its_watches(api, monkeypatch):
    monkeypatch.setattr(api_watch, "_CHECK_SECONDS", 0.0)
    key, resource = hub_key("ci", expiresAt="2999-01-01T00:00:00Z")
    await api.store.write_all([put(resource), put(binding("b", "acme", "key:ci", role="viewer"))])
    async with watching(api, key, f"&resourceVersion={await api.revision()}") as following:
        await api.ask("POST", DEPLOYMENTS, manifest("before"))
        assert (await following())["object"]["metadata"]["name"] == "before"
        wall = CLOCK.wall
        monkeypatch.setattr(CLOCK, "wall", lambda: wall() + 1e11)
        await api.ask("POST", DEPLOYMENTS, manifest("secret"))
        assert await ended(following) == (401, "Unauthorized")


async def test_what_there_is_is_not_shown_to_who_lost_the_right_while_waiting_for_it(api, monkeypatch):
    key = await made_key(api.store, "ci", acme="viewer")
    reached = api_lists.reached

    async def losing(store, revision, **how):
        await reached(store, revision, **how)
        await api.store.write_all([remove(HELD), put(deployment("secret"))])

    monkeypatch.setattr(api_lists, "reached", losing)
    async with watching(api, key) as following:
        assert await ended(following) == (404, "NotFound")
