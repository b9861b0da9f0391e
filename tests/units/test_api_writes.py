"""How clients write: dry runs, unknown fields, generated names, the status, deletions of one and of many."""

import re
from typing import Any

import pytest
from sqlalchemy import select

from access_parts import made_key
from api_parts import DEPLOYMENTS, ROOT, manifest, served
from transom.catalog.kinds import shipped
from transom.hub.store_schema import metadata as tables
from transom.model.kinds import PEOPLE, Kind, Spec

pytestmark = pytest.mark.usefixtures("each_engine")

JSON = "application/json"
MERGE = "application/merge-patch+json"
PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
QUOTAS = f"{ROOT}/namespaces/acme/quotas"
CLUSTERS = f"{ROOT}/namespaces/acme/kafkaclusters"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def everything(api) -> dict[str, list[tuple[Any, ...]]]:
    """All that is stored, by table."""

    def read(db):
        return {
            table.name: sorted(map(repr, db.execute(select(table)).all())) for table in tables.sorted_tables
        }

    return await api.store.read(read)


def cluster(name: str, **metadata: Any) -> dict[str, Any]:
    """A resource that is gone as soon as it is deleted."""
    spec = {"bootstrapServers": ["kafka:9092"]}
    meta = {"name": name, **metadata}
    return {"apiVersion": "transom.dev/v1", "kind": "KafkaCluster", "metadata": meta, "spec": spec}


def quota(**hard: Any) -> dict[str, Any]:
    meta = {"name": "small"}
    return {"apiVersion": "transom.dev/v1", "kind": "Quota", "metadata": meta, "spec": {"hard": hard}}


CHOSEN_ANEW = {"uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "time", "managedFields"}
"""What a dry run cannot know, and times."""


def foreseen(body: Any) -> Any:
    """An answer without what a dry run cannot foresee."""
    if isinstance(body, dict):
        return {name: foreseen(value) for name, value in body.items() if name not in CHOSEN_ANEW}
    return [foreseen(each) for each in body] if isinstance(body, list) else body


# --- dry runs ----------------------------------------------------------------------------------------------

REQUESTS = {
    "create": ("POST", DEPLOYMENTS, manifest("new"), "application/json"),
    "replace": ("PUT", f"{DEPLOYMENTS}/shop", manifest(version="2"), "application/json"),
    "merge patch": ("PATCH", f"{DEPLOYMENTS}/shop", {"spec": {"version": "3"}}, MERGE),
    "JSON patch": (
        "PATCH",
        f"{DEPLOYMENTS}/shop",
        [{"op": "replace", "path": "/spec/version", "value": "4"}],
        PATCH,
    ),
    "apply": ("PATCH", f"{DEPLOYMENTS}/applied?fieldManager=me", manifest("applied"), APPLY),
    "delete at once": ("DELETE", f"{CLUSTERS}/one", None, ""),
    "delete with finalizers": ("DELETE", f"{DEPLOYMENTS}/shop?propagationPolicy=Foreground", None, ""),
    "delete many": ("DELETE", CLUSTERS, None, ""),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_a_dry_run_is_answered_as_the_real_one_and_stores_nothing(api, request_):
    method, path, body, media = request_
    await api.ask("POST", DEPLOYMENTS, manifest())
    await api.ask("POST", QUOTAS, quota(**{"count/deployments.transom.dev": 5}))
    for name in ("one", "two"):
        await api.ask("POST", CLUSTERS, cluster(name))
    before = await everything(api)
    dry_path = f"{path}{'&' if '?' in path else '?'}dryRun=All"
    dry = await api.ask(method, dry_path, body, media=media)
    assert await everything(api) == before
    real = await api.ask(method, path, body, media=media)
    assert dry.code == real.code < 300
    assert foreseen(dry.body) == foreseen(real.body)
    assert await everything(api) != before


async def test_a_dry_run_of_a_deletion_may_be_asked_for_in_its_body(api):
    await api.ask("POST", CLUSTERS, cluster("one"))
    before = await everything(api)
    for path in (f"{CLUSTERS}/one", CLUSTERS):
        assert (await api.ask("DELETE", path, {"dryRun": ["All"]})).code == 200
    assert await everything(api) == before


async def test_a_dry_run_is_refused_whatever_the_real_one_is_refused_for(api):
    created = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    await api.ask("PUT", f"{DEPLOYMENTS}/shop", manifest(version="2"))
    await api.ask("POST", QUOTAS, quota(**{"count/deployments.transom.dev": 1}))
    await api.ask("POST", CLUSTERS, cluster("kept", labels={"transom.dev/protected": "true"}))
    before = await everything(api)
    refusals = set()
    for method, path, body, media in (
        ("POST", DEPLOYMENTS, manifest(), JSON),
        ("POST", DEPLOYMENTS, manifest("beyond"), JSON),
        ("POST", DEPLOYMENTS, manifest("wrong", regions=["mars"]), JSON),
        ("POST", DEPLOYMENTS, manifest("Wrong"), JSON),
        ("POST", DEPLOYMENTS, manifest("wrong", sepc=1), JSON),
        ("PUT", f"{DEPLOYMENTS}/shop", created, JSON),
        ("PATCH", f"{DEPLOYMENTS}/shop", {"metadata": {"resourceVersion": "1"}}, MERGE),
        ("PATCH", f"{DEPLOYMENTS}/none", {}, MERGE),
        ("PATCH", f"{DEPLOYMENTS}/shop?fieldManager=me", manifest(version="3"), APPLY),
        ("DELETE", f"{DEPLOYMENTS}/none", None, JSON),
        ("DELETE", f"{DEPLOYMENTS}/shop", {"preconditions": {"uid": "another"}}, JSON),
        ("DELETE", f"{CLUSTERS}/kept", None, JSON),
        ("DELETE", CLUSTERS, None, JSON),
        ("DELETE", f"{ROOT}/tenants/acme", None, JSON),
    ):
        dry = await api.ask(method, f"{path}{'&' if '?' in path else '?'}dryRun=All", body, media=media)
        real = await api.ask(method, path, body, media=media)
        assert (dry.code, dry.body) == (real.code, real.body), path
        refusals.add((real.code, real.body["reason"]))
    assert await everything(api) == before
    assert refusals == {
        (409, "AlreadyExists"),
        (403, "Forbidden"),
        (422, "Invalid"),
        (409, "Conflict"),
        (404, "NotFound"),
    }


async def test_a_dry_run_of_anything_but_all_is_refused(api):
    before = await everything(api)
    refused = await api.ask("POST", f"{DEPLOYMENTS}?dryRun=yes", manifest())
    assert (refused.code, refused.body["details"]["kind"]) == (422, "CreateOptions")
    assert refused.body["details"]["causes"][0]["field"] == "dryRun"
    assert await everything(api) == before


# --- fields that nobody knows ------------------------------------------------------------------------------


async def test_unknown_fields_are_refused_told_or_left_out(api):
    wrong = manifest("web", sepc=1)
    wrong["metadata"]["lables"] = {}
    wrong["extra"] = {"a": 1}
    names = ["metadata.lables", "extra", "spec.sepc"]
    for asked in ("", "?fieldValidation=Strict"):
        refused = await api.ask("POST", f"{DEPLOYMENTS}{asked}", wrong)
        assert refused.code == 422
        assert [cause["field"] for cause in refused.body["details"]["causes"]] == names
    for method, path, body in (
        ("POST", DEPLOYMENTS, wrong),
        ("PUT", f"{DEPLOYMENTS}/web", wrong),
        ("PATCH", f"{DEPLOYMENTS}/web", {"extra": 1, "spec": {"sepc": 1}, "metadata": {"lables": {}}}),
    ):
        media = MERGE if method == "PATCH" else "application/json"
        for said, warned in (("Warn", names), ("Ignore", [])):
            query = f"?fieldValidation={said}&dryRun=All"
            done = await api.ask(method, path + query, body, media=media)
            assert done.code in (200, 201), done.body
            assert done.headers.getall("Warning", []) == [
                f'299 - "unknown field \\"{name}\\""' for name in warned
            ]
            assert "sepc" not in str(done.body)
        await api.ask(method, f"{path}?fieldValidation=Ignore", body, media=media)
    held = (await api.ask("GET", f"{DEPLOYMENTS}/web")).body
    assert not {"sepc", "lables", "extra"} & {*held, *held["metadata"], *held["spec"]}


async def test_what_is_wrong_and_not_unknown_is_refused_whatever_the_validation(api):
    for said in ("Warn", "Ignore"):
        refused = await api.ask("POST", f"{DEPLOYMENTS}?fieldValidation={said}", manifest(regions="eu"))
        assert refused.code == 422
    assert (await api.ask("POST", f"{DEPLOYMENTS}?fieldValidation=warn", manifest())).code == 422


# --- names that the hub makes ------------------------------------------------------------------------------


async def test_a_name_is_made_from_its_beginning(api):
    for prefix in ("web-", "w" * 70):
        body = manifest()
        body["metadata"] = {"generateName": prefix}
        made = (await api.ask("POST", DEPLOYMENTS, body)).body
        assert re.fullmatch(r"(web-|w{58})[bcdfghjklmnpqrstvwxz2456789]{5}", made["metadata"]["name"]), made


async def test_a_name_that_is_taken_is_tried_anew(api, monkeypatch):
    words = iter(["aaaaa", "aaaaa", "aaaaa", "bbbbb"])
    monkeypatch.setattr(api.store.randomness, "word", lambda *_: next(words))
    body = manifest()
    body["metadata"] = {"generateName": "web-"}
    names = [(await api.ask("POST", DEPLOYMENTS, body)).body["metadata"]["name"] for _ in range(2)]
    assert names == ["web-aaaaa", "web-bbbbb"]
    monkeypatch.setattr(api.store.randomness, "word", lambda *_: "aaaaa")
    refused = await api.ask("POST", DEPLOYMENTS, body)
    assert (refused.code, refused.body["reason"]) == (409, "AlreadyExists"), "not for ever"


async def test_a_name_that_is_given_counts(api):
    body = manifest("named")
    body["metadata"]["generateName"] = "web-"
    assert (await api.ask("POST", DEPLOYMENTS, body)).body["metadata"]["name"] == "named"
    nameless = await api.ask("POST", DEPLOYMENTS, {**manifest(), "metadata": {}})
    assert (nameless.code, nameless.body["details"]["causes"][0]["field"]) == (422, "metadata.name")


# --- the status --------------------------------------------------------------------------------------------


class TaskSpec(Spec):
    """Work to do."""

    a: int


TASK = Kind(name="Task", plural="tasks", spec=TaskSpec, owner=PEOPLE, status_owner=PEOPLE)
TASKS = f"{ROOT}/namespaces/acme/tasks"


def task(status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **metadata: Any) -> Any:
    body = {"apiVersion": "transom.dev/v1", "kind": "Task", "metadata": {"name": "one", **metadata}}
    return {**body, "spec": spec or {"a": 1}, "status": status or {}}


async def test_the_status_is_written_where_it_stands_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setattr("hub_parts.shipped", lambda: shipped([TASK]))
    path = f"{TASKS}/one"
    async with served(tmp_path) as api:
        held = (await api.ask("POST", TASKS, task({"phase": "made up"}))).body
        assert not held.get("status"), "what is created has none"
        changed = task({"phase": "Ready"}, {"a": 2}, labels={"a": "b"})
        stated = (await api.ask("PUT", f"{path}/status", changed)).body
        assert (stated["status"], stated["spec"]) == ({"phase": "Ready"}, held["spec"])
        assert stated["metadata"]["generation"] == held["metadata"]["generation"]
        assert "labels" not in stated["metadata"]
        patch = {"status": {"more": 1}, "spec": {"a": 3}}
        patched = (await api.ask("PATCH", f"{path}/status", patch, media=MERGE)).body
        assert (patched["status"], patched["spec"]) == ({"phase": "Ready", "more": 1}, held["spec"])
        replaced = (await api.ask("PUT", path, task({"phase": "made up"}, {"a": 2}))).body
        assert (replaced["status"], replaced["spec"]) == (patched["status"], {"a": 2})
        assert replaced["metadata"]["generation"] == held["metadata"]["generation"] + 1
        assert (await api.ask("GET", f"{path}/status")).body == (await api.ask("GET", path)).body
        before = await everything(api)
        stale = task({"phase": "late"}, resourceVersion=held["metadata"]["resourceVersion"])
        assert (await api.ask("PUT", f"{path}/status", stale)).code == 409
        assert (await api.ask("PUT", f"{path}/status?dryRun=All", task({"phase": "dry"}))).code == 200
        assert await everything(api) == before


async def test_the_status_of_a_controller_is_nobody_elses_and_some_kinds_have_none(api):
    await api.ask("POST", DEPLOYMENTS, manifest())
    others = {**manifest(), "status": {"observedGeneration": 7}}
    refused = await api.ask("PUT", f"{DEPLOYMENTS}/shop/status", others)
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    await api.ask("POST", CLUSTERS, cluster("one"))
    assert (await api.ask("GET", f"{CLUSTERS}/one/status")).code == 404


# --- deletions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "added"),
    [
        ("", None, []),
        ("?propagationPolicy=Background", None, []),
        ("?propagationPolicy=Foreground", None, ["foregroundDeletion"]),
        ("?propagationPolicy=Orphan", None, ["orphan"]),
        ("?orphanDependents=true", None, ["orphan"]),
        ("?orphanDependents=false", None, []),
        ("", {"propagationPolicy": "Foreground", "gracePeriodSeconds": 0}, ["foregroundDeletion"]),
        ("", {"kind": "DeleteOptions", "apiVersion": "v1", "orphanDependents": True}, ["orphan"]),
    ],
)
async def test_a_deletion_says_what_becomes_of_dependents_by_finalizers(api, query, body, added):
    held = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    deleted = (await api.ask("DELETE", f"{DEPLOYMENTS}/shop{query}", body)).body
    assert deleted["metadata"]["finalizers"] == [*held["metadata"]["finalizers"], *added]
    assert deleted["metadata"]["deletionTimestamp"]


async def test_of_a_collection_what_is_selected_is_deleted(api):
    for number in range(6):
        labels = {"even": str(number % 2 == 0).lower()}
        await api.ask("POST", CLUSTERS, cluster(f"c{number}", labels=labels))

    async def names() -> str:
        items = (await api.ask("GET", CLUSTERS)).body["items"]
        return "".join(item["metadata"]["name"][1:] for item in items)

    gone = await api.ask("DELETE", f"{CLUSTERS}?labelSelector=even%3Dtrue")
    assert gone.body["kind"] == "KafkaClusterList"
    assert [item["metadata"]["name"] for item in gone.body["items"]] == ["c0", "c2", "c4"]
    assert await names() == "135"
    await api.ask("DELETE", f"{CLUSTERS}?fieldSelector=metadata.name%3Dc3")
    assert await names() == "15"
    await api.ask("DELETE", f"{CLUSTERS}?limit=1")
    assert await names() == "5"
    assert (await api.ask("DELETE", f"{CLUSTERS}?watch=true")).code == 400
    assert (await api.ask("DELETE", f"{ROOT}/kafkaclusters")).code == 405, "not of all tenants"
    assert await names() == "5"


async def test_of_a_collection_all_else_is_deleted_and_the_first_refused_is_told(api):
    for number in range(4):
        labels = {"transom.dev/protected": "true"} if number == 1 else {}
        await api.ask("POST", CLUSTERS, cluster(f"c{number}", labels=labels))
    refused = await api.ask("DELETE", CLUSTERS)
    assert (refused.code, "c1" in refused.body["message"]) == (403, True)
    left = (await api.ask("GET", CLUSTERS)).body["items"]
    assert [item["metadata"]["name"] for item in left] == ["c1"]


# --- rights, and what is missing ---------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["true", "True", "TRUE", "1"])
async def test_a_watch_is_one_for_rights_however_it_is_spelled(api, said):
    """Who may list and not watch is refused the watch: it goes on telling when rights have ended."""
    key = await made_key(api.store, "lister")
    rules = [{"resources": ["deployments"], "verbs": ["list"]}]
    spec = {"subjects": [{"kind": "Key", "name": "lister"}], "rules": rules}
    binding = {"apiVersion": "transom.dev/v1", "kind": "RoleBinding", "metadata": {"name": "r"}, "spec": spec}
    made = await api.ask("POST", f"{ROOT}/namespaces/acme/rolebindings", binding)
    assert made.code == 201, made.body
    assert (await api.ask("GET", DEPLOYMENTS, key=key)).code == 200
    refused = await api.ask("GET", f"{DEPLOYMENTS}?watch={said}&timeoutSeconds=1", key=key)
    assert (refused.code, "cannot watch resource" in refused.body["message"]) == (403, True)


async def test_what_is_missing_is_told_alike_whatever_is_asked_of_it(api):
    told = set()
    for method, path, body, media in (
        ("GET", "", None, JSON),
        ("GET", "/history", None, JSON),
        ("GET", "/diff?from=1", None, JSON),
        ("GET", "/status", None, JSON),
        ("PUT", "/status", manifest("none"), JSON),
        ("PATCH", "", {}, MERGE),
        ("PATCH", "", [], PATCH),
        ("DELETE", "", None, JSON),
    ):
        missing = await api.ask(method, f"{DEPLOYMENTS}/none{path}", body, media=media)
        assert missing.code == 404
        told.add(repr(missing.body))
    (only,) = told
    assert 'deployments.transom.dev "none" not found' in only


async def test_a_replace_keeps_the_finalizers_of_the_hubs_own_parts(api):
    """kubectl replace with a file that was written by hand must not end what cleans up."""
    held = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    body = manifest(version="2")
    body["metadata"]["finalizers"] = ["example.com/theirs"]
    replaced = (await api.ask("PUT", f"{DEPLOYMENTS}/shop", body)).body
    assert replaced["metadata"]["finalizers"] == [*held["metadata"]["finalizers"], "example.com/theirs"]
    again = (await api.ask("PUT", f"{DEPLOYMENTS}/shop", manifest(version="3"))).body
    assert again["metadata"]["finalizers"] == held["metadata"]["finalizers"]
