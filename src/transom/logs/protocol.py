"""What a log promises, whichever engine keeps it. The words are Kafka's.

A topic has partitions; a partition is an ordered row of entries, each at an offset. Offsets rise, and none is
used twice; compaction and truncation leave gaps, and so do Kafka's transactions. A batch is appended whole or
not at all, across topics, and is on disk when `append` returns; a read that waits gets it, one that does not
may come a moment too early on Kafka. The embedded logs are opened by their own region only; another region
reaches them through `remote`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from transom.runtime.clock import Clock

SECOND = 1000

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Topic(msgspec.Struct, frozen=True):
    """How a topic is kept. Fixed when it is created; creating it again with other values is refused.

    `compact` keeps the newest entry of each key; otherwise entries older than `retention_seconds` go
    (None: they stay). In a compacted topic an entry without a value is a tombstone: it removes its key,
    and goes itself `retention_seconds` later (None: a day).
    """

    name: str
    partitions: int = 1
    compact: bool = False
    retention_seconds: int | None = None


class TopicInfo(msgspec.Struct, frozen=True):
    """A topic as a log has it. `topic_id` changes when a topic is deleted and made again."""

    topic: Topic
    topic_id: str


class Message(msgspec.Struct, frozen=True):
    """What somebody appends. Without `partition` the key decides (`partitioner`); without a key, 0.

    `timestamp_ms` 0 means "when it is appended".
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int = 0


class Entry(msgspec.Struct, frozen=True):
    """What stands in a log.

    `holes` are offsets right behind it that hold no entry and never will (where a Kafka transaction ends), as
    far as they were seen: when the partition begins behind them, nothing behind this entry is gone.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    holes: int = 0

    @property
    def position(self) -> TopicPartition:
        """Which partition it stands in."""
        return TopicPartition(self.topic, self.partition)


class Fence(msgspec.Struct, frozen=True):
    """The right to append under a name. Whoever takes the name later gets a higher token and shuts out all
    earlier ones: their appends raise `FencedError` (Kafka: a transactional id and its epoch).
    """

    name: str
    token: int


class Bounds(NamedTuple):
    """A partition holds offsets from `start` up to, not including, `end`."""

    start: int
    end: int


class Membership(msgspec.Struct, frozen=True):
    """A member's place in a consumer group; valid while `generation` is the group's."""

    group: str
    member: str
    generation: int
    assigned: tuple[TopicPartition, ...]


class Log(Protocol):
    """A region's ordered event log. All methods raise `UnreachableError` when the engine is away,
    `StorageFullError` when it has no room, and change nothing when they raise anything else.
    """

    @property
    def trouble(self) -> str:
        """Why a call that is under way has not been answered yet: which address, and what is wrong there.
        Empty when nothing is known to be wrong, and where calls say so themselves, at once.
        """
        ...

    async def create(self, topics: Sequence[Topic]) -> None:
        """Make sure the topics exist. Raises `InvalidError` when one exists and is kept differently
        (more partitions than it has are added).
        """
        ...

    async def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
        """Every topic by name, or those of `names` that exist."""
        ...

    async def append(self, batch: Sequence[Message], *, fence: Fence | None = None) -> Sequence[int]:
        """Append all of `batch` or nothing, in order; returns each entry's offset. On disk on return.

        Raises `UnknownTopicError`, `FencedError` (someone took the fence's name since), `ConflictError` (the
        log was made anew and knows no such fence: take it again), `InvalidError` (a partition that does not
        exist, an entry over 1 MiB, a batch over 15 MiB, no key in a compacted topic).
        Cancelling may leave the batch appended.
        """
        ...

    async def read(
        self, positions: Mapping[TopicPartition, int], *, most: int = 1000, wait_seconds: float = 0.0
    ) -> Sequence[Entry]:
        """Up to about `most` entries at or after the given offsets, in offset order within a partition.

        Partitions take turns when there is more than `most`. When there is nothing, waits up to
        `wait_seconds` (without polling) and then returns an empty sequence. One read returns about 8 MiB at
        most. Raises `UnknownTopicError`, `InvalidError` (a partition that does not exist), `OutOfRangeError`
        (the offset is below the partition's start or above its end).
        """
        ...

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """Start and end of each partition. Raises `UnknownTopicError`."""
        ...

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        """Remove the entries below offset `before`; below the start there is nothing left to remove.
        Raises `UnknownTopicError`, `InvalidError`, `OutOfRangeError` (`before` is above the end).
        """
        ...

    async def take_fence(self, name: str) -> Fence:
        """Become the one who appends under `name`; every earlier fence of that name is shut out."""
        ...

    async def join(
        self, group: str, member: str, topics: Sequence[str], *, session_seconds: float = 10.0
    ) -> Membership:
        """Join a consumer group, or stay in it: also the heartbeat, due within `session_seconds`.

        Partitions are spread evenly over the members alive. A change of members starts a new generation;
        a member learns of it from its next `join`. `leave` is `join` with no topics.
        """
        ...

    async def commit(self, membership: Membership, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember, durably, the offsets the group reads next. Raises `GenerationError` when the group has
        moved on, `ForbiddenError` for a partition that is not assigned to the member.
        """
        ...

    async def committed(self, group: str) -> Mapping[TopicPartition, int]:
        """The offsets the group reads next; empty when it never committed."""
        ...

    async def close(self) -> None:
        """Let go of files and connections. What was acknowledged stays."""
        ...


class KeptLog(Log, Protocol):
    """A log whose engine does not clean up by itself, so that its region must have it done."""

    async def clean(self, clock: Clock) -> int:
        """Compact what is compacted, drop what is older than its retention; returns entries removed."""
        ...
