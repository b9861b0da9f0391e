"""A gateway's table of contexts, and how far its knowledge reaches.

The order that everything rests on: a batch is on disk, then the caches are told, and only then does the
position move that the gateway reports. So whoever reads a position at or beyond a revocation finds every
later request refused, for keys in a cache, on disk, or being looked up at that moment.

Before it `door`, behind it the caches of `region.gateway.decider`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from prometheus_client import Counter

from transom.logs.protocol import TopicPartition
from transom.model.errors import InvalidError, VersionClashError
from transom.model.records import Record
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, CONTEXTS_BULK, Canary
from transom.model.version import Version
from transom.region.contexts.door import Door, read_canary
from transom.region.forwarding import ForwardingTable
from transom.runtime.clock import Clock
from transom.runtime.signals import Level
from transom.runtime.tasks import to_its_end
from transom.runtime.telemetry import get_logger, metrics
from transom.tables.keeper import OWN_MARKS, TOPIC_MARKS
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_applied = Counter("transom_context_records_total", "Contexts that a gateway applied", registry=metrics)

_TOLD_AT_ONCE = 100
_DOUBTS = f"{OWN_MARKS}doubts"
_CANARIES = frozenset((CANARY_FAST, CANARY_BULK))

Listener = Callable[[Sequence[Record]], None]
"""Is told of records once they are on disk; must not raise."""


class Knowledge(NamedTuple):
    """How far a table's contexts reach: those of the newest canaries of both lanes, `epoch` theirs.

    A lane whose canary is of an earlier epoch counts from 0. `canary_time` (seconds since 1970) is when the
    hub said it, `heard_at` (monotonic) when it was heard here.
    """

    epoch: int = 0
    revision: int = 0
    bulk_revision: int = 0
    complete: bool = False
    canary_time: float | None = None
    heard_at: float = 0.0

    def age_seconds(self, clock: Clock) -> float | None:
        """How old it is at most, by what the clocks say; None: the hub was never heard.

        A wall clock that was set back, or a hub whose clock is ahead, does not make it younger than the time
        since it was heard.
        """
        if self.canary_time is None:
            return None
        return max(clock.wall() - self.canary_time, clock.monotonic() - self.heard_at, 0.0)


class _Heard(NamedTuple):
    """The newest canary of a lane."""

    epoch: int
    canary: Canary
    record: Record


class ContextTable(ForwardingTable):
    """A table that tells listeners what was applied and then moves `knows`. Made by `open`.

    `moved` rises when `knows` reaches further than before. `rows_max` bounds how many keys are taken in;
    those that are there go on being changed.
    """

    def __init__(self, inner: Table, door: Door, clock: Clock, rows_max: int) -> None:
        super().__init__(inner)
        self.knows = Knowledge()
        self.moved = Level()
        self._door = door
        self._clock = clock
        self._rows_max = rows_max
        self._listeners: list[Listener] = []
        self._lanes: dict[str, _Heard] = {}
        self._doubts_writing = self._doubts_written = 0
        self._doubts_count = 0
        self._to_read_again: set[str] = set()
        self._behind = False
        self._settled: int | None = None
        """The epoch in which all was there last and nothing in doubt; None: there is nothing yet."""

    @classmethod
    async def open(cls, inner: Table, door: Door, clock: Clock, rows_max: int) -> "ContextTable":
        """The table `inner` with what it knows already. Raises what `inner` raises."""
        table = cls(inner, door, clock, rows_max)
        await table._recall()
        held = [await inner.get(key) for key in (CANARY_FAST, CANARY_BULK)]
        table._hear([record for record in held if record is not None])
        if table._lanes and table._settled is None:
            table._settled = 0
        return table

    def listen(self, listener: Listener) -> None:
        """Have `listener` told of everything applied from now on."""
        self._listeners.append(listener)

    def set_behind(self, behind: bool) -> None:  # noqa: FBT001  # what else could it be
        """Whether the log is known to hold what was not read yet.

        A gateway that starts on a log with a past meets a canary in it that says "verified" long before it
        has read the keys that were made since: what is missing so long is unknown, not absent (invariant 10).
        """
        if behind != self._behind:
            self._behind = behind
            self._hear([])

    async def get(self, key: str) -> Record | None:
        """See `Table.get`; a topic that is to be read again is none that is known."""
        record = await self.inner.get(key)
        if record is not None and key in self._to_read_again:
            return msgspec.structs.replace(record, value=b"")
        return record

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`; what clashes with a row of the same version is refused alone.

        Cancelling waits for the end: what is on disk is told.
        """
        return await to_its_end(self._apply(records, positions))

    async def _apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        admitted = await self._without_undoing(await self._admitted(records))
        try:
            changed = await self.inner.apply([*admitted, *self._doubts_now()], positions)
        except VersionClashError:
            admitted = await self._without_clashes(admitted)
            changed = await self.inner.apply([*admitted, *self._doubts_now()], positions)
        self._noted(records)
        # All are told of, not only those that changed a row: after a commit whose success was not heard, the
        # second attempt changes nothing. Whoever holds something newer takes no notice.
        for at in range(0, len(admitted), _TOLD_AT_ONCE):
            for listener in self._listeners:
                listener(admitted[at : at + _TOLD_AT_ONCE])
            await asyncio.sleep(0)  # requests are served in between
        self._hear(admitted)
        _applied.inc(len(changed))
        return changed

    # --- what is in doubt ---

    async def _recall(self) -> None:
        """Know again what was in doubt; then all topics are to be read again."""
        held = await self.inner.get(_DOUBTS)
        if held is None:
            return
        self._doubts_count = held.version.counter
        self._door.doubted.recall(held.value)
        if self._door.doubted:
            self._to_read_again = {f"{TOPIC_MARKS}{topic}" for topic in (CONTEXTS, CONTEXTS_BULK)}

    def _doubts_now(self) -> list[Record]:
        """The row of what is in doubt, when it is another than the one held."""
        doubted = self._door.doubted
        if doubted.changes == self._doubts_written:
            return []
        self._doubts_writing = doubted.changes
        self._doubts_count += 1  # also after an attempt that failed: it may have been done all the same
        return [Record(_DOUBTS, Version(0, self._doubts_count, "gateway"), doubted.written())]

    def _noted(self, records: Sequence[Record]) -> None:
        """The row of what is in doubt is on disk; and `records`, perhaps that a topic was read again."""
        self._doubts_written = self._doubts_writing
        if self._to_read_again:
            self._to_read_again.difference_update(record.key for record in records)
            if not self._to_read_again:
                self._door.doubted.read_again()

    # --- what is taken in ---

    async def _admitted(self, records: Sequence[Record]) -> Sequence[Record]:
        """`records` without those that would be new beyond `rows_max`."""
        held = await self.count()
        if held + len(records) <= self._rows_max:
            return records
        admitted: list[Record] = []
        added: set[str] = set()
        for record in records:
            is_new = not (record.deleted or record.key.startswith("~") or record.key in added)
            if is_new and await _is_missing(self.inner, record.key):
                if held + len(added) >= self._rows_max:
                    self._door.refuse(record.key, f"the table is full: it takes {self._rows_max} rows")
                    continue
                added.add(record.key)
            admitted.append(record)
        return admitted

    async def _without_undoing(self, records: Sequence[Record]) -> Sequence[Record]:
        """`records` without those that would give back what was taken away in an earlier epoch.

        Looked at only while a new epoch arrives, and while something is in doubt: what was refused is sent
        again by every sweep.
        """
        settled = self._settled
        if settled is None or all(record.version.epoch <= settled for record in records):
            return records
        admitted: list[Record] = []
        before: dict[str, Record] = {}
        for record in records:
            held = before.get(record.key) or await self.inner.get(record.key)
            is_newer = held is None or held.version < record.version
            if is_newer and self._door.undoes(record, held):
                why = (
                    "was taken away, and the hub's store, which was restored, forgot it: revoke, suspend or "
                    "delete it there again; what is to be given back can be given back after that"
                )
                self._door.refuse(record.key, why)
            else:
                admitted.append(record)
                if is_newer:
                    before[record.key] = record
        return admitted

    async def _without_clashes(self, records: Sequence[Record]) -> Sequence[Record]:
        """`records` without those that are another value at the version of a row, or of one before them."""
        kept: dict[str, Record] = {}
        admitted: list[Record] = []
        for record in records:
            held = kept.get(record.key) or await self.inner.get(record.key)
            if held is not None and held.version == record.version and held != record:
                why = f"has two values at version {record.version}: two hubs share one identity; stop one"
                self._door.refuse(record.key, why)
                continue
            if held is None or held.version < record.version:
                kept[record.key] = record
            admitted.append(record)
        return admitted

    def _hear(self, records: Sequence[Record]) -> None:
        before = self.knows
        for record in records:
            if record.key not in _CANARIES or record.deleted:
                continue
            held = self._lanes.get(record.key)
            if held is not None and held.record.version >= record.version:
                continue
            try:
                self._lanes[record.key] = _Heard(record.version.epoch, read_canary(record), record)
            except InvalidError as error:
                log_event.warning("a canary on disk cannot be read", error=str(error))
        self.knows = self._summed(before)
        if self.knows.complete and not self._door.doubted:
            self._settled = self.knows.epoch
        if self.knows[:4] != before[:4]:
            self.moved.rise()

    def _summed(self, before: Knowledge) -> Knowledge:
        if not self._lanes:
            return before
        epoch = max(heard.epoch for heard in self._lanes.values())
        current = {key: heard.canary for key, heard in self._lanes.items() if heard.epoch == epoch}
        fast, bulk = current.get(CANARY_FAST), current.get(CANARY_BULK)
        # Of a log made anew, the fast lane says nothing about what only the fill brings again.
        covered = fast is not None and (bulk.revision if bulk else 0) >= fast.since
        revision = before.revision if before.epoch == epoch else 0
        if fast is not None and covered:
            revision = fast.revision
        heard = self._lanes.get(CANARY_FAST)
        time = heard.canary.time if heard else None
        return Knowledge(
            epoch,
            revision,
            bulk.revision if bulk else 0,
            covered and bulk is not None and bulk.verified and not self._behind,
            time,
            before.heard_at if time == before.canary_time else self._clock.monotonic(),
        )


async def _is_missing(table: Table, key: str) -> bool:
    held = await table.get(key)
    return held is None or held.deleted
