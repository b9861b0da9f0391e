"""Follows topics of the region's log into a gateway's tables, and notices when a topic was made anew.

`tables.keeper` trusts that an offset means today what it meant yesterday. A gateway outlives its region's
log: when that was lost and began anew, the offsets it held would skip what the new log holds below them, a
revocation perhaps, and it would still report the position behind it. So a table remembers which topic it
read, in a row of its own, and reads a topic made anew from its start. Reading twice changes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import prometheus_client

from transom.logs.protocol import Entry, Log, TopicPartition
from transom.model.errors import InvalidError, OutOfRangeError, UnknownTopicError, UnreachableError
from transom.model.records import Record
from transom.model.version import Version
from transom.region.contexts.door import TOPIC_MARKS
from transom.runtime.telemetry import get_logger, metrics
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_WAIT_SECONDS = 30.0
_BATCH = 1000
_BATCH_MAX = 8000
"""In a hurry it takes more at once: a large table is filled twice as fast."""
_BREATH = 50
"""So many records are checked in one go: requests are served in between."""
_ORIGIN = "gateway"

_read = prometheus_client.Counter(
    "transom_gateway_log_entries_total", "Entries of the region's log read", ["topic"], registry=metrics
)

Read = Callable[[Entry], Record | None]
"""The record in an entry; None for what is of no use here. Raises `InvalidError` for what is refused."""


def _never() -> bool:
    return False


async def follow(
    table: Table, log: Log, topics: Sequence[str], read: Read, *, hurry: Callable[[], bool] = _never
) -> None:
    """Apply to `table` what `topics` hold and what comes, for ever.

    While `hurry` says so, as much as there is goes at once; otherwise little enough that what comes next, a
    revocation perhaps, need not wait for it.
    Raises what the log and the table raise, and `UnreachableError` when a topic was made anew meanwhile; it
    can be run again then.
    """
    ids = await _topic_ids(log, topics)
    positions = await _start(table, log, ids)
    unmarked = {
        topic: topic_id for topic, topic_id in ids.items() if not await _is_known(table, topic, topic_id)
    }
    while True:
        await _mark_passed(table, unmarked, positions)
        try:
            most = _BATCH_MAX if hurry() else _BATCH
            entries = await log.read(positions, most=most, wait_seconds=_WAIT_SECONDS)
        except OutOfRangeError as gap:
            # Below a compacted topic's start nothing stands that was not superseded above it.
            log_event.warning("records are gone", topic=gap.topic, asked=gap.offset, start=gap.start)
            positions[TopicPartition(gap.topic, gap.partition)] = gap.start
            continue
        if await _topic_ids(log, topics) != ids:
            raise UnreachableError("the region's log was made anew: it is read from its start")
        if entries:
            await _apply(table, entries, positions, read)


async def _apply(
    table: Table, entries: Sequence[Entry], positions: dict[TopicPartition, int], read: Read
) -> None:
    records: list[Record] = []
    moved: dict[TopicPartition, int] = {}
    for number, entry in enumerate(entries, start=1):
        moved[entry.position] = entry.offset + 1
        try:
            record = read(entry)
        except InvalidError as error:
            log_event.debug("record refused", error=str(error))
            record = None
        if record is not None:
            records.append(record)
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    await table.apply(records, moved)
    positions.update(moved)
    for topic, count in Counter(entry.topic for entry in entries).items():
        _read.labels(topic).inc(count)


async def _topic_ids(log: Log, topics: Sequence[str]) -> dict[str, str]:
    there = await log.topics()
    missing = [topic for topic in topics if topic not in there]
    if missing:
        raise UnknownTopicError(missing[0])
    return {topic: there[topic].topic_id for topic in topics}


async def _start(table: Table, log: Log, ids: Mapping[str, str]) -> dict[TopicPartition, int]:
    """Where to read on: after what the table holds of the very same topic, else from the topic's start."""
    held = await table.positions()
    positions: dict[TopicPartition, int] = {}
    for topic, topic_id in ids.items():
        same = await _is_known(table, topic, topic_id)
        for partition, bounds in (await log.bounds(topic)).items():
            at = TopicPartition(topic, partition)
            positions[at] = max(held.get(at, 0), bounds.start) if same else bounds.start
    return positions


async def _mark_passed(
    table: Table, unmarked: dict[str, str], positions: Mapping[TopicPartition, int]
) -> None:
    """Remember which topic was read, once that has come as far as the table says it has.

    A table's positions never go back, so until then those it holds are of the topic before.
    """
    if not unmarked:
        return
    held = await table.positions()
    for topic, topic_id in list(unmarked.items()):
        if all(offset >= held.get(at, 0) for at, offset in positions.items() if at.topic == topic):
            before = await table.get(_mark(topic))
            counter = before.version.counter + 1 if before else 1
            await table.apply([Record(_mark(topic), Version(0, counter, _ORIGIN), topic_id.encode())], {})
            del unmarked[topic]


async def _is_known(table: Table, topic: str, topic_id: str) -> bool:
    mark = await table.get(_mark(topic))
    return mark is not None and mark.value == topic_id.encode()


def _mark(topic: str) -> str:
    return f"{TOPIC_MARKS}{topic}"
