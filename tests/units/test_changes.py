"""What a write means, and who may write what (`hub.changes`, invariant 6)."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hub_parts import merge_patching
from transom.catalog.deployment.kind import CONTROLLER
from transom.catalog.kinds import shipped
from transom.hub.changes import (
    Actor,
    Change,
    Held,
    Wanted,
    applying,
    creating,
    deleting,
    dropping_finalizer,
    evaluate,
    finalizer_of,
    merge,
    replacing,
    setting_status,
    updating,
)
from transom.model.errors import ConflictError, ExistsError, ForbiddenError, InvalidError, NotFoundError
from transom.model.resources import Metadata, Resource

KINDS = shipped()
NOW = "2026-01-01T00:00:00.000000Z"
PEOPLE = Actor("api", "lina")
OWNER = Actor(CONTROLLER, CONTROLLER)
REGION = Actor("region", "eu")
OTHER = Actor("other-controller", "other")
ACTORS = {"people": PEOPLE, "controller": OWNER, "region": REGION, "other": OTHER}

APP = {"app": "web", "version": "1", "command": ["./web"]}
SPECS: dict[str, dict[str, Any]] = {
    "Deployment": {**APP, "regions": ["eu"]},
    "RegionalDeployment": {**APP, "region": "eu", "zones": {"a": 1}},
    "Instance": {},
}


def manifest(kind: str, name: str = "web", **spec: Any) -> Resource:
    return Resource(kind, Metadata(name, "acme"), spec={**SPECS[kind], **spec})


def judged(held: Held, wanted: Wanted, actor: Actor, kind: str = "Deployment") -> Held:
    return evaluate(KINDS[kind], held, Change(manifest(kind).key, wanted, actor), "uid-new", NOW)


def held_of(kind: str, *, version: str = "7", status: dict[str, Any] | None = None) -> Resource:
    """A resource as the store holds it."""
    creator = {"api": PEOPLE, CONTROLLER: OWNER, "region": REGION}[KINDS[kind].owner]
    made = judged(None, creating(manifest(kind)), creator, kind)
    assert made is not None
    return made.with_metadata(uid="uid-1", resource_version=version).with_status(status or {})


def changed(held: Held, wanted: Wanted, actor: Actor, kind: str = "Deployment") -> Resource:
    after = judged(held, wanted, actor, kind)
    assert after is not None
    return after


# --- who may write what --------------------------------------------------------------------------------


def _respec(held: Resource) -> Wanted:
    spec = {**held.spec, "version": "2"} if held.spec else {"version": "2"}
    return lambda now: now and msgspec.structs.replace(now, spec=spec)


def _label(held: Resource) -> Wanted:
    return lambda now: now and now.with_metadata(labels={"team": "red"})


def _annotate(held: Resource) -> Wanted:
    return lambda now: now and now.with_metadata(annotations={"note": "x"})


def _restate(held: Resource) -> Wanted:
    return setting_status(held.key, "uid-1", {"ready": 1})


def _add_finalizer(held: Resource) -> Wanted:
    names = [*held.metadata.finalizers, "example.com/hold"]
    return lambda now: now and now.with_metadata(finalizers=names)


def _delete(held: Resource) -> Wanted:
    return deleting(held.key)


SPEC_OWNERS = {"Deployment": "people", "RegionalDeployment": "controller", "Instance": "region"}
STATUS_OWNERS = {"Deployment": "controller", "RegionalDeployment": "region", "Instance": "region"}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("who", ACTORS)
def test_only_the_owner_of_a_kind_creates(kind: str, who: str) -> None:
    if SPEC_OWNERS[kind] == who:
        assert changed(None, creating(manifest(kind)), ACTORS[who], kind).metadata.uid == "uid-new"
    else:
        with pytest.raises(ForbiddenError, match="owns that kind"):
            judged(None, creating(manifest(kind)), ACTORS[who], kind)


@pytest.mark.parametrize("kind", ["Deployment", "RegionalDeployment"])
@pytest.mark.parametrize("who", ACTORS)
@pytest.mark.parametrize("write", [_respec, _label, _annotate, _add_finalizer])
def test_only_the_owner_of_a_kind_changes_what_is_wanted(
    kind: str, who: str, write: Callable[[Resource], Wanted]
) -> None:
    held = held_of(kind)
    if SPEC_OWNERS[kind] == who:
        assert judged(held, write(held), ACTORS[who], kind) != held
    else:
        with pytest.raises(ForbiddenError):
            judged(held, write(held), ACTORS[who], kind)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("who", ACTORS)
def test_only_the_owner_of_a_kind_deletes(kind: str, who: str) -> None:
    held = held_of(kind)
    if SPEC_OWNERS[kind] == who:
        after = judged(held, _delete(held), ACTORS[who], kind)
        assert after is None if kind == "Instance" else after and after.deleting
    else:
        with pytest.raises(ForbiddenError, match="may not delete"):
            judged(held, _delete(held), ACTORS[who], kind)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("who", ACTORS)
def test_only_the_owner_of_a_status_writes_it(kind: str, who: str) -> None:
    held = held_of(kind, status={"ready": 0})
    if STATUS_OWNERS[kind] == who:
        assert changed(held, _restate(held), ACTORS[who], kind).status == {"ready": 1}
    else:
        with pytest.raises(ForbiddenError, match="may not write the status"):
            judged(held, _restate(held), ACTORS[who], kind)


@pytest.mark.parametrize(
    ("kind", "finalizer_role"), [("Deployment", CONTROLLER), ("RegionalDeployment", "region")]
)
@pytest.mark.parametrize("who", ACTORS)
def test_only_the_role_in_a_finalizer_removes_it(kind: str, finalizer_role: str, who: str) -> None:
    held = held_of(kind)
    wanted = dropping_finalizer(held.key, "uid-1", finalizer_role)
    if ACTORS[who].role == finalizer_role:
        assert changed(held, wanted, ACTORS[who], kind).metadata.finalizers == []
    else:
        with pytest.raises(ForbiddenError, match="may not remove the finalizer"):
            judged(held, wanted, ACTORS[who], kind)


def test_a_foreign_finalizer_belongs_to_the_owner_of_the_kind() -> None:
    held = changed(held_of("Deployment"), _add_finalizer(held_of("Deployment")), PEOPLE)
    keep = [finalizer_of(CONTROLLER)]
    wanted: Wanted = lambda now: now and now.with_metadata(finalizers=keep)  # noqa: E731
    with pytest.raises(ForbiddenError):
        judged(held, wanted, OWNER)
    assert changed(held, wanted, PEOPLE).metadata.finalizers == keep


def test_a_status_in_a_manifest_is_left_out_unless_its_owner_creates() -> None:
    declared = manifest("Deployment").with_status({"ready": 99})
    assert changed(None, creating(declared), PEOPLE).status == {}
    seen = manifest("Instance").with_status({"health": "Healthy"})
    assert changed(None, creating(seen), REGION, "Instance").status == {"health": "Healthy"}


# --- create, replace, patch ----------------------------------------------------------------------------


def test_creating_gives_identity_and_takes_none() -> None:
    meta = Metadata("web", "acme", uid="mine", generation=9, resource_version="9", creation_timestamp="then")
    meta = msgspec.structs.replace(meta, labels={"a": "b"}, finalizers=["example.com/hold"])
    made = changed(None, creating(Resource("Deployment", meta, spec=SPECS["Deployment"])), PEOPLE)
    assert made.metadata == Metadata(
        "web",
        "acme",
        uid="uid-new",
        generation=1,
        labels={"a": "b"},
        finalizers=[finalizer_of(CONTROLLER), "example.com/hold"],
        creation_timestamp=NOW,
    )
    assert made.api_version == "transom.dev/v1"
    assert made.spec["instances"] == 1  # defaults are written out


def test_creating_what_exists_is_refused_in_words_that_fit() -> None:
    held = held_of("Deployment")
    with pytest.raises(ExistsError, match="exists already"):
        judged(held, creating(manifest("Deployment")), PEOPLE)
    with pytest.raises(ExistsError, match="still being deleted"):
        judged(changed(held, _delete(held), PEOPLE), creating(manifest("Deployment")), PEOPLE)


def test_what_is_written_must_be_what_was_named() -> None:
    # Else a kind would be judged by the rules of another.
    change = Change(manifest("Deployment").key, creating(manifest("Deployment", "other")), PEOPLE)
    with pytest.raises(InvalidError, match="Deployment/acme/other"):
        evaluate(KINDS["Deployment"], None, change, "uid", NOW)


def test_every_mistake_of_a_spec_is_named_at_once() -> None:
    wrong = manifest("Deployment", instances=-1, version="", colour="red")
    wrong = wrong.with_metadata(name="web", namespace="Not A Label")
    with pytest.raises(InvalidError) as caught:
        evaluate(KINDS["Deployment"], None, Change(wrong.key, creating(wrong), PEOPLE), "uid", NOW)
    assert {problem.path for problem in caught.value.problems} == {
        "metadata.namespace",
        "spec.instances",
        "spec.version",
        "spec.colour",
    }
    held = held_of("Deployment")
    with pytest.raises(InvalidError, match=r"spec\.instances"):
        judged(held, replacing(manifest("Deployment", instances=-1)), PEOPLE)


def test_generation_rises_with_the_spec_alone_and_with_the_wish_to_delete() -> None:
    held = held_of("Deployment")
    assert held.metadata.generation == 1
    assert changed(held, _label(held), PEOPLE).metadata.generation == 1
    assert changed(held, _restate(held), OWNER).metadata.generation == 1
    assert changed(held, _add_finalizer(held), PEOPLE).metadata.generation == 1
    assert changed(held, _respec(held), PEOPLE).metadata.generation == 2
    # As in the Kubernetes API: a deletion is something its owners have to act on.
    assert changed(held, _delete(held), PEOPLE).metadata.generation == 2


@pytest.mark.parametrize(
    "wanted",
    [
        replacing(manifest("Deployment")),
        applying(manifest("Deployment")),
        applying(manifest("Deployment", instances=1)),
        merge_patching(manifest("Deployment").key, {}),
        merge_patching(manifest("Deployment").key, {"spec": {"version": "1"}}),
        merge_patching(manifest("Deployment").key, {"status": {"ready": 5}, "apiVersion": "transom.dev/v1"}),
        merge_patching(manifest("Deployment").key, {"metadata": {"uid": "uid-1", "generation": 99}}),
        setting_status(manifest("Deployment").key, "uid-1", {}),
    ],
)
def test_a_write_that_says_nothing_new_gives_what_is_held_itself(wanted: Wanted) -> None:
    held = held_of("Deployment")
    assert judged(held, wanted, PEOPLE) is held


def test_replacing_keeps_identity_status_and_finalizers() -> None:
    held = held_of("Deployment", status={"ready": 1})
    new = manifest("Deployment", version="2").with_metadata(labels={"a": "b"})
    after = changed(held, replacing(new.with_status({"ready": 50})), PEOPLE)
    assert after.spec["version"] == "2"
    assert after.status == {"ready": 1}
    assert after.metadata == msgspec.structs.replace(held.metadata, labels={"a": "b"}, generation=2)


@pytest.mark.parametrize("wanted", [replacing, applying])
def test_a_replacement_made_from_an_old_read_is_refused(wanted: Callable[[Resource], Wanted]) -> None:
    held = held_of("Deployment", version="7")
    for field, stale in (("resource_version", "6"), ("uid", "uid-0")):
        with pytest.raises(ConflictError, match="Deployment/acme/web"):
            judged(held, wanted(manifest("Deployment", version="2").with_metadata(**{field: stale})), PEOPLE)
    fresh = manifest("Deployment", version="2").with_metadata(resource_version="7", uid="uid-1")
    assert changed(held, wanted(fresh), PEOPLE).spec["version"] == "2"


def test_a_patch_or_deletion_made_from_an_old_read_is_refused() -> None:
    held = held_of("Deployment", version="7")
    stale: list[Wanted] = [
        merge_patching(held.key, {"metadata": {"resourceVersion": "6"}, "spec": {"version": "2"}}),
        merge_patching(held.key, {"metadata": {"uid": "uid-0"}, "spec": {"version": "2"}}),
        deleting(held.key, "6"),
        deleting(held.key, uid="uid-0"),
        setting_status(held.key, "uid-0", {"ready": 1}),
        dropping_finalizer(held.key, "uid-0", CONTROLLER),
    ]
    for wanted in stale:
        with pytest.raises(ConflictError):
            judged(held, wanted, PEOPLE)
    assert changed(held, deleting(held.key, "7", "uid-1"), PEOPLE).deleting


def test_what_does_not_exist_cannot_be_changed() -> None:
    key = manifest("Deployment").key
    for wanted in (
        replacing(manifest("Deployment")),
        merge_patching(key, {}),
        deleting(key),
        setting_status(key, "", {}),
        dropping_finalizer(key, "", CONTROLLER),
    ):
        with pytest.raises(NotFoundError, match="does not exist"):
            judged(None, wanted, PEOPLE)


def test_a_patch_changes_the_whole_object_but_not_its_name() -> None:
    held = changed(held_of("Deployment"), _label(held_of("Deployment")), PEOPLE)
    patch = {"metadata": {"labels": {"team": None, "tier": "1"}}, "spec": {"instances": 3}}
    after = changed(held, merge_patching(held.key, patch), PEOPLE)
    assert after.metadata.labels == {"tier": "1"}
    assert (after.spec["instances"], after.spec["version"]) == (3, "1")
    for wrong in ({"metadata": {"name": "x"}}, {"kind": "Instance"}, {"metadata": {"namespace": "x"}}):
        with pytest.raises(InvalidError, match="cannot be changed"):
            judged(held, merge_patching(held.key, wrong), PEOPLE)


def test_a_resource_never_moves_to_another_region() -> None:
    # The region it leaves would never hear of it (invariant 5), whoever writes.
    held = held_of("RegionalDeployment")
    moved = {**held.spec, "region": "us"}
    with pytest.raises(InvalidError, match=r"spec\.region"):
        judged(
            held,
            lambda now: now and msgspec.structs.replace(now, spec=moved),
            OWNER,
            "RegionalDeployment",
        )


# --- deletion ------------------------------------------------------------------------------------------


def test_deletion_waits_for_every_finalizer_and_goes_one_way() -> None:
    held = held_of("Deployment")
    held = changed(held, _add_finalizer(held), PEOPLE)
    going = changed(held, deleting(held.key), PEOPLE)
    assert going.metadata.deletion_timestamp == NOW
    assert judged(going, deleting(held.key), PEOPLE) is going
    assert changed(going, merge_patching(held.key, {"spec": {"version": "2"}}), PEOPLE).deleting
    with pytest.raises(ForbiddenError, match="may not add finalizers"):
        judged(
            going,
            lambda now: now and now.with_metadata(finalizers=[*now.metadata.finalizers, "a.b/c"]),
            PEOPLE,
        )
    one_left = changed(going, dropping_finalizer(held.key, "uid-1", CONTROLLER), OWNER)
    assert one_left.metadata.finalizers == ["example.com/hold"]
    assert judged(one_left, merge_patching(held.key, {"metadata": {"finalizers": None}}), PEOPLE) is None


def test_a_resource_without_finalizers_goes_at_once() -> None:
    held = held_of("Instance")
    assert judged(held, deleting(held.key), REGION, "Instance") is None


# --- RFC 7396, appendix A ------------------------------------------------------------------------------

RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_the_examples_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    before = msgspec.json.encode(target)
    assert merge(target, patch) == result
    assert msgspec.json.encode(target) == before


def test_what_is_being_deleted_is_not_declared_again_meanwhile() -> None:
    held = held_of("Deployment")
    going = changed(held, deleting(held.key), PEOPLE)
    again = manifest("Deployment", **{**held.spec, "version": "9"})
    with pytest.raises(ConflictError, match="is being deleted; wait until it is gone"):
        judged(going, replacing(again), PEOPLE)
    # Who has read that it is being deleted may change it, as any client that takes its finalizer away does.
    assert judged(going, replacing(going), PEOPLE) is going
    read = again.with_metadata(resource_version=going.metadata.resource_version)
    assert changed(going, replacing(read), PEOPLE).spec["version"] == "9"


def test_what_only_the_hub_sets_never_changes() -> None:
    held = held_of("Deployment")
    for field, said in (
        ("creation_timestamp", "2026-01-02T00:00:00Z"),
        ("deletion_timestamp", NOW),
        ("deletion_grace_period_seconds", 30),
    ):
        with pytest.raises(InvalidError, match=r"metadata\..*field is immutable"):
            judged(held, updating(held.with_metadata(**{field: said})), PEOPLE)
    same = held.with_metadata(creation_timestamp=NOW[:19] + "Z", generation=99)
    assert judged(held, updating(same), PEOPLE) is held, "clients keep no more of a time than its seconds"


def test_replacing_keeps_our_finalizers_and_no_other() -> None:
    held = changed(held_of("Deployment"), _add_finalizer(held_of("Deployment")), PEOPLE)
    ours = held_of("Deployment").metadata.finalizers
    assert changed(held, replacing(manifest("Deployment")), PEOPLE).metadata.finalizers == ours
    more = manifest("Deployment").with_metadata(finalizers=["a.b/c", *ours])
    assert changed(held, replacing(more), PEOPLE).metadata.finalizers == [*ours, "a.b/c"]
