"""Keys and bindings over HTTP: who gets in, what is refused and how, and from when on."""

import pytest

from access_parts import ADA, binding, hub_key, made_key
from api_parts import DEPLOYMENTS, KEY, ROOT, manifest, served
from hub_parts import put, remove, tenant
from transom.model.api_keys import HUB_PREFIX, new_api_key
from transom.model.names import Key
from transom.model.resources import to_json
from transom.runtime.randomness import choose_secret

OTHER = DEPLOYMENTS.replace("acme", "other")


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        await api.store.write(put(tenant("other")))
        yield api


async def test_a_key_is_good_until_it_is_revoked(api):
    key = await made_key(api.store, "ci", acme="editor")
    assert (await api.ask("POST", DEPLOYMENTS, manifest(), key=key)).code == 201
    told = await api.ask("GET", f"{DEPLOYMENTS}/shop/history")
    assert told.body["items"][0]["who"] == "key:ci"
    revoked = await api.ask(
        "PATCH",
        f"{ROOT}/hubkeys/ci",
        {"spec": {"revoked": True}},
        media="application/merge-patch+json",
    )
    assert revoked.code == 200
    refused = await api.ask("GET", f"{DEPLOYMENTS}/shop", key=key)
    assert refused.code == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="transom", error="invalid_token"'


async def test_a_binding_ends_at_once(api):
    key = await made_key(api.store, "ci", acme="viewer", other="viewer")
    assert (await api.ask("GET", DEPLOYMENTS, key=key)).code == 200
    await api.store.write(remove(Key("RoleBinding", "acme", "ci.viewer")))
    assert (await api.ask("GET", DEPLOYMENTS, key=key)).code == 404
    assert (await api.ask("GET", OTHER, key=key)).code == 200


async def test_an_expired_key_is_nobody(api):
    key, resource = hub_key("old", expiresAt="2020-01-01T00:00:00Z")
    await api.store.write(put(resource))
    assert (await api.ask("GET", "/version", key=key)).code == 401


async def test_one_hash_under_two_names_is_nobody(api):
    key, one = hub_key("one")
    two = hub_key("two", hash=one.spec["hash"])[1]
    await api.store.write(put(one))
    assert (await api.ask("GET", "/version", key=key)).code == 200
    await api.store.write(put(two))
    assert (await api.ask("GET", "/version", key=key)).code == 401


@pytest.mark.parametrize(
    "key",
    ["", "wrong", "tsh_x", new_api_key(choose_secret, HUB_PREFIX), new_api_key(choose_secret), "a.b.c", "é"],
    ids=["none", "a word", "no key", "a hub's", "a tenant's", "no token", "no text"],
)
async def test_strangers_are_all_answered_the_same(api, key):
    refused = await api.ask("GET", DEPLOYMENTS, key=key)
    assert (refused.code, refused.body["reason"]) == (401, "Unauthorized")
    assert refused.body == (await api.ask("GET", "/nowhere", key="x")).body


async def test_a_missing_right_is_told_as_kubernetes_tells_it(api):
    key = await made_key(api.store, "ci", acme="viewer")
    refused = await api.ask("POST", DEPLOYMENTS, manifest(), key=key)
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["message"] == (
        'deployments.transom.dev is forbidden: User "key:ci" cannot create resource "deployments" '
        'in API group "transom.dev" in the namespace "acme"'
    )
    refused = await api.ask("DELETE", f"{ROOT}/regions/eu", key=key)
    assert refused.body["message"] == (
        'regions.transom.dev "eu" is forbidden: User "key:ci" cannot delete resource "regions" '
        'in API group "transom.dev" at the cluster scope'
    )
    assert (await api.ask("GET", f"{ROOT}/deployments", key=key)).code == 403
    refused = await api.ask("GET", "/metrics", key=key)
    assert (refused.code, refused.body["message"]) == (
        403,
        'forbidden: User "key:ci" cannot get path "/metrics"',
    )


async def test_open_and_common_pages(api):
    key = await made_key(api.store, "ci")
    assert (await api.ask("GET", "/healthz", key="")).code == 200
    assert (await api.ask("GET", "/version", key=key)).code == 200
    assert (await api.ask("GET", "/version", key="")).code == 401
    assert (await api.ask("GET", "/hub/layers", key=key)).code == 403


async def test_impersonation_is_refused(api):
    headers = {"Authorization": f"Bearer {KEY}", "Impersonate-User": ADA}
    async with api.session.get(api.address + DEPLOYMENTS, headers=headers) as response:
        assert response.status == 403
        assert "impersonation" in (await response.json())["message"]


async def test_an_owner_gives_no_more_than_they_have(api):
    key = await made_key(api.store, "boss", acme="owner")

    async def bind(**spec):
        body = {
            "apiVersion": "transom.dev/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "new"},
            "spec": {"subjects": [{"kind": "User", "name": ADA}], **spec},
        }
        return await api.ask("POST", f"{ROOT}/namespaces/acme/rolebindings", body, key=key)

    everything = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    refused = await bind(rules=everything)
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    assert "not currently held" in refused.body["message"]
    assert (await bind(role="editor")).code == 201
    path = f"{ROOT}/namespaces/acme/rolebindings/new"
    patch = {"spec": {"role": None, "rules": everything}}
    refused = await api.ask("PATCH", path, patch, media="application/merge-patch+json", key=key)
    assert refused.code == 403
    assert (await api.ask("GET", path, key=key)).body["spec"]["role"] == "editor"


async def test_a_key_that_would_take_over_rights_is_refused(api):
    """Who may make keys, and nothing else, makes none in the name of one that may do more."""
    await api.store.write(put(binding("b", "acme", "key:deployer", role="owner")))
    rule = {"verbs": ["create"], "apiGroups": ["transom.dev"], "resources": ["hubkeys"]}
    key = await made_key(api.store, "maker")
    await api.store.write(put(binding("m", "", "key:maker", rules=[rule])))

    async def make(name):
        spec = {"hash": hub_key("any")[1].spec["hash"]}
        metadata = {"name": name}
        body = {"apiVersion": "transom.dev/v1", "kind": "HubKey", "metadata": metadata, "spec": spec}
        return (await api.ask("POST", f"{ROOT}/hubkeys", body, key=key)).code

    assert (await make("deployer"), await make("harmless")) == (403, 201)


async def test_a_tenant_of_others_is_as_if_it_were_not_there(api):
    await api.store.write(put(binding("x", "other", ADA, role="owner")))
    key = await made_key(api.store, "ci", acme="owner")
    for path in (OTHER, f"{OTHER}/shop", f"{OTHER}/shop/history", f"{ROOT}/tenants/other"):
        there = await api.ask("GET", path, key=key)
        missing = await api.ask("GET", path.replace("other", "never"), key=key)
        assert there.code == 404
        assert to_json(there.body).replace(b"other", b"never") == to_json(missing.body)
    own = await api.ask("GET", f"{DEPLOYMENTS}/shop", key=key)
    assert to_json(own.body) == to_json((await api.ask("GET", f"{OTHER}/shop", key=key)).body).replace(
        b"other", b"acme"
    )


async def test_a_restore_gives_back_no_more_than_the_caller_has(api):
    """A binding to rights that the one who restores it lacks stays deleted."""
    rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    beyond, within = binding("beyond", "acme", ADA, rules=rules), binding("within", "acme", ADA, role="owner")
    await api.store.write_all([put(beyond), put(within)])
    await api.store.write_all([remove(beyond.key), remove(within.key)])
    key = await made_key(api.store, "ada", acme="owner")
    path = f"{ROOT}/namespaces/acme/rolebindings"
    for dry_run in ("?dryRun=All", ""):
        refused = await api.ask("POST", f"{path}/beyond/restore{dry_run}", key=key)
        assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
        assert "attempting to grant permissions not currently held" in refused.body["message"]
        assert (await api.ask("GET", f"{path}/beyond")).code == 404
    assert (await api.ask("POST", f"{path}/within/restore", key=key)).code == 200
    assert (await api.ask("POST", f"{path}/beyond/restore")).code == 200
