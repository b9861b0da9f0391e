"""The archive: what regions report, stored (status of what they were asked for, and what they originate).

Each report carries its version; an older one never replaces a newer (invariant 2). How far the hub's log was
read is stored in the same transaction, so a report counts once, whatever crashes. A status names the uid it
answers for: one about an earlier resource of the same name is left out. Next on the data's way: back to
`controllers`, which fold status upward.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from transom.hub.changes import Actor, Change, Held, Wanted, without_finalizer
from transom.hub.restoring import REPORT_VERSION, has_reported
from transom.hub.store import Store
from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.records import from_entry
from transom.model.errors import (
    UNREADABLE,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    OutOfRangeError,
    Problem,
    VersionClashError,
)
from transom.model.kinds import REGION, Catalog, Kind
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import JsonObject, Metadata, Resource
from transom.model.version import Version
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

_WAIT_SECONDS = 30.0
_BATCH = 1000

_ORIGIN = "transom.dev/region"
"""The label that names the region which brought a resource forth."""


@dataclass
class Archive:
    """Stores the reports of one region, from the hub's mirror of its topic `status`."""

    store: Store
    log: Log
    region: str
    topic: str

    async def run(self) -> None:
        """Store reports for ever. Raises what store and log raise."""
        # Of this incarnation of the topic: one that was lost and mirrored again is read from its start.
        reader = f"archive/{self.region}/{(await self.log.topics([self.topic]))[self.topic].topic_id}"
        held = await self.store.positions_of(reader)
        offsets = {
            TopicPartition(self.topic, number): max(
                bounds.start, held.get(TopicPartition(self.topic, number), 0)
            )
            for number, bounds in (await self.log.bounds(self.topic)).items()
        }
        while True:
            try:
                entries = await self.log.read(offsets, most=_BATCH, wait_seconds=_WAIT_SECONDS)
            except OutOfRangeError as gap:
                # The topic is compacted: what is gone below its start was superseded.
                offsets[TopicPartition(gap.topic, gap.partition)] = gap.start
                continue
            if not entries:
                continue
            changes = [change for entry in entries if (change := self._change(entry)) is not None]
            offsets.update({entry.position: entry.offset + 1 for entry in entries})
            outcomes = await self.store.write_all(changes, reader=reader, offsets=offsets)
            step("archive.stored")
            for change, outcome in zip(changes, outcomes, strict=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, NotFoundError):
                    log_event.warning("report refused", key=str(change.key), error=str(outcome))

    def _change(self, entry: Entry) -> Change | None:
        try:
            return change_for(from_entry(entry), self.region, self.store.catalog)
        except (InvalidError, NotFoundError) as error:
            log_event.warning("report refused", region=self.region, offset=entry.offset, error=str(error))
            return None


def change_for(record: Record, region: str, catalog: Catalog) -> Change:
    """The change that a report asks for. Raises `InvalidError`, `NotFoundError` for a report of no use."""
    name, _, zone = record.key.partition("@")
    key = Key.parse(name)
    kind = catalog[key.kind]
    if kind.status_owner != REGION:
        raise InvalidError(record.key, [Problem("", f"regions do not report on a {kind.name}")])
    actor = Actor(REGION, f"{region}/{zone}" if zone else region)
    status = _status(record)
    if zone:
        return Change(key, zone_reported(kind, record, zone, status, region), actor)
    return Change(key, originated(key, record, status, region), actor, outdated=_older_than(record.version))


def zone_reported(kind: Kind, record: Record, zone: str, status: JsonObject, region: str) -> Wanted:
    """One zone's part of the status of what its region was asked for."""

    def wanted(held: Held) -> Held:
        if held is None or not (record.deleted or held.metadata.uid == status.get("uid")):
            raise NotFoundError(f"{record.key} answers for a resource that is gone")
        _require_own(region, kind.region_of(held) if kind.region_of else "", held)
        zones: dict[str, Any] = dict(held.status.get("zones", {}))
        reported = {**status, REPORT_VERSION: str(record.version)}
        if not _newer(reported, zones.get(zone, {}), record):
            return held
        if record.deleted:
            zones.pop(zone, None)  # the zone has nothing to do with it any more
        else:
            zones[zone] = reported
        heard = {name: status for name, status in zones.items() if has_reported(status)}
        folded = kind.fold_zones(held, heard) if kind.fold_zones else {}
        after = held.with_status({**folded, "zones": zones})
        return without_finalizer(after, REGION) if held.deleting and _all_terminated(held, heard) else after

    return wanted


def originated(key: Key, record: Record, status: JsonObject, region: str) -> Wanted:
    """A resource that the region itself brings forth, such as a running instance."""

    def wanted(held: Held) -> Held:
        reported = {**status, REPORT_VERSION: str(record.version)}
        if held is not None:
            _require_own(region, held.metadata.labels.get(_ORIGIN, ""), held)
        if held is not None and not _newer(reported, held.status, record):
            return held
        if record.deleted:
            return None
        if held is not None:
            return held.with_status(reported)
        meta = Metadata(name=key.name, namespace=key.namespace, labels={_ORIGIN: region})
        return Resource(key.kind, meta, status=reported)

    return wanted


def _require_own(region: str, owner: str, held: Resource) -> None:
    """One writer: a region reports on its own things alone (invariant 6)."""
    if region != owner:
        raise ForbiddenError(f"region {region!r} may not report on {held.key}, which is that of {owner!r}")


def _all_terminated(held: Resource, zones: Mapping[str, Any]) -> bool:
    """Whether nothing of it runs in any zone: each has said so, for what it is now."""
    return all(
        name in zones and zones[name].get("terminated") for name in held.spec.get("zones", {})
    ) and all(status.get("terminated") or not status.get("desired") for status in zones.values())


def _newer(reported: JsonObject, held: Mapping[str, Any], record: Record) -> bool:
    before = held.get(REPORT_VERSION)
    if before is None:
        return True
    known = Version.parse(before)
    clashes = reported != held and has_reported(held) and not record.deleted
    if known == record.version and clashes:
        raise VersionClashError(f"{record.key} was reported twice as {known}, with different values")
    return record.version > known


def _older_than(version: Version) -> Any:
    def outdated(buried: Resource) -> bool:
        known = buried.status.get(REPORT_VERSION)
        return known is not None and version <= Version.parse(known)

    return outdated


def _status(record: Record) -> JsonObject:
    try:
        return msgspec.json.decode(record.value, type=dict[str, Any])
    except UNREADABLE as error:
        raise InvalidError(record.key, [Problem("", f"its value is not a JSON object: {error}")]) from None
