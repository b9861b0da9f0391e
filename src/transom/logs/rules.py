"""The rules that every log applies before it writes, and the turns partitions take when it reads.

Pure, so that all engines refuse the same things with the same words. Next on the data's way: `memory`,
`sqlite`, `remote`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from transom.logs.partitioner import partition_for
from transom.logs.protocol import SECOND, Entry, Fence, Message, Topic, TopicInfo, TopicPartition
from transom.model.errors import ConflictError, FencedError, InvalidError, OutOfRangeError, Problem

MEBIBYTE = 1 << 20
ENTRY_BYTES_MAX = MEBIBYTE
"""Key, value and headers of one entry together."""
BATCH_BYTES_MAX = 15 * MEBIBYTE
"""One batch, counted with what it takes on the wire, so that it fits into a request of 16 MiB."""
READ_BYTES_MAX = 8 * MEBIBYTE
"""What one read returns, give or take one entry."""

_PARTITIONS_MAX = 10_000
_TIMESTAMP_MS_MAX = 1 << 62
_WIRE_BYTES = 96  # names and lengths of one message's fields
_TOMBSTONE_SECONDS = 86_400
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")  # Kafka's rule: org.apache.kafka.common.internals.Topic


def check_topics(topics: Sequence[Topic]) -> None:
    """Raises `InvalidError` with every mistake in how topics are declared."""
    problems: list[Problem] = []
    names = [topic.name for topic in topics]
    problems.extend(Problem(name, "is named twice") for name in sorted(set(names)) if names.count(name) > 1)
    for topic in topics:
        if not _TOPIC_NAME.fullmatch(topic.name) or topic.name in {".", ".."}:
            problems.append(Problem(repr(topic.name), "must be 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"))
        if not 1 <= topic.partitions <= _PARTITIONS_MAX:
            problems.append(Problem(f"{topic.name}.partitions", f"must be from 1 to {_PARTITIONS_MAX}"))
        if topic.retention_seconds is not None and topic.retention_seconds < 0:
            problems.append(Problem(f"{topic.name}.retention_seconds", "must not be negative"))
    if problems:
        raise InvalidError("topics to create", problems)


def named(topics: Mapping[str, TopicInfo], names: Collection[str] | None) -> dict[str, TopicInfo]:
    """Those of `topics` that are asked for by name; None: all of them."""
    return {name: info for name, info in topics.items() if names is None or name in names}


def check_same(wanted: Topic, held: Topic) -> None:
    """Raises `InvalidError` when `wanted` asks for anything but more partitions of a topic that exists."""
    problems: list[Problem] = []
    if wanted.partitions < held.partitions:
        problems.append(Problem("partitions", f"it has {held.partitions}; they cannot become fewer"))
    if wanted.compact != held.compact:
        problems.append(Problem("compact", f"it was created with {held.compact}"))
    if wanted.retention_seconds != held.retention_seconds:
        problems.append(Problem("retention_seconds", f"it was created with {held.retention_seconds}"))
    if problems:
        raise InvalidError(f"topic {wanted.name!r}", problems)


def payload_bytes(entry: Message | Entry) -> int:
    """How much of an entry counts against `ENTRY_BYTES_MAX`."""
    size = len(entry.key or b"") + len(entry.value or b"")
    for name, value in entry.headers:
        size += (len(name) if name.isascii() else len(name.encode())) + len(value)
    return size


def check_batch(batch: Sequence[Message]) -> None:
    """Raises `InvalidError` naming each message that no log takes, or a batch that is too big."""
    problems: list[Problem] = []
    total = 0
    for at, message in enumerate(batch):
        try:
            size = payload_bytes(message)
        except UnicodeEncodeError:
            problems.append(Problem(f"[{at}].headers", "a name is not text that UTF-8 can carry"))
            continue
        if size > ENTRY_BYTES_MAX:
            problems.append(
                Problem(
                    f"[{at}]", f"for {message.topic} is {size} bytes; an entry is at most {ENTRY_BYTES_MAX}"
                )
            )
        if not 0 <= message.timestamp_ms < _TIMESTAMP_MS_MAX:
            problems.append(Problem(f"[{at}].timestamp_ms", "must be milliseconds since 1970"))
        total += size + len(message.topic) + _WIRE_BYTES + 16 * len(message.headers)
    if not problems and total > BATCH_BYTES_MAX:
        problems.append(Problem("", f"is {total} bytes; append it in parts of at most {BATCH_BYTES_MAX}"))
    if problems:
        raise InvalidError("batch to append", problems)


def partition_of(message: Message, topic: Topic) -> int:
    """The partition `message` goes to. Raises `InvalidError` when there is no such partition, or when a
    compacted topic would get an entry without a key.
    """
    if message.key is None and topic.compact:
        raise InvalidError(
            "batch to append", [Problem("key", f"is missing; topic {topic.name!r} keeps entries by key")]
        )
    if message.partition is None:
        return partition_for(message.key, topic.partitions)
    check_partition(topic, message.partition)
    return message.partition


def check_partition(topic: Topic, partition: int) -> None:
    """Raises `InvalidError` when `topic` has no such partition."""
    if not 0 <= partition < topic.partitions:
        raise no_such_partition(topic.name, partition, topic.partitions)


def no_such_partition(topic: str, partition: int, partitions: int) -> InvalidError:
    """The error that says which partitions `topic` has."""
    there = f"does not exist; the topic has partitions 0 to {partitions - 1}"
    return InvalidError(f"partition {topic}/{partition}", [Problem("", there)])


def check_range(at: TopicPartition, offset: int, start: int, end: int) -> None:
    """Raises `OutOfRangeError` unless `start` <= `offset` <= `end`."""
    if not start <= offset <= end:
        raise OutOfRangeError(at.topic, at.partition, offset, start, end)


def check_truncation(at: TopicPartition, before: int, start: int, end: int) -> None:
    """Raises `OutOfRangeError` when `before` is above the end; below the start there is nothing to do."""
    if not 0 <= before <= end:
        raise OutOfRangeError(at.topic, at.partition, before, start, end)


def check_fence(fence: Fence | None, held: int | None) -> None:
    """Raises `FencedError` unless `held`, the newest token under the fence's name, is the fence's own.

    A log that never gave the name out was made anew since, one that has given out only older tokens was
    restored: `ConflictError`, take it again.
    """
    if fence is not None and held is None:
        raise ConflictError(f"this log knows no fence {fence.name!r}: it was made anew; take the fence again")
    if fence is not None and held is not None and fence.token > held:
        raise ConflictError(
            f"this log has given out fence {fence.name!r} up to token {held}, this writer has {fence.token}: "
            f"it was restored from an older copy; take the fence again"
        )
    if fence is not None and fence.token != held:
        raise FencedError(
            f"fence {fence.name!r} has gone to token {held}, this writer has {fence.token}: "
            f"someone newer has taken over, so end this one"
        )


def retention_ms(topic: Topic) -> int | None:
    """How long after its append an entry (compacted: a tombstone) stays; None: for ever."""
    if topic.retention_seconds is None:
        return _TOMBSTONE_SECONDS * SECOND if topic.compact else None
    return topic.retention_seconds * SECOND


Fetch = Callable[[TopicPartition, int, int], Sequence[Entry]]
"""Reads up to so many entries (third) of a partition at or after an offset (second)."""


def take_turns(positions: Mapping[TopicPartition, int], most: int, turn: int, fetch: Fetch) -> list[Entry]:
    """Up to `most` entries and about `READ_BYTES_MAX` from partitions that have more, in turn.

    Each partition may fill an equal share, then again, until nobody has more. `turn` rotates who begins, so
    that no partition starves when one read cannot hold a share of each.
    """
    order = list(positions)
    if order:
        turn %= len(order)
        order = order[turn:] + order[:turn]
    offsets = dict(positions)
    taken: list[Entry] = []
    room = READ_BYTES_MAX
    while order:
        share = max(1, most // len(order))
        more: list[TopicPartition] = []
        for at in order:
            asked = min(share, most - len(taken))
            if asked <= 0 or room <= 0:
                return taken
            got = fetch(at, offsets[at], asked)
            for entry in got:
                taken.append(entry)
                room -= payload_bytes(entry)
                if room <= 0:
                    return taken
            if len(got) == asked:
                offsets[at] = got[-1].offset + 1
                more.append(at)
        order = more
    return taken
