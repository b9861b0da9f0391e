"""Who manages which field of whole resources: subresources, flat kinds, what was never tracked."""

from typing import Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field

from transom.hub.changes import Actor, Change, Held, Wanted, creating, evaluate, setting_status, updating
from transom.hub.fields.entries import UPDATERS_MAX, Managed, capped, decode, encode
from transom.hub.fields.managers import APPLY, UPDATE, Manager
from transom.hub.fields.tracking import Applying, Tracked, Updating, tracked
from transom.model.kinds import PEOPLE, Kind, Spec
from transom.model.resources import ManagedFields, Metadata, OwnerReference, Resource
from transom.model.schemas import schema_of

LINA = Actor(PEOPLE, "lina")
TIMES = (f"2026-01-01T00:00:{second:02}Z" for second in range(60))


class ValveSpec(Spec):
    size: int = 1
    parts: list[str] = Field(default_factory=list, json_schema_extra={"x-kubernetes-list-type": "set"})


class ValveStatus(BaseModel):
    turns: int = 0
    state: Literal["open", "closed"] = "closed"


VALVE = Kind("Valve", "valves", ValveSpec, status=ValveStatus, status_owner=PEOPLE, finalizers=("a.dev/x",))
NOTE = Kind("Note", "notes", ValveSpec, group="", flat=True)
OF_VALVE = tracked(VALVE, schema_of(VALVE), VALVE.api_version)
OF_NOTE = tracked(NOTE, schema_of(NOTE), NOTE.api_version)


def written(held: Held, wanted: Wanted, tracking: Any, kind: Kind = VALVE) -> Resource:
    key = Resource(kind.name, Metadata("v", "acme")).key
    after = evaluate(kind, held, Change(key, wanted, LINA, tracking=tracking), "uid-1", next(TIMES))
    assert after is not None
    return after


def created(name: str = "maker", kind: Kind = VALVE, of: Tracked = OF_VALVE[""], **spec: Any) -> Resource:
    resource = Resource(kind.name, Metadata("v", "acme"), kind.api_version, spec=spec)
    return written(None, creating(resource), Updating(of, name), kind)


def entries(resource: Resource) -> dict[tuple[str, str, str], Any]:
    return {
        (entry.manager, entry.operation, entry.subresource): entry.fields_v1
        for entry in resource.metadata.managed_fields
    }


def body(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "transom.dev/v1", "kind": "Valve", "metadata": {"name": "v"}, **more}


def test_a_status_has_managers_of_its_own():
    made = created(size=2)
    assert entries(made) == {
        ("maker", UPDATE, ""): {"f:spec": {".": {}, "f:parts": {}, "f:size": {}}},
    }, "neither the finalizer that the kind puts on, nor any status"
    turned = written(made, setting_status(made.key, "", {"turns": 3}), Updating(OF_VALVE["status"], "hand"))
    assert entries(turned) == {
        **entries(made),
        ("hand", UPDATE, "status"): {"f:status": {".": {}, "f:turns": {}}},
    }
    apply = Applying(OF_VALVE["status"], body(status={"turns": 4}), "robot", force=True)
    whole, managed = apply.merged(turned)
    assert whole == body(spec=made.spec, status={"turns": 4})
    assert entries(turned.with_metadata(managed_fields=managed)) == {
        ("maker", UPDATE, ""): {"f:spec": {".": {}, "f:parts": {}, "f:size": {}}},
        ("hand", UPDATE, "status"): {"f:status": {}},
        ("robot", APPLY, "status"): {"f:status": {"f:turns": {}}},
    }


def test_applying_to_the_resource_leaves_its_status_and_to_the_status_its_spec():
    made = created(size=2).with_status({"turns": 1})
    whole, _ = Applying(OF_VALVE[""], body(spec={"size": 2}, status={"turns": 9}), "x", force=False).merged(
        made
    )
    assert "status" not in whole
    whole, _ = Applying(OF_VALVE["status"], body(spec={"size": 9}, status={}), "x", force=False).merged(made)
    assert (whole["spec"], whole["status"]) == (made.spec, {"turns": 1})


def test_fields_of_a_flat_kind_stand_beside_its_metadata():
    made = created(kind=NOTE, of=OF_NOTE[""], size=2)
    assert entries(made) == {("maker", UPDATE, ""): {"f:parts": {}, "f:size": {}}}
    note = {"apiVersion": "v1", "kind": "Note", "metadata": {}, "parts": ["a"]}
    whole, managed = Applying(OF_NOTE[""], note, "x", force=False).merged(made)
    assert whole == {**note, "size": 2}
    assert entries(made.with_metadata(managed_fields=managed))["x", APPLY, ""] == {"f:parts": {'v:"a"': {}}}


def test_owners_are_managed_one_by_one_and_as_a_whole():
    made = created()
    owner = OwnerReference("transom.dev/v1", "Tenant", "t", "uid-t", controller=True)
    owned = made.with_metadata(owner_references=[owner])
    after = written(made, updating(owned), Updating(OF_VALVE[""], "gc"))
    assert entries(after)["gc", UPDATE, ""] == {
        "f:metadata": {"f:ownerReferences": {".": {}, 'k:{"uid":"uid-t"}': {}}}
    }


def test_the_time_of_an_entry_is_that_of_its_managers_last_change():
    made = created(size=1)
    after = written(
        made,
        updating(msgspec.structs.replace(made, spec={"size": 2, "parts": []})),
        Updating(OF_VALVE[""], "m"),
    )
    same = written(after, updating(after), Updating(OF_VALVE[""], "m"))
    assert same is after, "what changes nothing changes nothing"
    again = written(
        after,
        updating(msgspec.structs.replace(after, spec={"size": 3, "parts": []})),
        Updating(OF_VALVE[""], "m"),
    )
    times = [{e.manager: e.time for e in each.metadata.managed_fields} for each in (made, after, again)]
    assert times[1]["maker"] == times[2]["maker"] == times[0]["maker"]
    assert times[1]["m"] < times[2]["m"]


def test_what_was_never_tracked_stays_so_under_updates():
    made = created().with_metadata(managed_fields=[])
    after = written(
        made, updating(msgspec.structs.replace(made, spec={"size": 2})), Updating(OF_VALVE[""], "m")
    )
    assert after.metadata.managed_fields == []


def test_a_change_without_tracking_leaves_the_entries_as_they_are():
    made = created()
    after = written(made, updating(msgspec.structs.replace(made, spec={"size": 7})), None)
    assert after.metadata.managed_fields == made.metadata.managed_fields


def test_nobody_without_a_name():
    assert set(entries(created(""))) == {("unknown", UPDATE, "")}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"operation": "Patch"}, "operation must be"),
        ({"api_version": ""}, "apiVersion must not"),
        ({"fields_type": ""}, "fieldsType"),
        ({"fields_v1": {"x": {}}}, "colon"),
    ],
)
def test_entries_that_no_server_wrote(wrong, why):
    [entry] = created().metadata.managed_fields
    with pytest.raises(ValueError, match=why):
        decode([msgspec.structs.replace(entry, **wrong)], "transom.dev/v1")


def test_entries_of_another_version_say_nothing_and_all_others_what_they_said():
    made = created(size=2).metadata.managed_fields
    assert encode(decode(made, "transom.dev/v1"), "transom.dev/v1") == made
    assert decode(made, "transom.dev/v2") == Managed()
    early = ManagedFields("a", APPLY, "transom.dev/v1", "", "FieldsV1", {"f:spec": {}})
    assert [
        entry.manager for entry in encode(decode([*made, early], "transom.dev/v1"), "transom.dev/v1")
    ] == [
        "a",
        "maker",
    ]


def test_the_oldest_who_updated_are_put_together():
    field = ("f:spec",)
    several = [Manager(f"m{number}", UPDATE, "v1") for number in range(UPDATERS_MAX + 2)]
    times = {manager: f"2026-01-01T00:00:{99 - number}Z" for number, manager in enumerate(several)}
    managed = Managed({manager: frozenset({(*field, manager.name)}) for manager in several}, times)
    found = capped(managed, "v1")
    ancient = Manager("ancient-changes", UPDATE, "v1")
    assert len(found.fields) == UPDATERS_MAX
    assert found.fields[ancient] == {(*field, f"m{number}") for number in (9, 10, 11)}
    assert found.times[ancient] == times[several[9]], "that of the newest of them"
    assert capped(found, "v1") is found
