"""Follows topics of a log into a table, for as long as it runs.

Restarting it, rewinding it or feeding it twice changes nothing: the table takes only what is newer. A record
that cannot be read, or that the door refuses (`read`), is left out alone, said and counted; the table keeps
the last good one (invariant 9).

A table may outlive the log that feeds it. When that was lost and began anew, the offsets held would skip what
the new log holds below them, a revocation perhaps. So a table remembers which topic it read, in a row of its
own, and a topic made anew is read from its start. So is one that was put back to an earlier copy and has
grown past the offsets held: then what stands just below them is newer than what the table has.
"""

import asyncio
from collections import Counter as Counted
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter

from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.records import from_entry
from transom.model.errors import InvalidError, OutOfRangeError, UnknownTopicError, UnreachableError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.telemetry import get_logger, is_told, metrics
from transom.tables.digests import MARK
from transom.tables.protocol import Table

log_event = get_logger(__name__)

OWN_MARKS = f"{MARK}here/"
"""Keys of what whoever keeps a table remembers in it; no log brings any."""
TOPIC_MARKS = f"{OWN_MARKS}topic/"
"""Key of the row that says which incarnation of a topic was read."""

_WAIT_SECONDS = 30.0
_BATCH = 1000
_BATCH_MAX = 8000
"""In a hurry it takes more at once: a large table is filled twice as fast."""
_BREATH = 50
"""So many records are checked in one go: requests are served in between."""
_LOOK_BACK = 100
"""So many offsets are looked at again before reading on."""
_ORIGIN = "here"

_refused = Counter(
    "transom_table_refused_records_total", "Records that were left out", ["topic"], registry=metrics
)
_taken = Counter("transom_table_entries_total", "Entries of the log read", ["topic"], registry=metrics)

Read = Callable[[Entry], Record | None]
"""The record in an entry; None for what is of no use here. Raises `InvalidError` for what is refused."""


def _never() -> bool:
    return False


def _nobody(behind: bool) -> None:  # noqa: FBT001  # what else could it be
    del behind


async def keep(
    table: Table,
    log: Log,
    topics: Sequence[str],
    read: Read = from_entry,
    *,
    hurry: Callable[[], bool] = _never,
    tell: Callable[[bool], None] = _nobody,
) -> None:
    """Apply to `table` what `topics` hold and what comes, for ever.

    `read` is the door that each entry passes. While `hurry` says so, as much as there is goes at once;
    otherwise little enough that what comes next, a revocation perhaps, need not wait for it. `tell` hears
    whether the table is behind what the topics held when this began.
    Raises what the log and the table raise, and `UnreachableError` when a topic was made anew meanwhile; it
    can be run again then.
    """
    ids = await _topic_ids(log, topics)
    await _forget_what_was_put_back(table, log, ids)
    positions = await _start(table, log, ids)
    ends = {
        TopicPartition(topic, partition): bounds.end
        for topic in topics
        for partition, bounds in (await log.bounds(topic)).items()
    }
    tell(_is_behind(positions, ends))
    unmarked = {
        topic: topic_id for topic, topic_id in ids.items() if not await _is_known(table, topic, topic_id)
    }
    refused: Counted[str] = Counted()
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
        # Before anything is taken in: a canary would claim for the new topic what was read of the old one.
        if await _topic_ids(log, topics) != ids:
            raise UnreachableError("a topic was made anew: it is read from its start")
        if entries:
            await _apply(table, entries, positions, read, refused)
            tell(_is_behind(positions, ends))


async def _apply(
    table: Table,
    entries: Sequence[Entry],
    positions: dict[TopicPartition, int],
    read: Read,
    refused: Counted[str],
) -> None:
    records: list[Record] = []
    moved = {entry.position: entry.offset + 1 for entry in entries}
    for number, entry in enumerate(entries, start=1):
        try:
            record = read(entry)
        except InvalidError as error:
            _refused.labels(entry.topic).inc()
            refused[entry.topic] += 1
            if is_told(refused[entry.topic]):
                log_event.warning("record refused", error=str(error), count=refused[entry.topic])
            record = None
        if record is not None:
            records.append(record)
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    await table.apply(records, moved)
    positions.update(moved)
    for topic in {at.topic for at in moved}:
        _taken.labels(topic).inc(sum(entry.topic == topic for entry in entries))


async def start_positions(table: Table, log: Log, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """Where to read on in each partition of `topics`: after what `table` holds, never below what is left."""
    held = await table.positions()
    positions: dict[TopicPartition, int] = {}
    for topic in topics:
        for partition, bounds in (await log.bounds(topic)).items():
            at = TopicPartition(topic, partition)
            positions[at] = max(held.get(at, 0), bounds.start)
    return positions


async def _topic_ids(log: Log, topics: Sequence[str]) -> dict[str, str]:
    there = await log.topics(topics)
    missing = [topic for topic in topics if topic not in there]
    if missing:
        raise UnknownTopicError(missing[0])
    return {topic: there[topic].topic_id for topic in topics}


async def _start(table: Table, log: Log, ids: Mapping[str, str]) -> dict[TopicPartition, int]:
    """Where to read on: after what the table holds of the very same topic, else from the topic's start."""
    same = [topic for topic, topic_id in ids.items() if await _is_known(table, topic, topic_id)]
    positions = await start_positions(table, log, same)
    for topic in ids.keys() - set(same):
        for partition, bounds in (await log.bounds(topic)).items():
            positions[TopicPartition(topic, partition)] = bounds.start
    return positions


async def _forget_what_was_put_back(table: Table, log: Log, ids: Mapping[str, str]) -> None:
    """Forget having read a topic of which the table skips something."""
    for topic, topic_id in ids.items():
        if await _is_known(table, topic, topic_id) and await _skips(table, log, topic):
            log_event.warning("a topic was put back to an earlier copy: it is read anew", topic=topic)
            await _remember(table, topic, b"")


async def _skips(table: Table, log: Log, topic: str) -> bool:
    """Whether something newer than the table has stands just below where it would read on.

    What was sent again since the topic was put back stands in the order of its versions: if any of it is
    below that place, so is what stands last there. Compaction may have taken that away meanwhile, when the
    table was away for long; then the next sweep finds out.
    """
    held = await table.positions()
    for partition, bounds in (await log.bounds(topic)).items():
        at = TopicPartition(topic, partition)
        position = held.get(at, 0)
        if position > bounds.end:
            return True
        since = max(bounds.start, position - _LOOK_BACK)
        entries = await log.read({at: since}, most=_LOOK_BACK) if since < position else ()
        for entry in entries:
            if entry.offset < position and await _is_newer(table, entry):
                return True
    return False


async def _is_newer(table: Table, entry: Entry) -> bool:
    try:
        record = from_entry(entry)
    except InvalidError:
        return False
    held = await table.get(record.key)
    return held is not None and held.version < record.version


def _is_behind(positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> bool:
    return any(positions[at] < end for at, end in ends.items())


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
            await _remember(table, topic, topic_id.encode())
            del unmarked[topic]


async def _remember(table: Table, topic: str, topic_id: bytes) -> None:
    before = await table.get(_mark(topic))
    counter = before.version.counter + 1 if before else 1
    await table.apply([Record(_mark(topic), Version(0, counter, _ORIGIN), topic_id)], {})


async def _is_known(table: Table, topic: str, topic_id: str) -> bool:
    mark = await table.get(_mark(topic))
    return mark is not None and mark.value == topic_id.encode()


def _mark(topic: str) -> str:
    return f"{TOPIC_MARKS}{topic}"
