"""A Kafka log while brokers die, freeze and come back: nothing acknowledged is lost, nothing is twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from engines.kafka import Brokers
from kafka_parts import empty, kafka_log
from transom.logs.kafka import KafkaLog
from transom.logs.protocol import Fence, Message, Topic, TopicPartition
from transom.model.errors import ConflictError, FencedError, UnreachableError

EVENTS = Topic("events", partitions=2)
PLACES = Topic("places", compact=True)
BATCHES, BATCH = 60, 5


class Carrier:
    """Appends numbers to both partitions of EVENTS, and how far it came with each batch, as links do."""

    def __init__(self, brokers: Brokers) -> None:
        self.log = kafka_log(brokers)
        self.done = 0
        self.troubles = 0
        self.moved = asyncio.Condition()

    async def run(self) -> None:
        fence: Fence | None = None
        while self.done < BATCHES * BATCH:
            try:
                if fence is None:
                    fence = await self.log.take_fence("carrier")
                    self.done = await place(self.log)
                numbers = range(self.done, self.done + BATCH)
                batch = [Message("events", None, str(n).encode(), partition=n % 2) for n in numbers]
                moved = Message("places", b"carrier", str(numbers.stop).encode())
                await self.log.append([*batch, moved], fence=fence)
            except (UnreachableError, ConflictError):
                fence = None
                self.troubles += 1
                continue
            self.done = numbers.stop
            async with self.moved:
                self.moved.notify_all()

    async def reaches(self, number: int) -> None:
        async with self.moved:
            await self.moved.wait_for(lambda: self.done >= number)


async def place(log: KafkaLog) -> int:
    offset, found = (await log.bounds("places"))[0].start, 0
    while entries := await log.read({TopicPartition("places", 0): offset}):
        offset, found = entries[-1].offset + 1, int(entries[-1].value or b"0")
    return found


async def read_everything(log: KafkaLog, count: int) -> list[list[int]]:
    """What both partitions hold, read while it is being written."""
    positions = {TopicPartition("events", number): 0 for number in range(2)}
    found: list[list[int]] = [[], []]
    while sum(map(len, found)) < count:
        with contextlib.suppress(UnreachableError):
            for entry in await log.read(positions, wait_seconds=1):
                positions[entry.position] = entry.offset + 1
                found[entry.partition].append(int(entry.value or b""))
    assert not await log.read(positions)
    return found


@contextlib.asynccontextmanager
async def carrying(brokers: Brokers) -> AsyncIterator[Carrier]:
    """A carrier and a reader at work; at the end the reader has read everything once and in order."""
    reader = kafka_log(brokers)
    await reader.create([EVENTS, PLACES])
    carrier = Carrier(brokers)
    try:
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            reading = group.create_task(read_everything(reader, BATCHES * BATCH))
            group.create_task(carrier.run())
            yield carrier
        assert reading.result() == [list(range(part, BATCHES * BATCH, 2)) for part in range(2)]
    finally:
        await carrier.log.close()
        await reader.close()
        await asyncio.to_thread(brokers.mend)
        await empty(brokers)


def kill_and_start(brokers: Brokers) -> None:
    brokers.kill()
    brokers.start()


def stop_and_start(brokers: Brokers) -> None:
    brokers.stop()
    brokers.start()


@pytest.mark.parametrize("fault", [kill_and_start, stop_and_start])
async def test_a_broker_that_ends_and_starts_again_loses_and_doubles_nothing(
    brokers: Brokers, fault: Callable[[Brokers], None]
):
    async with carrying(brokers) as carrier:
        await carrier.reaches(50)
        await asyncio.to_thread(fault, brokers)
        await carrier.reaches(150)


@pytest.mark.soak  # it takes as long as requests may take, twice
async def test_a_broker_frozen_for_longer_than_a_request_may_take_loses_and_doubles_nothing(brokers: Brokers):
    async with carrying(brokers) as carrier:
        await carrier.reaches(50)
        brokers.freeze()
        before = carrier.troubles
        while carrier.troubles == before:
            await asyncio.sleep(0.1)
        brokers.thaw()


async def test_a_leader_that_is_lost_is_followed_by_another(brokers3: Brokers):
    async with carrying(brokers3) as carrier:
        await carrier.reaches(50)
        leaders = set((await carrier.log._cluster.layouts(["events"]))["events"].leaders.values())
        # The first broker is the controller, without which nobody is elected.
        lost = next(node for node in (*leaders, 2) if node != 1) - 1
        await asyncio.to_thread(brokers3.kill, lost)
        await carrier.reaches(200)
        await asyncio.to_thread(brokers3.start, lost)


async def test_a_stopped_owner_of_a_fence_that_wakes_after_take_over_changes_nothing(brokers: Brokers):
    old, new = kafka_log(brokers), kafka_log(brokers)
    try:
        await new.create([EVENTS])
        stale = await old.take_fence("owner")
        await old.append([Message("events", None, b"1")], fence=stale)
        fence = await new.take_fence("owner")
        with pytest.raises(FencedError):
            await old.append([Message("events", None, b"late")], fence=stale)
        await new.append([Message("events", None, b"2")], fence=fence)
        await new.append([Message("events", None, b"3")])
        assert await values(new, TopicPartition("events", 0), 3) == [b"1", b"2", b"3"]
    finally:
        await old.close()
        await new.close()
        await empty(brokers)


async def values(log: KafkaLog, at: TopicPartition, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    offset = 0
    while len(found) < count:
        for entry in await log.read({at: offset}, wait_seconds=5):
            found.append(entry.value)
            offset = entry.offset + 1
    return found


async def test_a_cluster_that_was_made_anew_is_told_from_one_that_was_not(brokers: Brokers):
    log = kafka_log(brokers)
    try:
        await log.create([EVENTS])
        fence = await log.take_fence("owner")
        before = (await log.topics())["events"].topic_id
        await empty(brokers)
        await log.create([EVENTS])
        assert (await log.topics())["events"].topic_id != before
        with pytest.raises(ConflictError, match="take the fence again"):
            await log.append([Message("events", b"k", b"1")], fence=Fence("nobody", 1))
        await log.append([Message("events", b"k", b"1")], fence=await log.take_fence(fence.name))
    finally:
        await log.close()
        await empty(brokers)
