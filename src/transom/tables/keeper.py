"""Follows topics of a log into a table, for as long as it runs.

Restarting it, rewinding it or feeding it twice changes nothing: the table takes only what is newer. A record
that cannot be read is left out alone, said and counted; the table keeps the last good one (invariant 9).
"""

from collections.abc import Sequence

from prometheus_client import Counter

from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.records import from_entry
from transom.model.errors import InvalidError, OutOfRangeError
from transom.model.records import Record
from transom.runtime.telemetry import get_logger, metrics
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_WAIT_SECONDS = 30.0
_BATCH = 2000

_refused = Counter(
    "transom_table_refused_records_total", "Records that could not be read", ["topic"], registry=metrics
)


async def keep(table: Table, log: Log, topics: Sequence[str]) -> None:
    """Apply every record of `topics` to `table`, from where it stands, and then as they come.

    Raises what the log and the table raise; `OutOfRangeError` is not an error here: what was removed below
    a compacted topic's start was superseded above it, so it goes on from the start.
    """
    positions = await start_positions(table, log, topics)
    while True:
        try:
            entries = await log.read(positions, most=_BATCH, wait_seconds=_WAIT_SECONDS)
        except OutOfRangeError as gap:
            log_event.warning(
                "records are gone", topic=gap.topic, asked=gap.offset, start=gap.start, end=gap.end
            )
            positions[TopicPartition(gap.topic, gap.partition)] = gap.start
            continue
        await apply_entries(table, entries, positions)


async def start_positions(table: Table, log: Log, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """Where to read on in each partition of `topics`: after what `table` holds, never below what is left."""
    held = await table.positions()
    positions: dict[TopicPartition, int] = {}
    for topic in topics:
        for partition, bounds in (await log.bounds(topic)).items():
            at = TopicPartition(topic, partition)
            positions[at] = max(held.get(at, 0), bounds.start)
    return positions


async def apply_entries(
    table: Table, entries: Sequence[Entry], positions: dict[TopicPartition, int]
) -> Sequence[Record]:
    """Apply `entries` and move `positions` past them, in the table and in the argument."""
    if not entries:
        return ()
    records: list[Record] = []
    moved: dict[TopicPartition, int] = {}
    for entry in entries:
        moved[entry.position] = entry.offset + 1
        try:
            records.append(from_entry(entry))
        except InvalidError as error:
            _refused.labels(entry.topic).inc()
            log_event.warning("record refused", error=str(error))
    changed = await table.apply(records, moved)
    positions.update(moved)
    return changed
