"""The verbs on resources, over a real store and a real socket."""

import pytest

from api_parts import DEPLOYMENTS, KEY, ROOT, manifest, served
from transom.runtime import tracing
from transom.runtime.tasks import WorkerState


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def test_create_get_and_list(api):
    created = await api.ask("POST", DEPLOYMENTS, manifest())
    assert created.code == 201
    meta = created.body["metadata"]
    assert (meta["name"], meta["namespace"], meta["generation"]) == ("shop", "acme", 1)
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert created.body["spec"]["healthCheck"]["kind"] == "tcp", "defaults are written out"
    assert (await api.ask("GET", f"{DEPLOYMENTS}/shop")).body == created.body
    listed = (await api.ask("GET", DEPLOYMENTS)).body
    assert (listed["kind"], listed["apiVersion"]) == ("DeploymentList", "transom.dev/v1")
    assert listed["items"] == [created.body]
    assert listed["metadata"]["resourceVersion"] == meta["resourceVersion"]
    everywhere = (await api.ask("GET", f"{ROOT}/deployments")).body
    assert everywhere["items"] == [created.body]


async def test_yaml_is_read_as_json_is(api):
    text = b"""
apiVersion: transom.dev/v1
kind: Tenant
metadata: {name: globex}
spec:
  title: 2001-01-01
"""
    created = await api.ask("POST", f"{ROOT}/tenants", text, media="application/yaml")
    assert created.code == 201
    assert created.body["spec"]["title"] == "2001-01-01"


async def test_replace_with_what_a_get_gave(api):
    held = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    held["spec"]["version"] = "2"
    replaced = await api.ask("PUT", f"{DEPLOYMENTS}/shop", held)
    assert replaced.code == 200
    assert replaced.body["metadata"]["generation"] == 2
    again = await api.ask("PUT", f"{DEPLOYMENTS}/shop", replaced.body)
    assert again.body == replaced.body, "the same again changes nothing"


async def test_a_stale_replace_is_a_conflict_and_changes_nothing(api):
    stale = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    current = (await api.ask("PUT", f"{DEPLOYMENTS}/shop", manifest(version="2"))).body
    stale["spec"]["version"] = "3"
    refused = await api.ask("PUT", f"{DEPLOYMENTS}/shop", stale)
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert (await api.ask("GET", f"{DEPLOYMENTS}/shop")).body == current


async def test_merge_patch(api):
    created = (await api.ask("POST", DEPLOYMENTS, manifest(env={"A": "1", "B": "2"}))).body
    patch = {"spec": {"env": {"A": None, "C": "3"}}, "metadata": {"labels": {"team": "web"}}}
    media = "application/merge-patch+json"
    patched = await api.ask("PATCH", f"{DEPLOYMENTS}/shop", patch, media=media)
    assert patched.code == 200
    assert patched.body["spec"]["env"] == {"B": "2", "C": "3"}
    assert patched.body["metadata"]["labels"] == {"team": "web"}
    assert patched.body["metadata"]["uid"] == created["metadata"]["uid"]


async def test_a_patch_may_not_leave_behind_what_could_not_be_created(api):
    created = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    patch = {"sepc": {}, "metadata": {"labels": {"a": 1}, "lables": {}}}
    refused = await api.ask("PATCH", f"{DEPLOYMENTS}/shop", patch, media="application/merge-patch+json")
    assert refused.code == 422
    fields = {cause["field"] for cause in refused.body["details"]["causes"]}
    assert fields == {"sepc", "metadata.labels.a", "metadata.lables"}
    assert (await api.ask("GET", f"{DEPLOYMENTS}/shop")).body == created


async def test_delete_waits_for_finalizers_or_is_done(api):
    await api.ask("POST", DEPLOYMENTS, manifest())
    waiting = await api.ask("DELETE", f"{DEPLOYMENTS}/shop")
    assert waiting.body["kind"] == "Deployment"
    assert waiting.body["metadata"]["deletionTimestamp"]
    await api.ask("POST", f"{ROOT}/tenants", {**manifest("globex"), "kind": "Tenant", "spec": {}})
    gone = await api.ask("DELETE", f"{ROOT}/tenants/globex")
    assert (gone.code, gone.body["kind"], gone.body["status"]) == (200, "Status", "Success")
    assert (await api.ask("GET", f"{ROOT}/tenants/globex")).code == 404


async def test_what_is_wrong_with_something_new_names_it(api):
    refused = await api.ask("POST", DEPLOYMENTS, manifest(instances=-1))
    assert refused.body["details"]["name"] == "shop"
    assert refused.body["message"].startswith('Deployment.transom.dev "shop" is invalid:')


async def test_delete_only_what_was_meant(api):
    created = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    for wrong in ({"uid": "another"}, {"resourceVersion": "1"}):
        refused = await api.ask("DELETE", f"{DEPLOYMENTS}/shop", {"preconditions": wrong})
        assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert (await api.ask("GET", f"{DEPLOYMENTS}/shop")).body == created
    right = {"uid": created["metadata"]["uid"], "resourceVersion": created["metadata"]["resourceVersion"]}
    assert (await api.ask("DELETE", f"{DEPLOYMENTS}/shop", {"preconditions": right})).code == 200


async def test_pages_of_a_list_give_each_once_and_one_revision(api):
    for number in range(7):
        await api.ask("POST", DEPLOYMENTS, manifest(f"app-{number}"))
    names, token, revisions = [], "", set()
    while True:
        page = (await api.ask("GET", f"{DEPLOYMENTS}?limit=3&continue={token}")).body
        names += [item["metadata"]["name"] for item in page["items"]]
        revisions.add(page["metadata"]["resourceVersion"])
        # What is written between two pages must not be skipped by a watch from the list's revision.
        await api.ask("PUT", f"{DEPLOYMENTS}/app-0", manifest("app-0", version=f"{len(names)}"))
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"app-{number}" for number in range(7)]
    assert len(revisions) == 1


async def test_a_long_list_comes_whole(api, monkeypatch):
    monkeypatch.setattr("transom.hub.api.lists._PAGE", 3)
    monkeypatch.setattr("transom.hub.api.lists._CHUNK_BYTES", 700)
    for number in range(8):
        labels = {"labels": {"even": str(number % 2 == 0).lower()}}
        item = manifest(f"app-{number}")
        await api.ask("POST", DEPLOYMENTS, {**item, "metadata": {**item["metadata"], **labels}})
    listed = (await api.ask("GET", DEPLOYMENTS)).body
    assert [item["metadata"]["name"] for item in listed["items"]] == [f"app-{n}" for n in range(8)]
    assert listed["metadata"]["resourceVersion"] == str(await api.revision())
    some = (await api.ask("GET", f"{DEPLOYMENTS}?labelSelector=even%3Dtrue")).body
    assert [item["metadata"]["name"] for item in some["items"]] == [f"app-{n}" for n in range(0, 8, 2)]


async def test_history_says_who_when_why_and_what(api):
    await api.ask("POST", f"{DEPLOYMENTS}?why=first+try", manifest())
    second = manifest(version="2", env={"A": "1"})
    second["metadata"]["annotations"] = {"transom.dev/change-cause": "faster"}
    await api.ask("PUT", f"{DEPLOYMENTS}/shop", second)
    await api.ask("DELETE", f"{DEPLOYMENTS}/shop?why=done")
    items = (await api.ask("GET", f"{DEPLOYMENTS}/shop/history")).body["items"]
    assert [(item["event"], item["why"]) for item in items] == [
        ("MODIFIED", "done"),
        ("MODIFIED", "faster"),
        ("ADDED", "first try"),
    ]
    paths = [[change["path"] for change in item["changes"]] for item in items]
    why = 'metadata.annotations["transom.dev/change-cause"]'
    assert paths[:2] == [[], [why, "spec.env.A", "spec.version"]]
    assert {"spec.app", "spec.version"} <= set(paths[2])
    assert {(item["who"], item["role"]) for item in items} == {("administrator", "api")}
    newest = (await api.ask("GET", f"{DEPLOYMENTS}/shop/history?limit=2")).body["items"]
    assert newest == items[:2]


async def test_pages_of_the_hub(tmp_path):
    async with served(tmp_path, lambda: [WorkerState("relay", "retrying", "a secret reason")]) as api:
        layers = (await api.ask("GET", "/hub/layers")).body["items"]
        floors = {item["kind"]: (item["layer"], item["owner"]) for item in layers}
        assert floors["Deployment"] == (0, "api")
        assert floors["RegionalDeployment"] == (1, "deployment-controller")
        assert floors["Instance"] == (2, "region")
        assert (await api.ask("GET", "/hub/regions")).body["items"][0]["region"] == "eu"
        assert (await api.ask("GET", "/metrics")).code == 200


async def test_without_the_key_every_path_is_the_same_closed_door(api):
    for authorization in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"):
        headers = {"Authorization": authorization} if authorization else {}
        bodies = []
        for path in ("/", "/metrics", "/version", "/hub/layers", f"{ROOT}/tenants", "/nothing"):
            async with api.session.get(api.address + path, headers=headers) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith('Bearer realm="transom"')
                bodies.append(await response.json())
        assert all(body == bodies[0] for body in bodies)
        assert (bodies[0]["kind"], bodies[0]["reason"]) == ("Status", "Unauthorized")


async def tenant_in(api, *regions):
    spec = {"regions": list(regions)} if regions else {}
    tenant = {"apiVersion": "transom.dev/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": spec}
    return await api.ask("PUT", f"{ROOT}/tenants/acme", tenant)


async def test_a_tenant_leaves_no_region_that_a_deployment_of_its_own_names(api):
    for name in ("a", "b", "c"):
        assert (await api.ask("POST", DEPLOYMENTS, manifest(name, regions=["us"]))).code == 201
    assert (await tenant_in(api, "eu", "us")).code == 200
    refused = await tenant_in(api, "eu")
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert refused.body["message"] == (
        'Operation cannot be fulfilled on tenants.transom.dev "acme": '
        "tenant 'acme' cannot leave us, which is still named by Deployment 'a', Deployment 'b', "
        "Deployment 'c'; delete them, or have them name it no more, first"
    )
    assert (await api.ask("POST", DEPLOYMENTS, manifest("d", regions=["us", "ap"]))).code == 201
    by_patch = await api.ask(
        "PATCH", f"{ROOT}/tenants/acme", {"spec": {"regions": ["eu"]}}, media="application/merge-patch+json"
    )
    assert (by_patch.code, "Deployment 'c' and others; delete" in by_patch.body["message"]) == (409, True)
    assert (await tenant_in(api)).code == 200, "every region"
    every = await tenant_in(api, "eu", "us")
    assert (every.code, "cannot leave ap, " in every.body["message"]) == (409, True)
    for name in ("a", "b", "c", "d"):
        assert (await api.ask("PUT", f"{DEPLOYMENTS}/{name}", manifest(name, regions=["eu"]))).code == 200
    assert (await tenant_in(api, "eu")).code == 200


async def test_the_caller_s_trace_is_kept_with_the_change_and_with_no_other(api):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    url = f"{api.address}{DEPLOYMENTS}"
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Traceparent": trace}
    async with api.session.post(url, json=manifest(), headers=headers) as answer:
        assert answer.status == 201
    await api.ask("POST", DEPLOYMENTS, manifest("other"))
    *_, own, other = await api.store.outbox(0, 100)
    assert own.traceparent == trace
    assert tracing.valid(other.traceparent)
    assert other.traceparent[:36] != trace[:36]
