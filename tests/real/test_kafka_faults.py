"""A Kafka log while brokers die, freeze and come back: nothing acknowledged is lost, nothing is twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka.protocol.admin import CreatePartitionsRequest
from aiokafka.protocol.transaction import EndTxnRequest

from engines.kafka import Brokers
from kafka_logs import emptied_log, empty, kafka_log
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import Fence, Message, Topic, TopicPartition
from transom.model.errors import ConflictError, FencedError, UnreachableError
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness

EVENTS = Topic("events", partitions=2)
PLACES = Topic("places", compact=True)
BATCHES, BATCH = 60, 5


class Hurried(SystemClock):
    """Patience of twenty seconds is over in two."""

    def monotonic(self) -> float:
        return 10 * super().monotonic()


class Carrier:
    """Appends numbers to both partitions of EVENTS, and how far it came with each batch, as links do."""

    def __init__(self, brokers: Brokers) -> None:
        self.log = KafkaLog(f"kafka://{brokers.bootstrap}", Hurried(), Randomness())
        self.done = 0
        self.troubles = 0
        self.moved = asyncio.Condition()
        self._ask = self.log._cluster.ask
        self.log._cluster.ask = self._held_up  # type: ignore[method-assign]
        self._passing, self._arrived = asyncio.Event(), asyncio.Event()
        self._passing.set()

    async def _held_up(self, node: int | None, request: Any, lane: int = 0) -> Any:
        if isinstance(request, EndTxnRequest) and not self._passing.is_set():
            self._arrived.set()
            await self._passing.wait()
        return await self._ask(node, request, lane)

    @contextlib.asynccontextmanager
    async def in_flight(self) -> AsyncIterator[None]:
        """Inside the block records are written, and the end of their transaction is not asked for yet."""
        self._arrived.clear()
        self._passing.clear()
        await self._arrived.wait()
        try:
            yield
        finally:
            self._passing.set()

    async def gives_up(self) -> None:
        """Wait until an append has failed for good: whether it happened is not known then."""
        before = self.troubles
        while self.troubles == before:
            await asyncio.sleep(0.05)

    async def run(self) -> None:
        fence: Fence | None = None
        while self.done < BATCHES * BATCH:
            try:
                if fence is None:
                    fence = await self.log.take_fence("carrier")
                    held = await place(self.log)
                    # One batch more: what was in doubt when patience ended may have happened.
                    assert held in (self.done, self.done + BATCH), "what was acknowledged is lost"
                    self.done = held
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


@pytest.mark.parametrize("end", [Brokers.kill, Brokers.stop])
async def test_a_broker_that_ends_with_records_in_flight_loses_and_doubles_nothing(
    brokers: Brokers, end: Callable[[Brokers], None]
):
    async with carrying(brokers) as carrier:
        await carrier.reaches(50)
        async with carrier.in_flight():
            await asyncio.to_thread(end, brokers)
        await carrier.gives_up()
        await asyncio.to_thread(brokers.start)
        await carrier.reaches(150)


async def test_a_broker_that_is_back_before_patience_ends_loses_and_doubles_nothing(brokers: Brokers):
    async with carrying(brokers) as carrier:
        await carrier.reaches(50)
        async with carrier.in_flight():
            await asyncio.to_thread(brokers.kill)
            await asyncio.to_thread(brokers.start)
        await carrier.reaches(150)


@pytest.mark.soak  # it takes as long as a request may take
async def test_a_broker_frozen_for_longer_than_a_request_may_take_loses_and_doubles_nothing(brokers: Brokers):
    async with carrying(brokers) as carrier:
        await carrier.reaches(50)
        async with carrier.in_flight():
            brokers.freeze()
        await carrier.gives_up()
        brokers.thaw()


async def test_a_leader_that_is_lost_is_followed_by_another(brokers3: Brokers):
    async with carrying(brokers3) as carrier:
        await carrier.reaches(50)
        leaders = set((await carrier.log._cluster.layouts(["events"]))["events"].leaders.values())
        # The first broker is the controller, without which nobody is elected.
        lost = next(node for node in (*leaders, 2) if node != 1) - 1
        async with carrier.in_flight():
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


async def test_a_connection_that_is_gone_when_something_is_sent_is_made_anew(brokers: Brokers):
    log = kafka_log(brokers)
    try:
        before = await log.topics()
        client = log._cluster._client
        send = client.send

        async def closed(*_what: object, **_how: object) -> None:
            client.send = send
            raise RuntimeError(
                "unable to perform operation on <TCPTransport>; the handler is closed"
            )  # as uvloop

        client.send = closed
        assert await log.topics() == before
        assert client.send is send
    finally:
        await log.close()


async def test_a_client_whose_own_task_was_ended_by_a_closed_connection_is_closed_all_the_same(
    brokers: Brokers,
):
    log = kafka_log(brokers)
    await log.topics()
    client = log._cluster._client
    connections = list(client._conns.values())

    async def ended() -> None:
        raise RuntimeError(
            "unable to perform operation on <TCPTransport>; the handler is closed"
        )  # as uvloop

    client._sync_task.cancel()
    client._sync_task = asyncio.create_task(ended())
    await asyncio.sleep(0)
    await log.close()
    assert connections
    assert not any(connection.connected() for connection in connections)


async def test_a_leader_that_is_missing_is_asked_for_again_soon(brokers: Brokers) -> None:
    """A partition that was just made has none for a moment; who leads the others is held for much longer."""
    clock = ManualClock()
    cluster = KafkaCluster(parse_address(f"kafka://{brokers.bootstrap}"), clock, Randomness())
    try:
        async with emptied_log(brokers) as log:
            await log.create([EVENTS])
            assert await cluster.leader("events", 0) > 0
            assert await cluster.leader("events", 2) < 0
            await cluster.ask(None, CreatePartitionsRequest([("events", (3, None))], 10_000, False))
            async with asyncio.timeout(30):
                while (await log._cluster.layouts(["events"]))["events"].leaders.get(2, -1) < 0:
                    await asyncio.sleep(0.01)
            clock.advance(0.1)
            assert await cluster.leader("events", 2) < 0
            clock.advance(0.1)
            assert await cluster.leader("events", 2) > 0
    finally:
        await cluster.close()
