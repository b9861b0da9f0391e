"""A log in this process's memory: the model that the other engines are compared with.

It promises everything `protocol` says except that it survives its process.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from transom.logs import rules
from transom.logs.groups import Group, check_commit, membership, rejoin
from transom.logs.protocol import (
    SECOND,
    Bounds,
    Entry,
    Fence,
    Membership,
    Message,
    Topic,
    TopicInfo,
    TopicPartition,
)
from transom.model.errors import UnknownTopicError
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level


@dataclass
class _Kept:
    entry: Entry
    appended_ms: int


@dataclass
class _Partition:
    start: int = 0
    end: int = 0
    kept: list[_Kept] = field(default_factory=list[_Kept])

    def index(self, offset: int) -> int:
        return bisect_left(self.kept, offset, key=lambda kept: kept.entry.offset)


class MemoryLog:
    """`Log` and `KeptLog` in plain lists and dicts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._topics: dict[str, TopicInfo] = {}
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._fences: dict[str, int] = {}
        self._groups: dict[str, Group] = {}
        self._committed: dict[str, dict[TopicPartition, int]] = {}
        self._changed = Level()
        self._turn = 0

    @property
    def trouble(self) -> str:
        """See `Log.trouble`: every call says so itself."""
        return ""

    async def create(self, topics: Sequence[Topic]) -> None:
        """See `Log.create`."""
        rules.check_topics(topics)
        for topic in topics:
            if topic.name in self._topics:
                rules.check_same(topic, self._topics[topic.name].topic)
        for topic in topics:
            held = self._topics.get(topic.name)
            self._topics[topic.name] = TopicInfo(topic, held.topic_id if held else Randomness().uid())
            for partition in range(topic.partitions):
                self._partitions.setdefault(TopicPartition(topic.name, partition), _Partition())

    async def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
        """See `Log.topics`."""
        return rules.named(self._topics, names)

    async def append(self, batch: Sequence[Message], *, fence: Fence | None = None) -> Sequence[int]:
        """See `Log.append`."""
        rules.check_batch(batch)
        rules.check_fence(fence, self._fences.get(fence.name) if fence else None)
        placed = [
            (TopicPartition(message.topic, rules.partition_of(message, self._topic(message.topic))), message)
            for message in batch
        ]
        now_ms = int(self._clock.wall() * SECOND)
        offsets: list[int] = []
        for at, message in placed:
            held = self._partitions[at]
            stamp = message.timestamp_ms or now_ms
            entry = Entry(
                at.topic, at.partition, held.end, stamp, message.key, message.value, tuple(message.headers)
            )
            held.kept.append(_Kept(entry, now_ms))
            offsets.append(held.end)
            held.end += 1
        if batch:
            self._changed.rise()
        return offsets

    async def read(
        self, positions: Mapping[TopicPartition, int], *, most: int = 1000, wait_seconds: float = 0.0
    ) -> Sequence[Entry]:
        """See `Log.read`."""
        seen = self._changed.value
        entries = self._look(positions, most)
        if entries or wait_seconds <= 0:
            return entries
        try:
            async with asyncio.timeout(wait_seconds):
                while not entries:
                    seen = await self._changed.above(seen)
                    entries = self._look(positions, most)
        except TimeoutError:
            return []
        return entries

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """See `Log.bounds`."""
        return {
            partition: Bounds(held.start, held.end)
            for partition in range(self._topic(topic).partitions)
            for held in [self._partitions[TopicPartition(topic, partition)]]
        }

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        """See `Log.truncate`."""
        at = TopicPartition(topic, partition)
        held = self._partition(at)
        rules.check_truncation(at, before, held.start, held.end)
        del held.kept[: held.index(before)]
        held.start = max(held.start, before)

    async def take_fence(self, name: str) -> Fence:
        """See `Log.take_fence`."""
        self._fences[name] = self._fences.get(name, 0) + 1
        return Fence(name, self._fences[name])

    async def join(
        self, group: str, member: str, topics: Sequence[str], *, session_seconds: float = 10.0
    ) -> Membership:
        """See `Log.join`."""
        for topic in topics:
            self._topic(topic)
        partitions = {name: info.topic.partitions for name, info in self._topics.items()}
        held = self._groups[group] = rejoin(
            self._groups.get(group, Group()),
            member,
            topics,
            partitions,
            now=self._clock.wall(),
            session_seconds=session_seconds,
        )
        return membership(held, group, member)

    async def commit(self, membership: Membership, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Log.commit`."""
        check_commit(self._groups.get(membership.group, Group()), membership, offsets)
        self._committed.setdefault(membership.group, {}).update(offsets)

    async def committed(self, group: str) -> Mapping[TopicPartition, int]:
        """See `Log.committed`."""
        return dict(self._committed.get(group, {}))

    async def clean(self, clock: Clock) -> int:
        """See `KeptLog.clean`."""
        now_ms = int(clock.wall() * SECOND)
        removed = 0
        for at, held in self._partitions.items():
            topic = self._topics[at.topic].topic
            before = len(held.kept)
            if topic.compact:
                _compact(held, topic, now_ms)
            else:
                _expire(held, topic, now_ms)
            removed += before - len(held.kept)
        return removed

    async def close(self) -> None:
        """Nothing is held open."""

    def _look(self, positions: Mapping[TopicPartition, int], most: int) -> list[Entry]:
        behind: dict[TopicPartition, int] = {}
        for at, offset in positions.items():
            held = self._partition(at)
            rules.check_range(at, offset, held.start, held.end)
            if offset < held.end:
                behind[at] = offset
        self._turn += 1
        return rules.take_turns(behind, most, self._turn, self._fetch)

    def _fetch(self, at: TopicPartition, offset: int, most: int) -> list[Entry]:
        held = self._partitions[at]
        first = held.index(offset)
        return [kept.entry for kept in held.kept[first : first + most]]

    def _topic(self, name: str) -> Topic:
        if name not in self._topics:
            raise UnknownTopicError(name)
        return self._topics[name].topic

    def _partition(self, at: TopicPartition) -> _Partition:
        rules.check_partition(self._topic(at.topic), at.partition)
        return self._partitions[at]


def _compact(held: _Partition, topic: Topic, now_ms: int) -> None:
    newest = {kept.entry.key: kept.entry.offset for kept in held.kept}
    keep_ms = rules.retention_ms(topic) or 0
    held.kept = [
        kept
        for kept in held.kept
        if newest[kept.entry.key] == kept.entry.offset
        and (kept.entry.value is not None or kept.appended_ms + keep_ms > now_ms)
    ]


def _expire(held: _Partition, topic: Topic, now_ms: int) -> None:
    keep_ms = rules.retention_ms(topic)
    if keep_ms is None:
        return
    young = next((at for at, kept in enumerate(held.kept) if kept.appended_ms + keep_ms > now_ms), None)
    held.start = held.end if young is None else held.kept[young].entry.offset
    del held.kept[: len(held.kept) if young is None else young]
