"""Reading a Kafka log: from any offsets, only what is committed, without polling.

A `Reader` remembers what it fetched beyond what was asked for, and where to go on behind markers of
transactions, which take offsets and are no entries. Next on the data's way: `kafka`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transom.logs import kafka_api as api
from transom.logs import rules
from transom.logs.kafka_bounds import bounds
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.kafka_fetch import committed, fetch
from transom.logs.kafka_produce import TRANSACTION_MS
from transom.logs.protocol import Entry, Topic, TopicPartition
from transom.model.errors import OutOfRangeError, UnknownTopicError

_WAIT_SECONDS_MAX = 5.0  # well below what a broker has to answer
_READERS_MAX = 64
_UNDECIDED_SECONDS = TRANSACTION_MS / 1000 + 5.0
"""Brokers abort a transaction that nobody ends before this is over."""

_LOOK_AGAIN_SECONDS = 0.002


@dataclass
class _Place:
    """Where a reader is in a partition: it hands out `after` next, has `ready`, and fetches from `fetch`. The
    partition ended at `high` when it was fetched last.
    """

    after: int
    fetch: int
    high: int = 0
    ready: list[Entry] = field(default_factory=list[Entry])


class Reader:
    """Reads some partitions for one caller at a time, over connections of its own."""

    def __init__(self, cluster: KafkaCluster, lane: int) -> None:
        self.lane = lane
        self._cluster = cluster
        self._places: dict[TopicPartition, _Place] = {}
        self._flying: dict[int, tuple[dict[TopicPartition, int], asyncio.Task[Any]]] = {}
        self._turn = 0

    async def read(
        self, positions: Mapping[TopicPartition, int], most: int, wait_seconds: float
    ) -> list[Entry]:
        """See `Log.read`."""
        for at, offset in positions.items():
            held = self._places.get(at)
            if held is None or held.after != offset:
                self._places[at] = _Place(offset, offset)
        began = self._cluster.clock.monotonic()
        until = began + wait_seconds
        while True:
            if taken := self._take(most):
                return taken
            remaining = until - self._cluster.clock.monotonic()
            what = f"read {', '.join(sorted({at.topic for at in positions}))}"
            if remaining > 0:
                await self._cluster.retrying(what, lambda left=remaining: self._wait(left))
            elif not await self._cluster.retrying(what, self._look):
                # What stands behind a transaction that somebody else has not ended yet was appended before we
                # asked: whoever looks where it stands, to go on there, must not miss it.
                waited = self._cluster.clock.monotonic() - began
                if waited > _UNDECIDED_SECONDS or all(p.fetch >= p.high for p in self._places.values()):
                    return []
                await self._cluster.clock.sleep(_LOOK_AGAIN_SECONDS)

    async def close(self) -> None:
        """End the fetches under way."""
        await self._cluster.tasks.end(*(task for _, task in self._flying.values()))
        self._flying.clear()

    def _take(self, most: int) -> list[Entry]:
        ready = {at: place.after for at, place in self._places.items() if place.ready}
        if not ready:
            return []
        used = dict.fromkeys(ready, 0)

        def fetch(at: TopicPartition, _offset: int, asked: int) -> Sequence[Entry]:
            given = self._places[at].ready[used[at] : used[at] + asked]
            used[at] += len(given)
            return given

        self._turn += 1
        taken = rules.take_turns(ready, most, self._turn, fetch)
        for at, count in used.items():
            place = self._places[at]
            if count:
                place.after = place.ready[count - 1].offset + 1
                del place.ready[:count]
        return taken

    async def _look(self) -> bool:
        """Fetch what is there now; whether that got us on."""
        asked = await self._by_leader()
        # Not over the connection on which a leader may be taking its time.
        looks = (fetch(self._cluster, node, wanted, 0.0, -self.lane) for node, wanted in asked.items())
        answers = await asyncio.gather(*looks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        gains = [await self._digest(asked[node], answer) for node, answer in zip(asked, answers, strict=True)]
        return any(gains)

    async def _wait(self, seconds: float) -> None:
        """Let the leaders answer when there is something, or once `seconds` are up.

        The answer of a leader that takes longer than another's is waited for by the next call.
        """
        asked = await self._by_leader()
        for node, (wanted, task) in list(self._flying.items()):
            if asked.get(node) != wanted:
                del self._flying[node]
                await self._cluster.tasks.end(task)
        seconds = min(seconds, _WAIT_SECONDS_MAX)
        for node, wanted in asked.items():
            if node not in self._flying:
                self._flying[node] = (
                    wanted,
                    self._cluster.tasks.start(fetch(self._cluster, node, wanted, seconds, self.lane)),
                )
        tasks = [task for _, task in self._flying.values()]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for node, (wanted, task) in list(self._flying.items()):
            if task in done:
                del self._flying[node]
                await self._digest(wanted, task.result())

    async def _by_leader(self) -> dict[int, dict[TopicPartition, int]]:
        asked: dict[int, dict[TopicPartition, int]] = {}
        for at, place in self._places.items():
            layout = await self._cluster.layout(at.topic)
            rules.check_partition(Topic(at.topic, len(layout.leaders)), at.partition)
            asked.setdefault(layout.leaders[at.partition], {})[at] = place.fetch
        return asked

    async def _digest(self, wanted: Mapping[TopicPartition, int], answer: Any) -> bool:
        """Take over what a leader answered; whether it got us on anywhere."""
        self._cluster.check(answer.error_code, "a fetch")
        gained = False
        for topic, partitions in answer.topics:
            for told in partitions:
                at = TopicPartition(topic, told[0])
                if told[1]:
                    await self._refused(at, wanted[at], told[1])
                place = self._places[at]
                if place.fetch != wanted[at]:
                    continue  # the caller went elsewhere meanwhile
                place.high = told[2]
                entries, place.fetch = committed(at, place.fetch, told[5], told[-1])
                place.ready.extend(entries)
                gained = gained or place.fetch != wanted[at]
        return gained

    async def _refused(self, at: TopicPartition, offset: int, code: int) -> None:
        if code == api.OFFSET_OUT_OF_RANGE:
            raise await self._out_of_range(at, offset)
        if code == api.UNKNOWN_TOPIC and at.topic not in await self._cluster.layouts([at.topic]):
            raise UnknownTopicError(at.topic)
        self._cluster.check(code, f"{at.topic}/{at.partition}")

    async def _out_of_range(self, at: TopicPartition, offset: int) -> Exception:
        held = (await bounds(self._cluster, at.topic))[at.partition]
        if held.start <= offset <= held.end:
            # To a leader that lags behind the old one.
            return TransientError(f"{at.topic}/{at.partition} moves", error="moves")
        return OutOfRangeError(at.topic, at.partition, offset, held.start, held.end)


class Readers:
    """Readers for callers that come with the same partitions again and again; a bounded number is kept."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._idle: dict[frozenset[TopicPartition], list[Reader]] = {}
        self._lanes: list[int] = []
        self._made = 0

    async def read(
        self, positions: Mapping[TopicPartition, int], most: int, wait_seconds: float
    ) -> list[Entry]:
        """See `Log.read`."""
        if not positions:
            await self._cluster.clock.sleep(max(0.0, wait_seconds))
            return []
        key = frozenset(positions)
        waiting = self._idle.pop(key, [])
        reader = waiting.pop() if waiting else await self._make()
        if waiting:
            self._idle[key] = waiting
        try:
            return await reader.read(positions, most, wait_seconds)
        finally:
            # At the end: the first ones are those that nobody asked for longest.
            self._idle[key] = [*self._idle.pop(key, []), reader]

    async def close(self) -> None:
        """End what every reader has under way."""
        for readers in self._idle.values():
            for reader in readers:
                await reader.close()
        self._idle.clear()

    async def _make(self) -> Reader:
        while sum(map(len, self._idle.values())) >= _READERS_MAX:
            key = next(iter(self._idle))
            oldest = self._idle[key].pop(0)
            if not self._idle[key]:
                del self._idle[key]
            await oldest.close()
            self._lanes.append(oldest.lane)
        if self._lanes:
            return Reader(self._cluster, self._lanes.pop())
        self._made += 1
        return Reader(self._cluster, self._made)
