"""Where a partition goes on, from what the target holds, what was kept of it, and what the source still has.

The copy's end, looked up in its map, is the source's next record: nothing else is asked. What the source no
longer has is never passed over in silence: it becomes a gap that is kept and shown, and the partition stops
there unless it is told to go on. Pure. Next on the data's way: `lane`.
"""

import enum
from math import inf
from typing import NamedTuple

import msgspec

from transom.links.kafka.deletes import WHY, Deletes
from transom.links.kafka.epochs import UNKNOWN, Epochs
from transom.links.kafka.lane import Lane, Stopped
from transom.links.kafka.ledger import GAPS_MAX, Gap, Kept, PartitionRecord
from transom.links.kafka.offset_map import OffsetMap
from transom.links.kafka.tail import Tail
from transom.logs.kafka_epochs import EpochEnd
from transom.logs.protocol import TopicPartition

_WRITERS_MAX = 8


class Sight(NamedTuple):
    """What is seen of a partition: its two topics' ids, where the source begins and ends, the copy's tail,
    who writes now, when, how long the source keeps delete markers (infinite: it is not compacted), and where,
    at the source, the newest epoch ended of which anything was read (None: nothing is known of epochs).
    """

    source: TopicPartition
    source_id: str
    start: int
    end: int
    target: TopicPartition
    target_id: str
    tail: Tail
    writer: int
    now: float
    deletes_kept_seconds: float = inf
    epoch_end: EpochEnd | None = None


class Policy(NamedTuple):
    """Whether to go on where the source lost records, and where its topic was made anew."""

    when_lost: bool = False
    when_recreated: bool = False


class Skip(NamedTuple):
    """An order to go on at the source's offset `to`, and its number."""

    id: str
    to: int


class _Kind(enum.Enum):
    STRANGERS = "strangers"
    LOST = "lost"
    RECREATED = "recreated"
    SKIPPED = "skipped"


class _Found(NamedTuple):
    """Something that is wrong, or was ordered."""

    kind: _Kind
    gap: Gap
    goes_on_at: int = 0
    """At the source, where records were lost."""


def resumed(
    sight: Sight, kept: Kept, policy: Policy, skip: Skip | None = None
) -> tuple[Lane, PartitionRecord]:
    """The lane of a partition, and what is to be kept of it before anything goes out."""
    record, held = kept.record, OffsetMap(kept.chunks)
    if record is None or record.target_id != sight.target_id:
        record = PartitionRecord(sight.source_id, sight.target.topic, sight.target_id)
        held.cut(-1)
        position, found = sight.start, _check_new(sight)
    else:
        # Whoever took it last began behind the marks of then, and may have written nothing since.
        end = min(sight.tail.end, max(sight.tail.records_end, record.tail.end))
        held.cut(end)
        position, found = _followed(sight, held, record, end)
    if skip is not None and skip.id != record.skipped:
        found = _Found(_Kind.SKIPPED, Gap(position, skip.to, "was skipped by command", sight.now))
        position, record = skip.to, msgspec.structs.replace(record, skipped=skip.id)
    goes_on = found is None or found.kind is _Kind.SKIPPED or _allowed(found, policy)
    if found is not None and goes_on:
        if found.kind is _Kind.RECREATED:
            position = sight.start  # what stood where the old one ended says nothing about the new one
        if found.kind is _Kind.LOST:
            position = found.goes_on_at
        position = min(max(position, sight.start), sight.end)
        if record.source_id != sight.source_id:
            held.cut(-1)
        held.rewind(position)
        record = msgspec.structs.replace(record, source_id=sight.source_id)
    epochs = Epochs(() if found is not None and goes_on else record.epochs)
    epochs.forget(position)
    record = msgspec.structs.replace(record, epochs=epochs.known)
    lane = Lane(sight.source, sight.target, sight.source_id, held, position, sight.tail.end)
    lane.epochs = epochs
    lane.start, lane.stable, lane.high = sight.start, sight.end, sight.end
    if sight.deletes_kept_seconds < inf:
        lane.deletes = Deletes(sight.deletes_kept_seconds, record.complete_at)
        # A new copy lacks no delete: it has nothing yet that was deleted.
        record = msgspec.structs.replace(record, complete_at=record.complete_at or sight.now)
    if found is not None and not goes_on:
        lane.stopped = Stopped(position, found.gap.why)
    writers = (*(each for each in record.writers if each != sight.writer), sight.writer)
    gaps = record.gaps if found is None else _with(record.gaps, found.gap)
    accepted = found is not None and found.kind is _Kind.SKIPPED  # whoever it was
    return lane, msgspec.structs.replace(
        record,
        writers=writers[-_WRITERS_MAX:],
        gaps=gaps,
        tail=sight.tail._replace(writer=None) if accepted else sight.tail,
    )


def _check_new(sight: Sight) -> _Found | None:
    """A copy that nobody has written to by a map is empty."""
    if sight.tail.writer is None:
        return None
    why = (
        f"{sight.target.topic} holds records that this mirror did not write; give the copy another name, "
        f"or delete that topic"
    )
    return _Found(_Kind.STRANGERS, Gap(sight.start, sight.start, why, sight.now))


def _followed(sight: Sight, held: OffsetMap, record: PartitionRecord, end: int) -> tuple[int, _Found | None]:
    """Where the source goes on behind the copy's `end`, and what is wrong there."""
    position = held.to_source(end)
    if position is None:
        return sight.start, _check_new(sight)
    if sight.tail.writer is not None and sight.tail.writer not in record.writers:
        last = sight.tail.records_end - 1
        why = (
            f"somebody else writes to {sight.target.topic}, at offset {last}; keep them out, and say with "
            f"`transom mirror skip` where to go on"
        )
        return position, _Found(_Kind.STRANGERS, Gap(position, position, why, sight.now))
    if record.source_id != sight.source_id:
        why = f"the source's topic was made anew; the one before was mirrored up to offset {position}"
        return position, _Found(_Kind.RECREATED, Gap(position, position, why, sight.now))
    if position < sight.start:
        why = f"the source has lost offsets {position} to {sight.start - 1}"
        return position, _Found(_Kind.LOST, Gap(position, sight.start, why, sight.now), sight.start)
    if position > sight.end:
        why = f"the source was truncated: it ends at offset {sight.end}, and was mirrored up to {position}"
        return position, _Found(_Kind.LOST, Gap(sight.end, position, why, sight.now), sight.end)
    return position, _diverged(sight, record, position)


def _diverged(sight: Sight, record: PartitionRecord, position: int) -> _Found | None:
    """Whether what stands before `position` at the source is not what was mirrored."""
    if sight.epoch_end is None:
        return None
    if sight.epoch_end.epoch == UNKNOWN:
        why = f"the source knows nothing of the leaders that wrote what was mirrored up to offset {position}"
        return _Found(_Kind.LOST, Gap(position, position, why, sight.now), position)
    agreed = Epochs(record.epochs).agreed(*sight.epoch_end)
    if position <= agreed:
        return None
    why = (
        f"the source was truncated at offset {agreed} and written anew from there; it was mirrored up to "
        f"{position}"
    )
    return _Found(_Kind.LOST, Gap(agreed, position, why, sight.now), agreed)


def _allowed(found: _Found, policy: Policy) -> bool:
    return (found.kind is _Kind.LOST and policy.when_lost) or (
        found.kind is _Kind.RECREATED and policy.when_recreated
    )


def with_deletes(record: PartitionRecord, deletes: Deletes, now: float) -> PartitionRecord:
    """`record` with what `deletes` knows; all that may be missing is one gap."""
    gaps, missing = record.gaps, deletes.noted()
    if missing:
        spans = [missing, *((gap.begin, gap.end) for gap in gaps if gap.why == WHY)]
        gap = Gap(min(begin for begin, _ in spans), max(end for _, end in spans), WHY, now)
        gaps = (*(each for each in gaps if each.why != WHY), gap)[-GAPS_MAX:]
    return msgspec.structs.replace(record, gaps=gaps, complete_at=deletes.complete_at)


def _with(gaps: tuple[Gap, ...], gap: Gap) -> tuple[Gap, ...]:
    """One that was noticed before, and is still there, is not noted again."""
    if any((each.begin, each.end, each.why) == (gap.begin, gap.end, gap.why) for each in gaps):
        return gaps
    return (*gaps, gap)[-GAPS_MAX:]
