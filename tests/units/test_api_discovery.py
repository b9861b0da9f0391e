"""Discovery, health and version, over a real socket; and what they are made of."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_parts import KEY, ROOT, served
from transom import __version__
from transom.hub.api.served import READING, WRITING, Served, by_group
from transom.runtime.tasks import WorkerState

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def get(api, path, accept="application/json", key=KEY, **headers):
    headers = {"Authorization": f"Bearer {key}", "Accept": accept, **headers}
    async with api.session.get(api.address + path, headers=headers) as response:
        text = await response.read()
        is_json = response.content_type == "application/json" and text
        return response.status, msgspec.json.decode(text) if is_json else text.decode(), response.headers


async def test_groups_lead_to_versions_and_versions_to_resources(api):
    core = (await get(api, "/api"))[1]
    assert (core["kind"], core["versions"]) == ("APIVersions", ["v1"])
    groups = (await get(api, "/apis?timeout=32s"))[1]
    assert (groups["kind"], groups["apiVersion"]) == ("APIGroupList", "v1")
    names = [group["name"] for group in groups["groups"]]
    assert "transom.dev" in names
    for group in groups["groups"]:
        alone = (await get(api, f"/apis/{group['name']}"))[1]
        assert alone == {"kind": "APIGroup", "apiVersion": "v1", **group}
        assert group["preferredVersion"] == group["versions"][0]
        for version in group["versions"]:
            listed = (await get(api, f"/apis/{version['groupVersion']}"))[1]
            assert (listed["kind"], listed["groupVersion"]) == ("APIResourceList", version["groupVersion"])
            assert listed["resources"]


async def test_a_resource_says_how_it_is_called_and_what_may_be_done_to_it(api):
    told = {item["name"]: item for item in (await get(api, ROOT))[1]["resources"]}
    assert told["deployments"] == {
        "name": "deployments",
        "singularName": "deployment",
        "namespaced": True,
        "kind": "Deployment",
        "verbs": list(WRITING),
        "shortNames": ["deploy"],
        "categories": ["all"],
    }
    assert told["deployments/status"] == {
        "name": "deployments/status",
        "singularName": "",
        "namespaced": True,
        "kind": "Deployment",
        "verbs": ["get"],
    }
    assert told["instances"]["verbs"] == list(READING), "a region's, not the API's"
    assert told["regions"]["namespaced"] is False
    assert "categories" not in told["regions"]
    core = {item["name"]: item for item in (await get(api, "/api/v1"))[1]["resources"]}
    assert core["namespaces"]["shortNames"] == ["ns"]
    assert "categories" not in core["events"], "gone in an hour"
    assert "tenants/status" not in told


async def test_everything_at_once_says_the_same_as_page_by_page(api):
    code, told, headers = await get(api, "/apis", f"{AGGREGATED},application/json")
    assert (code, told["kind"]) == (200, "APIGroupDiscoveryList")
    assert told["apiVersion"] == "apidiscovery.k8s.io/v2"
    assert headers["Content-Type"] == AGGREGATED
    for group in told["items"]:
        for version in group["versions"]:
            assert version["freshness"] == "Current"
            path = f"/apis/{group['metadata']['name']}/{version['version']}"
            plain = {item["name"]: item for item in (await get(api, path))[1]["resources"]}
            for resource in version["resources"]:
                alone = plain.pop(resource["resource"])
                assert resource["verbs"] == alone["verbs"]
                assert resource["singularResource"] == alone["singularName"]
                assert resource.get("shortNames") == alone.get("shortNames")
                assert (resource["scope"] == "Namespaced") == alone["namespaced"]
                assert resource["responseKind"]["kind"] == alone["kind"]
                for part in resource.get("subresources", []):
                    name = f"{resource['resource']}/{part['subresource']}"
                    assert plain.pop(name)["verbs"] == part["verbs"]
            assert plain == {}
    beta = (await get(api, "/apis", AGGREGATED.replace("v=v2", "v=v2beta1")))[1]
    assert beta["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    assert beta["items"] == told["items"]
    core = (await get(api, "/api", AGGREGATED))[1]
    assert core["kind"] == "APIGroupDiscoveryList"


async def test_who_has_everything_already_is_not_sent_it_again(api):
    _, _, headers = await get(api, "/apis", AGGREGATED)
    for tag in (headers["ETag"], f'"other", W/{headers["ETag"]}'):
        code, body, again = await get(api, "/apis", AGGREGATED, **{"If-None-Match": tag})
        assert (code, body, again["ETag"], again["Vary"]) == (304, "", headers["ETag"], "Accept")
    assert (await get(api, "/apis", AGGREGATED, **{"If-None-Match": '"other"'}))[0] == 200
    _, _, beta = await get(api, "/apis", AGGREGATED.replace("v=v2", "v=v2beta1"))
    assert beta["ETag"] != headers["ETag"]


async def test_what_is_not_there_and_what_cannot_be_given(api):
    for path in ("/apis/nobody.dev", "/apis/nobody.dev/v1", "/apis/transom.dev/v9", "/api/v9"):
        code, status, _ = await get(api, path)
        assert (code, status["reason"]) == (404, "NotFound")
    for path in ("/api", "/apis", "/apis/transom.dev", ROOT):
        code, status, _ = await get(api, path, "application/vnd.kubernetes.protobuf")
        assert (code, status["kind"], status["reason"]) == (406, "Status", "NotAcceptable")


async def test_a_slash_at_the_end_makes_no_difference(api):
    for path in ("/api", "/apis", "/apis/transom.dev", ROOT, "/version"):
        code, told, _ = await get(api, f"{path}/")
        assert (code, told) == (200, (await get(api, path))[1])
    assert (await get(api, "/apis/", AGGREGATED))[1]["kind"] == "APIGroupDiscoveryList"
    assert (await get(api, f"{ROOT}/deployments/"))[0] == 404


async def test_the_version_is_one_that_clients_of_kubernetes_read(api):
    told = (await get(api, "/version?timeout=32s"))[1]
    assert told["gitVersion"] == f"v{told['major']}.{told['minor']}.0+transom.{__version__}"
    assert all(isinstance(value, str) for value in told.values())


async def test_health_in_the_words_of_kubernetes(tmp_path):
    states = [WorkerState("relay"), WorkerState("sweep")]
    async with served(tmp_path, lambda: states) as api:
        assert (await get(api, "/livez", "*/*", ""))[:2] == (200, "ok")
        assert (await get(api, "/readyz", "*/*", ""))[:2] == (200, "ok")
        verbose = "[+]ping ok\n[+]relay ok\n[+]sweep ok\nreadyz check passed\n"
        assert (await get(api, "/readyz?verbose", "*/*", ""))[:2] == (200, verbose)
        states[0] = WorkerState("relay", "retrying", "a secret reason")
        failed = "[+]ping ok\n[-]relay failed: reason withheld\n[+]sweep ok\nreadyz check failed\n"
        assert (await get(api, "/readyz", "*/*", ""))[:2] == (500, failed)
        assert (await get(api, "/readyz?exclude=relay", "*/*", ""))[:2] == (200, "ok")
        warned = (await get(api, "/readyz?verbose&exclude=relay&exclude=tests", "*/*", ""))[1]
        assert "[+]relay excluded: ok\n" in warned
        assert "warn: some health checks cannot be excluded: no matches for tests\n" in warned
        assert (await get(api, "/livez", "*/*", ""))[:2] == (200, "ok"), "only its workers do not work"
        workers = {"workers": {"relay": "retrying", "sweep": "running"}}
        assert (await get(api, "/healthz", "*/*", ""))[:2] == (200, workers)
        assert (await get(api, "/healthz", "text/html", ""))[:2] == (200, workers)
        assert (await get(api, "/healthz", "text/plain", ""))[0] == 500


VERSIONS = ["v2", "v1", "v2beta10", "v2beta2", "v1beta1", "v3alpha1", "next"]


@given(st.permutations(VERSIONS), st.permutations(["b.dev", "", "a.dev"]))
def test_groups_and_versions_come_in_the_order_of_preference(versions, groups):
    every = [
        Served(group, version, "doors", "Door", True, READING, {})
        for group, version in itertools.product(groups, versions)
    ]
    found = by_group(every)
    assert list(found) == ["", "a.dev", "b.dev"]
    assert list(found["a.dev"]) == VERSIONS
