"""The hook of every write through the API: who manages which field of a resource once it is written.

`Updating` records what a create, replace or patch changed; `Applying` is server-side apply: the change
itself, and its record. Both run inside the store's transaction (`hub.changes.evaluate`), after defaults are
written out, so that they see exactly what will be held. What controllers and regions write is not tracked
(decision 15). Next on the data's way: `hub.changes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from transom.hub.changes import Held
from transom.hub.fields.entries import Managed, capped, decode, encode
from transom.hub.fields.managers import (
    APPLY,
    UPDATE,
    FieldConflictError,
    Manager,
    Managers,
    apply,
    update,
)
from transom.hub.fields.sets import FieldSet
from transom.hub.fields.shapes import Shape, shape_from
from transom.hub.fields.walks import difference, fields_of
from transom.model.errors import UNREADABLE
from transom.model.kinds import Kind
from transom.model.resources import JsonObject, ManagedFields, Resource, to_json

STATUS: Final = "status"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL: Final = "kubectl"

_METADATA: Final = ("labels", "annotations", "finalizers", "ownerReferences")
_BEFORE_FIRST_APPLY: Final = "before-first-apply"
_UNKNOWN_MANAGER: Final = "unknown"

CLEARED: Final = ManagedFields()
"""Stands alone in what a writer sends to have all entries removed."""


@dataclass(frozen=True)
class Tracked:
    """The fields of one kind that are managed: those of the resource, or of its `subresource`.

    `api_version` is the one in the entries: for a kind that shows another, that of the one that is stored.
    """

    kind: Kind
    shape: Shape
    api_version: str
    subresource: str = ""

    def of(self, resource: Held) -> JsonObject:
        """The part of a resource whose fields are managed, as clients see it."""
        if resource is None:
            return {}
        if self.subresource:
            return {STATUS: resource.status} if resource.status else {}
        meta = resource.metadata
        managed = {
            "labels": meta.labels,
            "annotations": meta.annotations,
            "finalizers": meta.finalizers,
            "ownerReferences": msgspec.to_builtins(meta.owner_references),
        }
        found: JsonObject = {name: value for name, value in managed.items() if value}
        return {**({"metadata": found} if found else {}), **self._spec_on_the_wire(resource.spec)}

    def _spec_on_the_wire(self, spec: JsonObject) -> JsonObject:
        if self.kind.flat:
            return spec
        return {"spec": spec} if spec else {}

    def of_body(self, body: JsonObject) -> JsonObject:
        """The same part of what somebody applies."""
        if self.subresource:
            return {STATUS: body[STATUS]} if STATUS in body else {}
        given = _object(body, "metadata")
        found = {name: value for name, value in given.items() if name in _METADATA}
        left = ("apiVersion", "kind", "metadata", STATUS)
        rest = {name: value for name, value in body.items() if name not in left}
        return {**({"metadata": found} if found else {}), **rest}

    def whole(self, body: JsonObject, held: Held, value: JsonObject) -> JsonObject:
        """The object whose managed part is `value`, named as in `body`: as a client would send it whole."""
        left = (*_METADATA, "managedFields")
        meta = {name: said for name, said in _object(body, "metadata").items() if name not in left}
        if self.subresource and held is not None:
            value = {**self._spec_on_the_wire(held.spec), **value}
        return {
            **value,
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "metadata": {**meta, **_object(value, "metadata")},
        }

    def managed(self, entries: Sequence[ManagedFields]) -> Managed:
        """Who manages what by these entries; nobody anything when they cannot be read."""
        try:
            return decode(entries, self.api_version)
        except ValueError:
            return Managed()

    def entries(self, managed: Managed) -> list[ManagedFields]:
        """The entries that say who manages what."""
        return encode(managed, self.api_version)


def tracked(kind: Kind, schema: Mapping[str, Any], api_version: str) -> dict[str, Tracked]:
    """What is tracked of a kind with this schema, by subresource ("" is the resource itself)."""
    shape = shape_from(schema)
    fields = {name: inner for name, inner in shape.fields.items() if name != STATUS}
    status = Shape(fields={STATUS: shape.of(STATUS)})
    return {
        "": Tracked(kind, Shape(fields=fields), api_version),
        STATUS: Tracked(kind, status, api_version, STATUS),
    }


@dataclass(frozen=True)
class Updating:
    """Records a create, replace or patch by the manager `name`.

    Entries that the writer sent are the base, and an empty one alone clears them all; entries that cannot be
    read, or none, leave those that are held. What was never tracked is not tracked from now on either, until
    somebody applies.
    """

    tracked: Tracked
    name: str

    def __call__(self, held: Held, wanted: Resource, after: Resource, now: str) -> list[ManagedFields]:
        """The entries of `after`, which was made of `wanted`, at the time `now`."""
        base = self._base(held, wanted.metadata.managed_fields)
        if held is not None and not base.fields:
            return []
        # The finalizers that a kind puts on by itself are nobody's.
        seen = after.with_metadata(finalizers=wanted.metadata.finalizers)
        api_version, subresource = self.tracked.api_version, self.tracked.subresource
        manager = Manager(self.name or _UNKNOWN_MANAGER, UPDATE, api_version, subresource)
        before, later = self.tracked.of(held), self.tracked.of(seen)
        fields, changed = update(self.tracked.shape, before, later, base.fields, manager)
        times = {**base.times, manager: now} if changed else base.times
        return self.tracked.entries(capped(Managed(fields, times), api_version))

    def _base(self, held: Held, sent: list[ManagedFields]) -> Managed:
        of_held = held.metadata.managed_fields if held is not None else []
        if not self.tracked.subresource:
            if sent == [CLEARED]:
                return Managed()
            base = self.tracked.managed(sent)
            if base.fields:
                return base
        return self.tracked.managed(of_held)


class Applying:
    """Server-side apply of `body` by the manager `name`."""

    def __init__(self, tracked: Tracked, body: JsonObject, name: str, *, force: bool) -> None:
        self._tracked = tracked
        self._body = body
        self._applied = tracked.of_body(body)
        self._manager = Manager(name, APPLY, "", tracked.subresource)
        self._force = force

    def merged(self, held: Held) -> tuple[JsonObject, list[ManagedFields]]:
        """The object as it shall be, as a client would send it whole, and its entries; those that are to have
        the time of the write have none.

        Raises `FieldConflictError` when others manage what would change, unless by `force`.
        """
        live = self._tracked.of(held)
        base = self._tracked.managed(held.metadata.managed_fields if held is not None else [])
        value, managers = self._apply(live, base.fields or self._before_first_apply(live))
        same = managers.get(self._manager) == base.fields.get(self._manager)
        times = {other: time for other, time in base.times.items() if same or other != self._manager}
        entries = self._tracked.entries(Managed(managers, times))
        return self._tracked.whole(self._body, held, self._with_last_applied(value)), entries

    def _before_first_apply(self, live: JsonObject) -> Managers:
        """What was never tracked belongs, as it is, to one who stands for all that were before."""
        tracked = self._tracked
        manager = Manager(_BEFORE_FIRST_APPLY, UPDATE, tracked.api_version, tracked.subresource)
        return update(tracked.shape, {}, live, {}, manager).managers

    def _apply(self, live: JsonObject, managers: Managers) -> tuple[Any, Managers]:
        shape, force = self._tracked.shape, self._force
        try:
            return apply(shape, live, managers, self._applied, self._manager, force=force)
        except FieldConflictError as error:
            # What kubectl applied by itself before it did so here is its own, as long as nobody changed it.
            own = self._applied_by_the_client(live)
            others = [conflict for conflict in error.conflicts if conflict.path not in own]
            if others:
                raise FieldConflictError(others) from None
        return apply(shape, live, managers, self._applied, self._manager, force=True)

    def _applied_by_the_client(self, live: JsonObject) -> FieldSet:
        text = _object(_object(live, "metadata"), "annotations").get(LAST_APPLIED, "")
        if self._manager.name != KUBECTL or not text:
            return frozenset()
        try:
            body = msgspec.json.decode(text, type=dict[str, Any])
        except UNREADABLE:
            return frozenset()
        if body.get("apiVersion") != self._tracked.kind.api_version:
            return frozenset()
        last, shape = self._tracked.of_body(body), self._tracked.shape
        return fields_of(shape, last).difference(*difference(shape, last, live))

    def _with_last_applied(self, value: JsonObject) -> JsonObject:
        """The record that kubectl keeps of what it applied follows, so that it may apply by itself again."""
        metadata = _object(value, "metadata")
        annotations = _object(metadata, "annotations")
        if self._manager.name != KUBECTL or not annotations.get(LAST_APPLIED):
            return value
        said = _object(self._body, "metadata")
        own = {name: text for name, text in _object(said, "annotations").items() if name != LAST_APPLIED}
        text = to_json({**self._body, "metadata": {**said, "annotations": own}}).decode() + "\n"
        return {**value, "metadata": {**metadata, "annotations": {**annotations, LAST_APPLIED: text}}}

    def __call__(self, held: Held, wanted: Resource, after: Resource, now: str) -> list[ManagedFields]:
        """The entries of `after`, which was made of `wanted`, at the time `now`."""
        changed = any(difference(self._tracked.shape, self._tracked.of(held), self._tracked.of(after)))
        return [
            msgspec.structs.replace(entry, time=now)
            if not entry.time or (changed and self._is_own(entry))
            else entry
            for entry in wanted.metadata.managed_fields
        ]

    def _is_own(self, entry: ManagedFields) -> bool:
        name, operation, _, subresource = self._manager
        return (entry.manager, entry.operation, entry.subresource) == (name, operation, subresource)


def _object(value: JsonObject, name: str) -> JsonObject:
    """The object in a field; an empty one when there is none."""
    inner: Any = value.get(name)
    return cast("JsonObject", inner) if isinstance(inner, dict) else {}
