"""A consumer group's position at the target, carried there by a mirror, against the truth.

Every record's value is its offset in the source, so that the record which a group would read next at the
target tells where it would go on. The source begins above offset 0: no mirror gets by with the same offsets.
Under load the age of a position is for how long the group has been further at the source; afterwards, when
nothing moves, what remains is its error. Next on the data's way: `mirror.py`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.admin import DeleteRecordsRequest
from aiokafka.protocol.commit import OffsetFetchRequest

from benchmarks.mirror_load import Wire, make_batch
from benchmarks.mirror_sides import Clusters, Side, Starter
from benchmarks.report import percentile
from transom.runtime.clock import SystemClock

TOPIC, GROUP = "journal", "readers"
BEGIN = 2_000
SECONDS = 8.0
_EACH = 20
_SEND_SECONDS = 0.01
_COMMIT_SECONDS = 0.1
_LOOK_SECONDS = 0.02
_IDLE_SECONDS = 10.0
_NOWHERE = -1
_NODE = 1


class Found(NamedTuple):
    """What was seen of the group at the target."""

    ages_seconds: list[float]
    """Of the position, at every look while records came and were read."""
    idle_error: int
    """How many records it would read again (or, below 0, leave out) when everything had been quiet for a
    while."""

    def tenths(self) -> list[float]:
        """The ages that so many tenths of all do not exceed, the most last."""
        return [percentile(self.ages_seconds, 10 * tenth) for tenth in range(1, 11)]


async def measure(both: Clusters, start: Starter, settings: Mapping[str, str | int]) -> Found:
    """One mirror from its beginning: its group under load, and idle."""
    await both.at_source.create(TOPIC, 1)
    await _write(both.at_source, 0, 2 * BEGIN)
    asked = DeleteRecordsRequest([(TOPIC, [(0, BEGIN)])], 10_000)
    await both.at_source.cluster.ask(_NODE, asked)
    async with start(both.source.bootstrap, both.target.bootstrap, TOPIC, settings) as mirror:
        found = await _Measurement(both, mirror).run()
    await both.at_target.delete(mirror.copy(TOPIC))
    await both.at_source.delete(TOPIC)
    return found


class _Measurement:
    def __init__(self, both: Clusters, mirror: Side) -> None:
        self._both, self._copy = both, mirror.copy(TOPIC)
        self._committed: list[tuple[float, int]] = []
        """When the group came to which position at the source."""
        self._seen: list[tuple[float, int]] = []
        """When it was at which position at the target."""

    async def run(self) -> Found:
        """Read and commit under load; let the group stop first, then the writer."""
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._keep_writing())
            reading = group.create_task(self._keep_reading())
            async with asyncio.timeout(60):
                while True:
                    if await self._at_target() != _NOWHERE:
                        break
                    await asyncio.sleep(_LOOK_SECONDS)
            until = time.perf_counter() + SECONDS
            while time.perf_counter() < until:
                position = await self._at_target()
                self._seen.append((time.perf_counter(), position))
                await asyncio.sleep(_LOOK_SECONDS)
            for task in (reading, writing):
                await asyncio.sleep(2 * _COMMIT_SECONDS)
                task.cancel()
        # Asked, because the reader may have been stopped between its last commit and noting it.
        truth = await _position(self._both.at_source, TOPIC)
        position = _NOWHERE
        for _ in range(int(_IDLE_SECONDS / _COMMIT_SECONDS)):
            position = await self._at_target()
            await asyncio.sleep(_COMMIT_SECONDS)
        numbers = await self._numbers()
        ages = [self._age(at, numbers[position]) for at, position in self._seen]
        return Found(ages, truth - numbers[position])

    def _age(self, at: float, number: int) -> float:
        """For how long, at this moment, the group had been further at the source than `number`."""
        return next((max(0.0, at - since) for since, reached in self._committed if reached > number), 0.0)

    async def _keep_writing(self) -> None:
        number = 2 * BEGIN
        while True:
            await _write(self._both.at_source, number, number + _EACH)
            number += _EACH
            await asyncio.sleep(_SEND_SECONDS)

    async def _keep_reading(self) -> None:
        """A plain consumer that commits where it is, ten times a second."""
        consumer: Any = AIOKafkaConsumer(
            TOPIC,
            bootstrap_servers=self._both.source.bootstrap,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            while True:
                await asyncio.sleep(_COMMIT_SECONDS)
                found = await consumer.getmany(timeout_ms=1000)
                for at, records in found.items():
                    await consumer.commit({at: records[-1].offset + 1})
                    self._committed.append((time.perf_counter(), records[-1].offset + 1))
        finally:
            await consumer.stop()

    async def _at_target(self) -> int:
        return await _position(self._both.at_target, self._copy)

    async def _numbers(self) -> dict[int, int]:
        """By offset of the copy, the number of the record there, or that comes next."""
        offset, end = 0, (await self._both.at_target.ends(self._copy))[0]
        found: dict[int, int] = {}
        while offset < end:
            for _, batch in await self._both.at_target.fetch(self._copy, {0: offset}, 100, 0):
                found |= {record.offset: int(record.value) for record in batch if not batch.is_control_batch}
                offset = max(offset, batch.next_offset)
        following = max(found.values()) + 1
        for offset in range(end, -1, -1):
            following = found.setdefault(offset, following)
        return found


async def _position(wire: Wire, topic: str) -> int:
    """Where the group is in a topic's only partition; a cluster that never had a group tells nothing."""
    answer: Any = await wire.cluster.ask(_NODE, OffsetFetchRequest(GROUP, [(topic, [0])]))
    return answer.topics[0][1][0][1] if answer.topics else _NOWHERE


async def _write(source: Wire, first: int, end: int) -> None:
    now_ms = int(SystemClock().wall() * 1000)
    for number in range(first, end, _EACH):
        values = [b"%d" % each for each in range(number, min(end, number + _EACH))]
        await source.produce(TOPIC, [(0, make_batch(values, now_ms))])
