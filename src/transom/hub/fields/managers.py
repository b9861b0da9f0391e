"""Applying and updating: what becomes of an object, and of the sets of all who manage it.

Applying says everything that one manager wants: what it said before and does not say now goes, unless
somebody else manages it; what somebody else manages and it would change is a conflict. Updating changes
whatever it changes, and takes over just that. Semantics as in https://github.com/kubernetes-sigs/structured-merge-diff
(`merge.Updater`). Next on the data's way: `entries` keeps the sets in metadata.managedFields.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from transom.hub.fields.merging import merge
from transom.hub.fields.sets import NONE, FieldSet, Path, field, spoken
from transom.hub.fields.shapes import Shape
from transom.hub.fields.walks import difference, fields_of, places_of, with_declared, without
from transom.model.errors import ConflictError

APPLY: Final = "Apply"
UPDATE: Final = "Update"

_NEVER: Final[FieldSet] = frozenset({(field("metadata"),)})
"""Not for anybody to manage: every object has it, whatever is in it."""


class Manager(NamedTuple):
    """Who manages fields, and how. What is applied has one set in all versions: its `api_version` is ""."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        """As Kubernetes names it in conflicts: "kubectl" with subresource "status" using transom.dev/v1."""
        said = f'"{self.name}"'
        if self.subresource:
            said += f' with subresource "{self.subresource}"'
        return f"{said} using {self.api_version}" if self.operation == UPDATE else said


Managers = Mapping[Manager, FieldSet]


class FieldConflict(NamedTuple):
    """A field that somebody else manages."""

    manager: Manager
    path: Path


class FieldConflictError(ConflictError):
    """Somebody else manages a field that was applied with another value; apply with force to take it over."""

    def __init__(self, conflicts: Iterable[FieldConflict]) -> None:
        self.conflicts = tuple(sorted(conflicts))
        super().__init__(_told(self.conflicts))


def _told(conflicts: tuple[FieldConflict, ...]) -> str:
    """In Kubernetes' words, which people search for."""
    if len(conflicts) == 1:
        manager, path = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {manager}: {spoken(path)}"
    lines: list[str] = []
    for manager in sorted({manager for manager, _ in conflicts}):
        lines.append(f"conflicts with {manager}:")
        lines += [f"- {spoken(path)}" for other, path in conflicts if other == manager]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)


class Applied(NamedTuple):
    """What came of applying: the object, and who manages it."""

    value: Any
    managers: dict[Manager, FieldSet]


def apply(
    shape: Shape, live: Any, managers: Managers, applied: Any, manager: Manager, *, force: bool
) -> Applied:
    """Merge `applied` into `live`; remove what `manager` applied before and nobody else manages.

    Raises `FieldConflictError` when it would change what others manage, unless `force` takes that over.
    """
    given = {**managers, manager: fields_of(shape, applied) - _NEVER}
    value = merge(shape, live, applied)
    value = _pruned(shape, value, managers.get(manager, NONE), frozenset[Path]().union(*given.values()))
    removed, modified, added = difference(shape, live, value)
    changed = modified | added
    others = [other for other in given if other != manager]
    if not force:
        conflicts = [FieldConflict(other, path) for other in others for path in given[other] & changed]
        if conflicts:
            raise FieldConflictError(conflicts)
    for other in others:
        given[other] -= changed | removed
    return Applied(value, _without_empty(given))


def _pruned(shape: Shape, value: Any, before: FieldSet, owned: FieldSet) -> Any:
    """Take away what was applied `before` and is `owned` by nobody now.

    A field on the way to others stays when one of them is owned; and what was never applied, inside of what
    goes, is not this manager's to remove.
    """
    if not before:
        return value
    everything = places_of(shape, value)
    before = with_declared(shape, before)
    bare = places_of(shape, without(shape, value, before))
    kept = without(shape, value, everything - (bare | with_declared(shape, owned)))
    gone = everything - places_of(shape, kept)
    return without(shape, value, gone & before)


class Updated(NamedTuple):
    """What came of updating: who manages what, and whether anything came or changed."""

    managers: dict[Manager, FieldSet]
    changed: bool


def update(shape: Shape, before: Any, after: Any, managers: Managers, manager: Manager) -> Updated:
    """Record that `manager` made `after` of `before`: it manages all it changed, nobody what is gone."""
    removed, modified, added = difference(shape, before, after)
    changed = (modified | added) - _NEVER
    given = {other: fields - changed - removed for other, fields in managers.items()}
    if changed:
        given[manager] = given.get(manager, NONE) | changed
    return Updated(_without_empty(given), bool(changed))


def _without_empty(managers: Managers) -> dict[Manager, FieldSet]:
    return {manager: fields for manager, fields in managers.items() if fields}
