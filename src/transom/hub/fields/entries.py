"""metadata.managedFields: the sets of an object's managers as the object carries them, and their times.

A list of one entry for each manager, in Kubernetes' order. Of those who updated, no more than ten are told
apart; the oldest others share one entry, "ancient-changes".
Next on the data's way: `tracking`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from transom.hub.fields.managers import APPLY, UPDATE, Manager
from transom.hub.fields.sets import FieldSet, from_fields_v1, to_fields_v1
from transom.model.resources import ManagedFields

UPDATERS_MAX: Final = 10
_ANCIENT: Final = "ancient-changes"
_FIELDS_TYPE: Final = "FieldsV1"


@dataclass(frozen=True)
class Managed:
    """Who manages which fields, and since when (RFC 3339; a manager without a time is possible)."""

    fields: Mapping[Manager, FieldSet] = field(default_factory=dict[Manager, FieldSet])
    times: Mapping[Manager, str] = field(default_factory=dict[Manager, str])


def decode(entries: Sequence[ManagedFields], api_version: str) -> Managed:
    """What the entries say; those of another version of the kind say nothing any more.

    Raises `ValueError` for entries that no API server wrote.
    """
    fields: dict[Manager, FieldSet] = {}
    times: dict[Manager, str] = {}
    for entry in entries:
        if entry.operation not in (APPLY, UPDATE):
            raise ValueError("managedFields: operation must be `Apply` or `Update`")
        if not entry.api_version:
            raise ValueError("managedFields: apiVersion must not be empty")
        if entry.fields_type != _FIELDS_TYPE:
            raise ValueError(f"managedFields: fieldsType must be {_FIELDS_TYPE!r}, not {entry.fields_type!r}")
        found = from_fields_v1(entry.fields_v1)
        if entry.api_version != api_version:
            continue
        version = "" if entry.operation == APPLY else api_version
        manager = Manager(entry.manager, entry.operation, version, entry.subresource)
        fields[manager] = found
        times[manager] = entry.time
    return Managed(fields, times)


def encode(managed: Managed, api_version: str) -> list[ManagedFields]:
    """The entries that say it."""
    entries = [
        ManagedFields(
            manager=manager.name,
            operation=manager.operation,
            api_version=api_version,
            time=managed.times.get(manager, ""),
            fields_type=_FIELDS_TYPE,
            fields_v1=to_fields_v1(fields),
            subresource=manager.subresource,
        )
        for manager, fields in managed.fields.items()
    ]
    return sorted(entries, key=_order)


def _order(entry: ManagedFields) -> tuple[str, ...]:
    return entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource


def capped(managed: Managed, api_version: str) -> Managed:
    """The same with no more than `UPDATERS_MAX` who updated: the oldest are put together."""
    updaters = [manager for manager in managed.fields if manager.operation == UPDATE]
    if len(updaters) <= UPDATERS_MAX:
        return managed
    updaters.sort(key=lambda manager: (managed.times.get(manager, ""), manager))
    oldest = updaters[: len(updaters) - UPDATERS_MAX + 1]
    ancient = Manager(_ANCIENT, UPDATE, api_version)
    fields = {manager: found for manager, found in managed.fields.items() if manager not in oldest}
    fields[ancient] = fields.get(ancient, frozenset()).union(*(managed.fields[old] for old in oldest))
    times = {**managed.times, ancient: managed.times.get(oldest[-1], "")}
    return Managed(fields, {manager: times[manager] for manager in fields if manager in times})
