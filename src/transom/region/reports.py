"""What a zone last reported, kept durably, so that only what changed is appended to the `status` topic.

A report is appended to the log first (`agent.reported`) and remembered in the zone's own table after
(`agent.remembered`). Killed in between, the agent reads what it had appended back from its log at start.
Versions: the epoch is the second this table began, the counter rises with every record, and is never used
twice, whatever fails. Next on the data's way: the mirror, which carries `status` to the hub.
"""

from collections.abc import Iterator, Mapping

from transom.logs.protocol import Fence, Log, TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model.errors import InvalidError, OutOfRangeError
from transom.model.records import Record
from transom.model.roads import STATUS
from transom.model.version import Version
from transom.region.planning import Place
from transom.runtime.clock import Clock
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger
from transom.tables.keeper import start_positions
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_BATCH = 1000
_INCARNATION = "incarnation"
_DELETED = b"{}"
_PARTITION = TopicPartition(STATUS, 0)


class Reports:
    """The reports of one zone. Made by `open`."""

    def __init__(self, place: Place, table: Table, log: Log, fence: Fence | None) -> None:
        self._place = place
        self._table = table
        self._log = log
        self._fence = fence
        self._epoch = 0
        self._counter = 0
        self._held: dict[str, bytes] = {}

    @classmethod
    async def open(
        cls, place: Place, table: Table, log: Log, clock: Clock, fence: Fence | None = None
    ) -> "Reports":
        """What `table` remembers, and what the log has beyond that, for whoever has `fence` (None: nobody
        else reports for the zone). Raises what they raise.
        """
        reports = cls(place, table, log, fence)
        fresh = await table.latest() is None
        await reports._catch_up()
        newest = await table.latest()
        reports._counter = newest.version.counter if newest else 0
        reports._epoch = newest.version.epoch if newest else 0
        if fresh:
            reports._epoch = max(int(clock.wall()), reports._epoch + 1)
            begun = Version(reports._epoch, reports._counter, str(place))
            await table.apply([Record(_INCARNATION, begun, _DELETED)], {})
        reports._held = {row.key: row.value for row in await table.scan() if row.key != _INCARNATION}
        return reports

    def __getitem__(self, key: str) -> bytes:
        return self._held[key]

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def differs(self, key: str, value: bytes | None) -> bool:
        """Whether reporting `value` (None: gone) would say anything new."""
        return self._held.get(key) != value

    async def append(self, changed: Mapping[str, bytes | None]) -> None:
        """Report `changed` (None: a delete marker), in batches. Raises what the log and the table raise;
        what was not remembered then is reported again, under newer versions.
        """
        pairs = list(changed.items())
        for at in range(0, len(pairs), _BATCH):
            await self._append(pairs[at : at + _BATCH])

    async def _append(self, pairs: list[tuple[str, bytes | None]]) -> None:
        records = [self._record(key, value) for key, value in pairs]
        messages = [to_message(STATUS, record) for record in records]
        offsets = await self._log.append(messages, fence=self._fence)
        step("agent.reported")
        # Everything of ours below this offset is older: the next start need not read it again.
        await self._table.apply(records, {_PARTITION: offsets[-1] + 1})
        step("agent.remembered")
        for key, value in pairs:
            if value is None:
                self._held.pop(key, None)
            else:
                self._held[key] = value

    def _record(self, key: str, value: bytes | None) -> Record:
        self._counter += 1
        version = Version(self._epoch, self._counter, str(self._place))
        return Record(key, version, _DELETED if value is None else value, deleted=value is None)

    async def _catch_up(self) -> None:
        positions = await start_positions(self._table, self._log, (STATUS,))
        while True:
            try:
                entries = await self._log.read(positions, most=_BATCH)
            except OutOfRangeError as lost:
                # The log was lost and began anew: what it no longer has is reported again, as it was.
                log_event.warning("the log lost reports", zone=str(self._place), error=str(lost))
                await self._repeat()
                positions[TopicPartition(lost.topic, lost.partition)] = lost.start
                continue
            if not entries:
                return
            own: list[Record] = []
            for entry in entries:
                positions[entry.position] = entry.offset + 1
                try:
                    record = from_entry(entry)
                except InvalidError as error:
                    log_event.warning("record refused", error=str(error))
                    continue
                if record.version.origin == str(self._place):
                    own.append(record)
            await self._table.apply(own, positions)

    async def _repeat(self) -> None:
        rows = [row for row in await self._table.scan() if row.key != _INCARNATION]
        for at in range(0, len(rows), _BATCH):
            messages = [to_message(STATUS, row) for row in rows[at : at + _BATCH]]
            await self._log.append(messages, fence=self._fence)
