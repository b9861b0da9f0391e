"""Follows topics of a log into a table, for as long as it runs.

Restarting it, rewinding it or feeding it twice changes nothing: the table takes only what is newer. A record
that cannot be read, or that the door refuses (`read`), is left out alone, said and counted; the table keeps
the last good one (invariant 9).
"""

import asyncio
from collections.abc import Callable, Sequence

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
_BATCH_MAX = 8000
"""While it is far behind it takes more at once: a large table is filled twice as fast."""
_BREATH = 200
"""How many records are read before others in this process have their turn: about 2 ms."""

_refused = Counter(
    "transom_table_refused_records_total", "Records that could not be read", ["topic"], registry=metrics
)


Read = Callable[[Entry], Record]
"""The record that an entry carries. Raises `InvalidError` when it is to be left out."""
Refused = Callable[[Entry, str], None]
"""Hears of each entry that was left out, and why."""


async def keep(
    table: Table,
    log: Log,
    topics: Sequence[str],
    *,
    read: Read = from_entry,
    refused: Refused | None = None,
) -> None:
    """Apply every record of `topics` to `table`, from where it stands, and then as they come.

    `read` is the door each entry passes, `refused` hears of those that did not. Raises what the log and the
    table raise; `OutOfRangeError` is not an error here: what was removed below a compacted topic's start was
    superseded above it, so it goes on from the start.
    """
    positions = await start_positions(table, log, topics)
    most = _BATCH
    while True:
        try:
            entries = await log.read(positions, most=most, wait_seconds=_WAIT_SECONDS)
        except OutOfRangeError as gap:
            log_event.warning(
                "records are gone", topic=gap.topic, asked=gap.offset, start=gap.start, end=gap.end
            )
            positions[TopicPartition(gap.topic, gap.partition)] = gap.start
            continue
        await apply_entries(table, entries, positions, read=read, refused=refused)
        most = min(2 * most, _BATCH_MAX) if len(entries) == most else _BATCH


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
    table: Table,
    entries: Sequence[Entry],
    positions: dict[TopicPartition, int],
    *,
    read: Read = from_entry,
    refused: Refused | None = None,
) -> Sequence[Record]:
    """Apply `entries` and move `positions` past them, in the table and in the argument; see `keep`."""
    if not entries:
        return ()
    records: list[Record] = []
    moved: dict[TopicPartition, int] = {}
    for number, entry in enumerate(entries):
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        moved[entry.position] = entry.offset + 1
        try:
            records.append(read(entry))
        except InvalidError as error:
            _refused.labels(entry.topic).inc()
            log_event.warning("record refused", error=str(error))
            if refused is not None:
                refused(entry, str(error))
    changed = await table.apply(records, moved)
    positions.update(moved)
    return changed
