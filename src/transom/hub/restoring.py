"""Bringing back what was deleted: the same resource, with its uid, going on where it ended.

Pure. Nothing goes back (invariant 2): what comes back has a newer revision than its delete marker, and a
higher generation than it ever had. Its status is that of before and is not kept, but for how far each zone
had reported: what a zone said before counts no more, also when it is heard again.
Next on the data's way: `store_write`, as any other change.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from transom.hub.changes import Actor, Change, Held, Wanted
from transom.hub.ownership import GARBAGE_FINALIZERS
from transom.model.errors import ConflictError
from transom.model.kinds import REGION, Kind
from transom.model.names import Key
from transom.model.resources import JsonObject, Resource

Guard = Callable[[Key, Wanted], Wanted]
"""What may raise before, or where it is written, because of who asks."""

REPORT_VERSION = "reportVersion"
"""The field of a status that holds the version of the report it came from."""


def restoring(
    asked: Resource, tombstone: Resource, actor: Actor, why: str, guard: Guard = lambda _, wanted: wanted
) -> Change:
    """Make again what was `asked` to go, and of which the store has `tombstone`; `guard` has a say in it."""
    return Change(asked.key, guard(asked.key, lambda _: asked), actor, why, revives=tombstone)


def revived(kind: Kind, held: Held, buried: Resource | None, change: Change) -> Resource:
    """What is held once `change` has brought back what is `buried`.

    Raises `ConflictError`, and `InvalidError` when its kind would not take it any more.
    """
    expected = change.revives
    if held is not None:
        raise ConflictError(
            f"{held.key} exists again, as another object (uid {held.metadata.uid}); "
            "delete that first, or leave it at that: both cannot have the name"
        )
    if buried is None or expected is None or _place(buried) != _place(expected):
        raise ConflictError(f"{change.key} is not what was to be brought back any more; look again")
    asked = change.wanted(None)
    assert asked is not None  # noqa: S101  # what is brought back is something
    others = [name for name in asked.metadata.finalizers if name not in GARBAGE_FINALIZERS]
    back = asked.with_metadata(
        generation=buried.metadata.generation + 1,
        deletion_timestamp=None,
        finalizers=[*kind.finalizers, *(name for name in others if name not in kind.finalizers)],
    )
    return kind.validate(back.with_status(remembered(kind, buried.status)))


def remembered(kind: Kind, status: Mapping[str, Any]) -> JsonObject:
    """What stays of a status: how far each zone had reported, so that nothing older counts."""
    zones = status.get("zones")
    if kind.status_owner != REGION or not isinstance(zones, Mapping):
        return {}
    reports = cast("Mapping[str, Mapping[str, Any]]", zones)
    known = {name: {REPORT_VERSION: reports[name][REPORT_VERSION]} for name in sorted(reports)}
    return {"zones": known} if known else {}


def has_reported(status: Mapping[str, Any]) -> bool:
    """Whether a zone's status says anything, and not only how far it had reported."""
    return set(status) != {REPORT_VERSION}


def _place(resource: Resource) -> tuple[str, str]:
    return resource.metadata.uid, resource.metadata.resource_version
