"""What is fetched ahead is bounded, and as slow as it was told to be; the source here always has more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from mirror_batches import Made, batch_bytes
from transom.links.kafka import fetcher
from transom.links.kafka.fetcher import HELD_BYTES_MAX, Fetcher
from transom.links.kafka.fetching import Fetched, Wanted
from transom.links.kafka.lane import Lane, Outcome
from transom.links.kafka.lanes import LANE_BYTES_MAX, Lanes
from transom.links.kafka.offset_map import OffsetMap
from transom.logs.kafka_produce import Producer
from transom.logs.protocol import TopicPartition
from transom.runtime.clock import ManualClock

MEBIBYTE = 1 << 20
TURNS = 200


class Endless:
    """A source that has a batch of a mebibyte wherever it is asked."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.clock, self.lanes = ManualClock(), Lanes()
        places = [TopicPartition("orders", number) for number in range(count)]
        held = {at: Lane(at, at, str(UUID(int=1)), OffsetMap(), 0, 0) for at in places}
        self.lanes.shards[0] = SimpleNamespace(lanes=held)  # type: ignore[assignment]
        monkeypatch.setattr(fetcher, "fetch", self.fetch)

    async def fetch(self, _: Any, __: int, wanted: Sequence[Wanted], **about: Any) -> list[Fetched]:
        self.asked += 1
        await asyncio.sleep(0)
        return [self.told(each) for each in wanted[: about["bytes_max"] // MEBIBYTE]]

    def told(self, wanted: Wanted) -> Fetched:
        data = batch_bytes([Made(wanted.offset, 1, None, bytes(MEBIBYTE - 100))])
        end = 1 << 40
        return Fetched(wanted.topic_id, wanted.partition, 0, end, end, 0, (), memoryview(bytearray(data)))

    @asynccontextmanager
    async def fetching(self, bytes_per_second: float = 0.0) -> AsyncIterator[None]:
        source: Any = SimpleNamespace(known_leader=lambda *_: 1)
        running = asyncio.create_task(Fetcher(self.lanes, source, self.clock, bytes_per_second).run())
        try:
            yield
        finally:
            running.cancel()

    async def quiet(self) -> int:
        """How often it was asked once nobody asks any more."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return self.asked


@pytest.mark.parametrize(("count", "most"), [(1, LANE_BYTES_MAX + 2 * MEBIBYTE), (40, HELD_BYTES_MAX)])
async def test_what_waits_is_bounded_whatever_the_backlog(monkeypatch, count, most):
    source = Endless(count, monkeypatch)
    async with source.fetching():
        await source.quiet()
        held = source.lanes.bytes_held
        assert most // 2 < held <= most
        for lane in source.lanes:  # one batch of each is written
            if not lane.is_idle:
                lane.kept(lane.version)
                sent = lane.take(Producer(7, 0), join=False)
                lane.answered(sent, Outcome.WRITTEN, sent.pieces[0].target)
                source.lanes.sent([lane])
        before = await source.quiet()
        assert source.lanes.bytes_held <= most
        assert before > held // (4 * MEBIBYTE), "nothing more was fetched into the room that there is"


async def test_it_asks_no_faster_than_it_was_told(monkeypatch):
    source = Endless(1, monkeypatch)
    async with source.fetching(bytes_per_second=MEBIBYTE):
        assert await source.quiet() == 1
        source.clock.advance(0.9)
        assert await source.quiet() == 1
        source.clock.advance(0.2)
        assert await source.quiet() == 2
