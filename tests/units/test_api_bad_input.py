"""Bad input: a clear error with the right code, and nothing changed."""

import pytest

from api_parts import DEPLOYMENTS, ROOT, manifest, served
from transom.model.errors import StorageFullError, UnreachableError

MERGE_PATCH = "application/merge-patch+json"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def refused(api, code, reason, method, path, body=None, **how):
    """Ask, expect this refusal, and that the store is as it was."""
    before = await api.revision()
    answer = await api.ask(method, path, body, **how)
    assert (answer.code, answer.body["reason"]) == (code, reason), answer.body
    assert answer.body["kind"] == "Status"
    assert answer.body["status"] == "Failure"
    assert answer.body["code"] == code
    assert await api.revision() == before
    return answer


def fields(answer):
    return {cause["field"] for cause in answer.body["details"]["causes"]}


async def test_all_mistakes_at_once_with_their_paths(api):
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "labels": {"a": 1}, "annotation": {}, "finalizers": "x"},
        "spec": {
            "app": "Shop!",
            "version": 3,
            "command": "serve",
            "regions": ["eu", "eu"],
            "instances": "2",
            "healthCheck": {"kind": "udp", "paht": "/"},
            "replicas": 3,
        },
        "sepc": {},
    }
    answer = await refused(api, 422, "Invalid", "POST", DEPLOYMENTS, body)
    assert fields(answer) == {
        "apiVersion",
        "metadata.labels.a",
        "metadata.annotation",
        "metadata.finalizers",
        "spec.app",
        "spec.version",
        "spec.command",
        "spec.regions",
        "spec.instances",
        "spec.healthCheck.kind",
        "spec.healthCheck.paht",
        "spec.replicas",
        "sepc",
    }
    for field in fields(answer):
        assert field in answer.body["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"metadata": None}, "metadata"),
        ({"metadata": {}}, "metadata.name"),
        ({"metadata": {"name": 5}}, "metadata.name"),
        ({"metadata": {"name": "shop", "namespace": "globex"}}, "metadata.namespace"),
        ({"spec": []}, "spec"),
        ({"kind": "Tenant"}, "kind"),
        ({"kind": None}, "kind"),
        ({"status": "fine"}, "status"),
    ],
)
async def test_a_wrong_envelope(api, change, field):
    answer = await refused(api, 422, "Invalid", "POST", DEPLOYMENTS, {**manifest(), **change})
    assert fields(answer) == {field}


async def test_names_that_are_not_dns_labels(api):
    for name in ("Shop", "-shop", "shop-", "a.b", "a_b", "a" * 64, "é"):
        answer = await refused(api, 422, "Invalid", "POST", DEPLOYMENTS, manifest(name))
        assert fields(answer) == {"metadata.name"}
        assert "DNS label" in answer.body["message"]
    answer = await refused(api, 422, "Invalid", "POST", DEPLOYMENTS, manifest(""))
    assert answer.body["details"]["causes"] == [
        {
            "reason": "FieldValueRequired",
            "message": "Required value: name or generateName is required",
            "field": "metadata.name",
        }
    ]


async def test_unknown_kinds_regions_tenants_and_names(api):
    answer = await refused(api, 404, "NotFound", "GET", f"{ROOT}/widgets")
    assert "deployments" in answer.body["message"], "it says which kinds there are"
    answer = await refused(api, 422, "Invalid", "POST", DEPLOYMENTS, manifest(regions=["eu", "mars"]))
    assert "mars" in answer.body["message"]
    elsewhere = f"{ROOT}/namespaces/nobody/deployments"
    answer = await refused(api, 422, "Invalid", "POST", elsewhere, manifest())
    assert "nobody" in answer.body["message"]
    await refused(api, 404, "NotFound", "GET", f"{DEPLOYMENTS}/shop")
    await refused(api, 404, "NotFound", "PUT", f"{DEPLOYMENTS}/shop", manifest())
    await refused(api, 404, "NotFound", "PATCH", f"{DEPLOYMENTS}/shop", {}, media=MERGE_PATCH)
    await refused(api, 404, "NotFound", "DELETE", f"{DEPLOYMENTS}/shop")
    await refused(api, 404, "NotFound", "GET", f"{DEPLOYMENTS}/shop/history")
    await refused(api, 404, "NotFound", "GET", f"{ROOT}/namespaces/acme/tenants")
    await refused(api, 404, "NotFound", "GET", f"{ROOT}/deployments/shop")
    await refused(api, 404, "NotFound", "GET", "/apis/apps/v1/deployments")
    await refused(api, 404, "NotFound", "GET", f"{ROOT}/tenants/")


async def test_the_field_that_names_what_is_not_there_is_looked_for_in_a_bounded_number_of_places(api):
    for times, field in ((3, "spec.regions[1]"), (200, None)):
        env = {f"V{number}": "mars" for number in range(times)}
        sent = manifest(regions=["eu", "mars"], env=env)
        answer = await refused(api, 422, "Invalid", "POST", DEPLOYMENTS, sent)
        (cause,) = answer.body["details"]["causes"]
        assert "mars" in cause["message"]
        assert cause.get("field") == field


async def test_what_is_there_already_and_what_others_own(api):
    await api.ask("POST", DEPLOYMENTS, manifest())
    await refused(api, 409, "AlreadyExists", "POST", DEPLOYMENTS, manifest(version="2"))
    regional = {
        **manifest("shop.eu"),
        "kind": "RegionalDeployment",
        "spec": {"app": "a", "version": "1", "command": ["a"], "region": "eu", "zones": {"a": 1}},
    }
    path = f"{ROOT}/namespaces/acme/regionaldeployments"
    answer = await refused(api, 403, "Forbidden", "POST", path, regional)
    assert "deployment-controller" in answer.body["message"]
    answer = await refused(api, 409, "Conflict", "DELETE", f"{ROOT}/tenants/acme")
    assert "shop" in answer.body["message"]


async def test_methods_that_a_path_does_not_have(api):
    await refused(api, 405, "MethodNotAllowed", "POST", f"{ROOT}/deployments", manifest())
    await refused(api, 405, "MethodNotAllowed", "PUT", DEPLOYMENTS, manifest())
    await refused(api, 405, "MethodNotAllowed", "DELETE", f"{ROOT}/deployments")
    await refused(api, 405, "MethodNotAllowed", "DELETE", f"{DEPLOYMENTS}/shop/status")
    await refused(api, 405, "MethodNotAllowed", "POST", f"{DEPLOYMENTS}/shop", manifest())


UNREADABLE = (
    ("application/json", b"{"),
    ("application/json", b""),
    ("application/json", b"[]"),
    ("application/json", b'"text"'),
    ("application/json", b"\xff\xfe"),
    ("application/json", b'{"kind": "Deployment", "kind": "Tenant"}'),
    ("application/json", b'{"spec": NaN}'),
    ("application/json", b'{"spec": 1e999}'),
    ("application/json", b'{"spec": "\\ud800"}'),
    ("application/json", b'{"spec": 123456789012345678901234567890}'),
    ("application/json", b"[" * 100_000),
    ("application/json", b'{"a":' * 40 + b"1" + b"}" * 40),
    ("application/yaml", b"a: b: c"),
    ("application/yaml", b"- a"),
    ("application/yaml", b"kind: Deployment\nkind: Tenant"),
    ("application/yaml", b"a: &x [1]\nb: *x"),
    ("application/yaml", b"a: !!python/object/apply:os.system [true]"),
    ("application/yaml", b"a: 1\n---\nb: 2"),
    ("application/yaml", b"1: 2"),
    ("application/yaml", b"[" * 100_000),
    ("application/yaml", b"a: " + b"[" * 100_000 + b"]" * 100_000),
    ("application/yaml", b"\x00"),
)


async def test_a_body_that_cannot_be_read(api):
    for media, body in UNREADABLE:
        await refused(api, 400, "BadRequest", "POST", DEPLOYMENTS, body, media=media)


@pytest.mark.parametrize(
    ("method", "path", "media"),
    [
        ("POST", DEPLOYMENTS, "text/html"),
        ("PUT", f"{DEPLOYMENTS}/shop", MERGE_PATCH),
        ("PATCH", f"{DEPLOYMENTS}/shop", "application/json"),
        ("PATCH", f"{DEPLOYMENTS}/shop", "application/strategic-merge-patch+json"),
    ],
)
async def test_a_body_of_another_type(api, method, path, media):
    await refused(api, 415, "UnsupportedMediaType", method, path, b"{}", media=media)


async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(api):
    body = manifest(env={"A": "x" * 512 * 1024})
    await refused(api, 413, "RequestEntityTooLarge", "POST", DEPLOYMENTS, body)
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 64 * 1024
            yield b"x" * 64 * 1024

    before = await api.revision()
    headers = {"Authorization": "Bearer the-administrators-key", "Content-Type": "application/json"}
    async with api.session.post(api.address + DEPLOYMENTS, data=endless(), headers=headers) as response:
        assert response.status == 413
        assert sent < 1000 * 64 * 1024, "the answer came before all was sent"
    assert await api.revision() == before


async def test_a_body_just_below_the_limit_is_fine(api):
    body = manifest(env={"A": "x" * (511 * 1024)})
    assert (await api.ask("POST", DEPLOYMENTS, body)).code == 201


NOT_UNDERSTOOD = (
    ("POST", f"{DEPLOYMENTS}?dryrun=All"),
    ("PUT", f"{DEPLOYMENTS}/shop?force=true"),
    ("DELETE", f"{DEPLOYMENTS}/shop?gracePeriodSeconds=-1"),
    ("DELETE", f"{DEPLOYMENTS}?watch=true"),
    ("GET", f"{DEPLOYMENTS}?fieldSelector=a%3Db"),
    ("GET", f"{DEPLOYMENTS}?fieldSelector=spec.verson%3D1"),
    ("GET", f"{DEPLOYMENTS}?fieldSelector=spec.regions%3Deu"),
    ("GET", f"{DEPLOYMENTS}?fieldSelector=metadata.name"),
    ("GET", f"{DEPLOYMENTS}?watch=yes"),
    ("GET", f"{DEPLOYMENTS}?limit=-1"),
    ("GET", f"{DEPLOYMENTS}?limit=%C2%B2"),
    ("GET", f"{DEPLOYMENTS}?limit=5&limit=6"),
    ("GET", f"{DEPLOYMENTS}?limit=5&continue=garbage"),
    ("GET", f"{DEPLOYMENTS}?continue=WzAsIiIsIiJd"),
    ("GET", f"{DEPLOYMENTS}?continue=WzEsIiIsIiJd&resourceVersion=1"),
    ("GET", f"{DEPLOYMENTS}?labelSelector=a+in+%28b"),
    ("GET", f"{DEPLOYMENTS}?timeout=soon"),
    ("GET", f"{DEPLOYMENTS}?resourceVersion=-1"),
    ("GET", f"{DEPLOYMENTS}?watch=true&resourceVersion=new"),
)


async def test_a_query_that_is_not_understood_is_never_ignored(api):
    for method, path in NOT_UNDERSTOOD:
        await refused(api, 400, "BadRequest", method, path, None if method == "GET" else manifest())


@pytest.mark.parametrize(
    "body",
    [
        {"gracePeriodSeconds": -3},
        {"gracePeriodSeconds": "3"},
        {"dryRun": "All"},
        {"propagationPolicy": 1},
        {"orphanDependents": "yes"},
        {"orphan": True},
        {"preconditions": {"name": "x"}},
        {"preconditions": {"uid": 3}},
    ],
)
async def test_a_delete_with_wishes_that_cannot_be_kept(api, body):
    await api.ask("POST", DEPLOYMENTS, manifest())
    await refused(api, 400, "BadRequest", "DELETE", f"{DEPLOYMENTS}/shop", body)


async def test_faults_of_the_store_and_of_ours(api, monkeypatch):
    for error, code, reason in (
        (StorageFullError("the disk is full"), 507, "InsufficientStorage"),
        (UnreachableError("the store cannot be used"), 503, "ServiceUnavailable"),
        (RuntimeError("secret/inside.py"), 500, "InternalError"),
    ):

        async def fail(*_args, error=error, **_kwargs):
            raise error

        monkeypatch.setattr(api.store, "write", fail)
        answer = await refused(api, code, reason, "POST", DEPLOYMENTS, manifest())
        assert ("Retry-After" in answer.headers) == (code != 500)
        assert "inside" not in str(answer.body)
