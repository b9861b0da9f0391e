"""Server-side apply and managedFields as a client of the hub's API sees them (`hub.api.applying`)."""

from typing import Any

import msgspec
import pytest

from api_parts import DEPLOYMENTS, ROOT, Answer, manifest, served
from transom.catalog.deployment.kind import CONTROLLER
from transom.hub.changes import Actor, Change, setting_status
from transom.model.names import Key

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
SHOP = f"{DEPLOYMENTS}/shop"
APP = {"app": "shop", "version": "1", "command": ["serve"]}


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


def part(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A part of a Deployment, as one of several managers applies it."""
    whole = manifest()
    return {**whole, "metadata": {"name": "shop", **(metadata or {})}, "spec": spec}


async def apply(api, body: Any, manager: str = "ci", path: str = SHOP, **words: str) -> Answer:
    query = "&".join(f"{word}={value}" for word, value in {"fieldManager": manager, **words}.items())
    return await api.ask("PATCH", f"{path}?{query}", body, media=APPLY)


def managers(body: Any) -> dict[tuple[str, str], Any]:
    """What each manager has, by its name and how it wrote."""
    found = body["metadata"].get("managedFields", [])
    return {(entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in found}


async def test_apply_creates_and_applying_again_changes_nothing(api):
    made = await apply(api, part({"labels": {"team": "web"}}, **APP, regions=["eu"]))
    assert made.code == 201
    [entry] = made.body["metadata"]["managedFields"]
    assert entry == {
        "manager": "ci",
        "operation": "Apply",
        "apiVersion": "transom.dev/v1",
        "time": made.body["metadata"]["creationTimestamp"],
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {"f:team": {}}},
            "f:spec": {"f:app": {}, "f:version": {}, "f:command": {}, "f:regions": {'v:"eu"': {}}},
        },
    }
    again = await apply(api, part({"labels": {"team": "web"}}, **APP, regions=["eu"]))
    assert (again.code, again.body) == (200, made.body)


async def test_yaml_is_applied_as_json_is_and_names_come_from_the_path(api):
    text = b"""
apiVersion: transom.dev/v1
kind: Deployment
metadata: {labels: {team: "\\u263a"}}
spec: {app: shop, version: "1", command: [serve], regions: [eu]}
"""
    refused = await apply(api, text)
    assert refused.code == 422, "no label"
    made = await apply(api, text.replace(b"labels", b"annotations"))
    assert (made.code, made.body["metadata"]["name"]) == (201, "shop")
    escaped = msgspec.json.encode(part({"annotations": {"team": "X"}}, **APP, regions=["eu"]))
    smiled = await apply(api, escaped.replace(b'"X"', b'"\\ud83d\\ude00"'))
    assert smiled.body["metadata"]["annotations"] == {"team": "\U0001f600"}


async def test_managers_share_an_object_and_what_one_drops_is_gone(api):
    await apply(api, part(**APP, regions=["eu"], env={"A": "1"}), "one")
    two = await apply(api, part({"labels": {"a": "b"}}, regions=["us"], env={"B": "2"}), "two")
    assert two.code == 200
    assert two.body["spec"]["regions"] == ["eu", "us"]
    assert two.body["spec"]["env"] == {"A": "1", "B": "2"}
    assert two.body["spec"]["command"] == ["serve"], "what it does not name is as it was"
    dropped = (await apply(api, part(env={"B": "2"}, regions=["us"]), "two")).body
    assert "labels" not in dropped["metadata"]
    gone = (await apply(api, part(**APP, regions=["eu"], instances=3), "one")).body
    assert gone["spec"]["env"] == {"B": "2"}
    back = (await apply(api, part(**APP, regions=["eu"]), "one")).body
    assert back["spec"]["instances"] == 1, "a field that nobody wants any more has its default"
    assert back["metadata"]["generation"] > gone["metadata"]["generation"]


async def test_a_conflict_names_every_field_and_who_manages_it(api):
    await api.ask("POST", f"{DEPLOYMENTS}?fieldManager=edit", manifest())
    refused = await apply(api, part(instances=5, version="2"))
    assert (refused.code, refused.body["reason"], refused.body["status"]) == (409, "Conflict", "Failure")
    assert refused.body["message"] == (
        'Apply failed with 2 conflicts: conflicts with "edit" using transom.dev/v1:\n'
        "- .spec.instances\n- .spec.version"
    )
    message = 'conflict with "edit" using transom.dev/v1'
    assert refused.body["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": message, "field": ".spec.instances"},
        {"reason": "FieldManagerConflict", "message": message, "field": ".spec.version"},
    ]
    forced = await apply(api, part(instances=5, version="2"), force="true")
    assert (forced.code, forced.body["spec"]["version"]) == (200, "2")
    assert "f:version" not in managers(forced.body)["edit", "Update"]["f:spec"]
    assert managers(forced.body)["ci", "Apply"] == {"f:spec": {"f:instances": {}, "f:version": {}}}


async def test_what_cannot_be_applied(api):
    async def refused(body: Any, said: str, **words: Any) -> Answer:
        answer = await apply(api, body, **words)
        assert said in answer.body["message"], answer.body
        return answer

    whole = part(**APP, regions=["eu"])
    needed = (
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
    )
    assert (await refused(whole, needed, manager="")).code == 422
    assert (
        await refused({**whole, "kind": "Tenant"}, "invalid object type: transom.dev/v1, Kind=")
    ).code == 400
    managed = {**whole, "metadata": {"name": "shop", "managedFields": []}}
    assert (await refused(managed, "metadata.managedFields must be nil")).code == 400
    assert (await refused(part(sepc=1), "unknown field")).code == 422
    twice = part(**APP, regions=["eu", "eu"])
    assert (await refused(twice, 'duplicate entries for key [="eu"]')).code == 422
    there = {"name": "shop", "uid": "x"}
    assert (await refused({**whole, "metadata": there}, "no existing object was found")).code == 409
    assert (await refused(part(instances=2), "Field required")).code == 422, "not all of a new one"
    assert (await refused({**whole, "metadata": {"name": "other"}}, "is not what the path says")).code == 422
    cbor = await api.ask("PATCH", SHOP, b"\xa0", media="application/apply-patch+cbor")
    assert (cbor.code, "application/apply-patch+yaml" in cbor.body["message"]) == (415, True)
    forced = await api.ask("PATCH", f"{SHOP}?force=true", {}, media=MERGE)
    assert (forced.code, "force: Forbidden: may not be specified" in forced.body["message"]) == (422, True)
    assert (await api.ask("GET", SHOP)).code == 404, "nothing was made"


async def test_a_version_that_was_read_and_is_not_held_any_more(api):
    made = (await apply(api, part(**APP, regions=["eu"]))).body
    await apply(api, part(instances=2), "scaler")
    version = made["metadata"]["resourceVersion"]
    stale = await apply(api, part({"resourceVersion": version}, **APP, regions=["us"]))
    assert (stale.code, stale.body["reason"]) == (409, "Conflict")


async def test_unknown_fields_are_left_out_and_told_when_the_client_says_so(api):
    body = part(**APP, regions=["eu"], sepc=1)
    warned = await apply(api, body, fieldValidation="Warn")
    assert (warned.code, warned.headers["Warning"]) == (201, '299 - "unknown field \\"spec.sepc\\""')
    assert "f:sepc" not in managers(warned.body)["ci", "Apply"]["f:spec"]


async def test_a_dry_run_shows_and_keeps_nothing(api):
    shown = await apply(api, part(**APP, regions=["eu"]), dryRun="All")
    assert (shown.code, shown.body["spec"]["instances"]) == (201, 1)
    assert (await api.ask("GET", SHOP)).code == 404


async def test_every_other_write_is_an_update_by_who_says_so_or_by_the_client_itself(api):
    made = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    [entry] = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("Python", "Update"), "as aiohttp calls itself"
    spec = entry["fieldsV1"]["f:spec"]
    assert spec["f:healthCheck"] == {
        ".": {},
        "f:intervalSeconds": {},
        "f:kind": {},
        "f:path": {},
        "f:startSeconds": {},
        "f:timeoutSeconds": {},
        "f:unhealthyAfter": {},
    }, "defaults belong to who created it"
    assert set(entry["fieldsV1"]) == {"f:spec"}, "the finalizers that a kind puts on are nobody's"
    patch = {"spec": {"instances": 2}, "metadata": {"labels": {"a": "b"}}}
    patched = (await api.ask("PATCH", f"{SHOP}?fieldManager=edit", patch, media=MERGE)).body
    assert managers(patched)["edit", "Update"] == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {"f:instances": {}},
    }
    assert "f:instances" not in managers(patched)["Python", "Update"]["f:spec"]
    [first, second] = patched["metadata"]["managedFields"]
    assert first["time"] == entry["time"] < second["time"], "a time changes with the manager's own writes"
    replaced = (await api.ask("PUT", f"{SHOP}?fieldManager=third", manifest(version="2"))).body
    assert ("edit", "Update") not in managers(replaced), "nothing of it is left"
    assert managers(replaced)["third", "Update"]["f:spec"] == {"f:instances": {}, "f:version": {}}


async def test_what_a_client_read_it_may_send_back(api):
    made = (await api.ask("POST", f"{DEPLOYMENTS}?fieldManager=one", manifest())).body
    same = await api.ask("PUT", f"{SHOP}?fieldManager=two", made)
    assert (same.code, same.body) == (200, made)
    made["metadata"]["managedFields"][0]["manager"] = "renamed"
    renamed = (await api.ask("PUT", f"{SHOP}?fieldManager=two", made)).body
    assert set(managers(renamed)) == {("renamed", "Update")}
    renamed["metadata"]["managedFields"][0]["operation"] = "Guess"
    kept = (await api.ask("PUT", f"{SHOP}?fieldManager=two", renamed)).body
    assert set(managers(kept)) == {("renamed", "Update")}, "what cannot be read counts for nothing"


@pytest.mark.parametrize("cleared", [[], [{}]])
async def test_managed_fields_are_cleared_and_stay_so_until_somebody_applies(api, cleared):
    await api.ask("POST", f"{DEPLOYMENTS}?fieldManager=one", manifest())
    patch = {"metadata": {"managedFields": cleared}}
    assert managers((await api.ask("PATCH", SHOP, patch, media=MERGE)).body) == {}
    changed = await api.ask("PATCH", SHOP, {"spec": {"instances": 2}}, media=MERGE)
    assert managers(changed.body) == {}
    refused = await apply(api, part(instances=3))
    assert 'conflict with "before-first-apply" using transom.dev/v1: .spec.inst' in refused.body["message"]
    applied = (await apply(api, part(instances=2))).body
    assert set(managers(applied)) == {("ci", "Apply"), ("before-first-apply", "Update")}


async def test_kubectl_takes_over_what_it_applied_itself_before(api):
    name = "kubectl.kubernetes.io/last-applied-configuration"
    last = manifest(instances=2)
    whole = {**last, "metadata": {"name": "shop", "annotations": {name: msgspec.json.encode(last).decode()}}}
    made = await api.ask("POST", f"{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply", whole)
    assert made.code == 201
    assert (await apply(api, part(instances=3), "other")).code == 409
    changed = await api.ask("PATCH", f"{SHOP}?fieldManager=edit", {"spec": {"version": "9"}}, media=MERGE)
    assert changed.code == 200
    refused = await apply(api, manifest(instances=3), "kubectl")
    assert refused.body["message"] == (
        'Apply failed with 1 conflict: conflict with "edit" using transom.dev/v1: .spec.version'
    )
    applied = (await apply(api, manifest(instances=3, version="9"), "kubectl")).body
    assert applied["spec"]["instances"] == 3
    record = msgspec.json.decode(applied["metadata"]["annotations"][name])
    assert record == {**manifest(instances=3, version="9"), "metadata": {"annotations": {}, "name": "shop"}}


async def test_no_more_than_ten_updaters_are_told_apart(api):
    await api.ask("POST", f"{DEPLOYMENTS}?fieldManager=first", manifest())
    for number in range(12):
        patch = {"metadata": {"labels": {f"l{number}": "x"}}}
        held = await api.ask("PATCH", f"{SHOP}?fieldManager=m{number}", patch, media=MERGE)
    found = managers(held.body)
    assert len(found) == 10
    ancient = found["ancient-changes", "Update"]
    assert set(ancient["f:metadata"]["f:labels"]) == {".", "f:l0", "f:l1", "f:l2"}
    assert "f:app" in ancient["f:spec"]
    assert ("m3", "Update") in found


async def test_what_controllers_write_belongs_to_nobody(api):
    made = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    key = Key("Deployment", "acme", "shop")
    reporting = setting_status(key, made["metadata"]["uid"], {"ready": 1})
    await api.store.write(Change(key, reporting, Actor(CONTROLLER, CONTROLLER)))
    held = (await api.ask("GET", SHOP)).body
    assert held["status"] == {"ready": 1}
    assert managers(held) == managers(made)


async def test_who_manages_what_is_no_news_for_regions(api):
    await apply(api, part(**APP, regions=["eu"]), "one")
    key = Key("Deployment", "acme", "shop")
    before = await api.store.get(key)
    shared = await apply(api, part(version="1"), "two")
    assert set(managers(shared.body)) == {("one", "Apply"), ("two", "Apply")}
    after = await api.store.get(key)
    assert after.metadata.resource_version != before.metadata.resource_version
    assert after.metadata.generation == before.metadata.generation
    assert after.desired() == before.desired()


async def test_a_status_that_somebody_else_owns_is_refused_and_not_dropped_in_silence(api):
    made = (await api.ask("POST", DEPLOYMENTS, manifest())).body
    refused = await apply(api, {**part(), "status": {"ready": 3}}, path=f"{SHOP}/status")
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    assert (await api.ask("GET", SHOP)).body == made
    same = await apply(api, {**part(), "status": {"ready": 3}})
    assert (same.code, "status" in same.body) == (200, False), "in a manifest it says nothing"


async def test_an_object_does_not_grow_without_end_by_managers_alone(api, monkeypatch):
    whole = part(**APP, regions=["eu"])
    assert (await apply(api, whole, "first")).code == 201
    monkeypatch.setattr("transom.hub.api.applying.OBJECT_BYTES_MAX", 3000)
    codes = [(await apply(api, whole, f"manager-{number}")).code for number in range(20)]
    assert codes[:3] == [200, 200, 200]
    assert codes[-1] == 422
    assert (await apply(api, whole, "manager-0")).code == 200, "who is there already is no news"


async def test_the_reason_for_a_change_may_stand_in_what_is_applied(api):
    await apply(api, part({"annotations": {"transom.dev/change-cause": "a try"}}, **APP, regions=["eu"]))
    [item] = (await api.ask("GET", f"{SHOP}/history")).body["items"]
    assert item["why"] == "a try"


async def test_a_namespace_and_the_tenant_that_it_shows_have_the_same_managers(api):
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t", "labels": {"a": "1"}}}
    made = await apply(api, body, "one", "/api/v1/namespaces/t")
    assert made.code == 201
    changed = {"metadata": {"labels": {"b": "2"}}, "spec": {"regions": ["eu"]}}
    tenant = f"{ROOT}/tenants/t"
    held = (await api.ask("PATCH", f"{tenant}?fieldManager=edit", changed, media=MERGE)).body
    assert managers(held) == {
        ("one", "Apply"): {"f:metadata": {"f:labels": {"f:a": {}}}},
        ("edit", "Update"): {
            "f:metadata": {"f:labels": {"f:b": {}}},
            "f:spec": {"f:regions": {".": {}, 'v:"eu"': {}}},
        },
    }
    body["metadata"]["labels"] = {"b": "3"}
    refused = await apply(api, body, "one", "/api/v1/namespaces/t")
    assert (refused.code, '"edit" using transom.dev/v1' in refused.body["message"]) == (409, True)
    forced = await apply(api, body, "one", "/api/v1/namespaces/t", force="true")
    assert forced.code == 200
    held = (await api.ask("GET", tenant)).body
    assert (held["metadata"]["labels"], held["spec"]["regions"]) == ({"b": "3"}, ["eu"])
    assert "f:spec" in managers(held)["edit", "Update"]
