"""How a gateway follows its region's log, whatever becomes of the log, and what it says of itself."""

import asyncio
import contextlib

import msgspec
import pytest
from tests.context_parts import a_key, a_world, canaries, key_name, key_record, route_record

from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model.errors import ConflictError, UnknownTopicError, UnreachableError
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, GATEWAYS, GatewayBeat
from transom.region.gateway import heartbeat
from transom.region.gateway.config import GatewayConfig
from transom.region.gateway.heartbeat import GatewayHeart, next_epoch
from transom.region.gateway.region_log import RegionLog
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import WorkerState
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable

BOTH = (CONTEXTS, CONTEXTS_BULK)


async def a_log(*records, topic: str = CONTEXTS) -> MemoryLog:
    log = MemoryLog(SystemClock())
    await log.create(TOPICS)
    await append(log, *records, topic=topic)
    return log


async def append(log: MemoryLog, *records, topic: str = CONTEXTS) -> None:
    if records:
        await log.append([to_message(topic, record) for record in records])


@contextlib.asynccontextmanager
async def following(world, log):
    task = asyncio.create_task(keep(world.table, log, BOTH, world.door.read))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, UnreachableError):
            await task


async def reached(world, revision: int) -> None:
    async with asyncio.timeout(20):
        while world.table.knows.revision < revision:
            await world.table.moved.above(world.table.moved.value)


async def test_both_lanes_feed_one_table_and_a_bad_record_is_left_out_alone() -> None:
    key, bad = a_key(), a_key()
    fast, bulk = canaries(5, 1.0)
    log = await a_log(key_record(key, 3))
    await append(log, route_record("acme", "shop", 2), bulk, topic=CONTEXTS_BULK)
    broken = key_record(bad, 4)
    await append(log, msgspec.structs.replace(broken, value=b"{}"), fast)
    async with a_world(complete=False) as world, following(world, log):
        await reached(world, 5)
        while not world.table.knows.complete:
            await world.table.moved.above(world.table.moved.value)
        assert await world.status(key, "shop") == 200
        assert await world.status(bad) == 503
        assert set(world.door.refused) == {key_name(bad)}


LATER = b'{"version":2,"state":"gone","~restricts":true}'
"""A revocation in a schema that this release does not know."""
MILDER = key_record(a_key(), 1).value[:-1] + b',"state":"paused","~restricts":true}'
"""The same in one that it can read, but for what matters."""


@pytest.mark.parametrize("value", [LATER, MILDER], ids=["unreadable", "readable but for that"])
async def test_a_revocation_that_this_release_cannot_read_holds_all_the_same(value: bytes) -> None:
    hot, cold, well = a_key(), a_key(), a_key()
    fast, bulk = canaries(3, 1.0)
    log = await a_log(*(key_record(key, 3) for key in (hot, cold, well)), fast)
    await append(log, bulk, topic=CONTEXTS_BULK)
    inner = MemoryTable()
    async with a_world(inner=inner, complete=False) as world, following(world, log):
        await reached(world, 3)
        assert (await world.status(hot), await world.status(well)) == (200, 200)
        taken = [msgspec.structs.replace(key_record(key, 5), value=value) for key in (hot, cold)]
        unreadable = msgspec.structs.replace(key_record(well, 5), value=b'{"version":2}')
        await append(log, *taken, unreadable, canaries(5, 1.0)[0])
        await reached(world, 5)
        for key in (hot, cold):
            decision = await world.decider.decide(key, "", "GET")
            assert (decision.status, decision.error, decision.is_final) == (503, "withheld", True)
        assert await world.status(well) == 200, "the last good one stays"
        assert world.decider.errors == 0, "the gateway is well"
    async with a_world(inner=inner, complete=False) as world, following(world, log):
        assert [await world.status(key) for key in (hot, cold, well)] == [503, 503, 200]
        await append(log, *(key_record(key, 6) for key in (hot, cold)), canaries(6, 1.0)[0])
        await reached(world, 6)
        assert [await world.status(key) for key in (hot, cold, well)] == [200, 200, 200]


async def test_a_log_with_a_past_answers_nothing_by_absence_until_it_was_read() -> None:
    """Long before its end it says "verified", of what there was then."""
    key, other = a_key(), a_key()
    log = await a_log(key_record(other, 3), canaries(3, 1.0)[0])
    await append(log, canaries(3, 1.0)[1], topic=CONTEXTS_BULK)
    await append(log, *(key_record(other, revision) for revision in range(4, 2500)))
    await append(log, key_record(key, 9000), canaries(9000, 1.0)[0])
    answers: set[int] = set()
    async with a_world(complete=False) as world:
        reading = asyncio.create_task(
            keep(world.table, log, BOTH, world.door.read, tell=world.table.set_behind)
        )
        async with asyncio.timeout(20):
            while world.table.knows.revision < 9000 or not world.table.knows.complete:
                answers.add(await world.status(key))
                await asyncio.sleep(0)
        assert answers - {200} == {503}
        assert (await world.status(key), await world.status(a_key())) == (200, 401)
        reading.cancel()


async def test_it_goes_on_where_the_table_stands() -> None:
    class Counting(MemoryLog):
        def __init__(self) -> None:
            super().__init__(SystemClock())
            self.lowest: list[int] = []

        async def read(self, positions, **how):
            if how.get("wait_seconds"):  # others only look back
                self.lowest.append(positions[TopicPartition(CONTEXTS, 0)])
            return await super().read(positions, **how)

    log = Counting()
    await log.create(TOPICS)
    await append(log, key_record(a_key(), 1), canaries(1, 1.0)[0])
    inner = MemoryTable()
    async with a_world(inner=inner, complete=False) as world, following(world, log):
        await reached(world, 1)
        await append(log, canaries(2, 1.0)[0])
        await reached(world, 2)
    log.lowest.clear()
    await append(log, canaries(3, 1.0)[0])
    async with a_world(inner=inner, complete=False) as world, following(world, log):
        await reached(world, 3)
    assert log.lowest[0] == 3


@pytest.mark.parametrize("restarts", [0, 3])
async def test_a_log_made_anew_is_read_from_its_start(restarts: int) -> None:
    """The new log is longer than the old was read: by offsets alone, the revocation would be skipped."""
    key, inner = a_key(), MemoryTable()
    old = await a_log(key_record(key, 1), *(key_record(a_key(), 2) for _ in range(5)), canaries(2, 1.0)[0])
    async with a_world(route_record("acme", "shop", 1), inner=inner, complete=False) as world:
        async with following(world, old):
            await reached(world, 2)
        assert await world.status(key, "shop") == 200
        new = await a_log(key_record(a_key(), 3), canaries(3, 1.0)[0])
        for _ in range(restarts):  # killed while it has not come as far as it was in the old one
            async with following(world, new):
                await reached(world, 3)
            world.table.knows = world.table.knows._replace(revision=0)
        later = [key_record(a_key(), 9) for _ in range(8)]
        await append(new, key_record(key, 8, revoked=True), *later, canaries(9, 1.0)[0])
        async with following(world, new):
            await reached(world, 9)
        assert await world.status(key, "shop") == 401
        # From now on it is the log it knows.
        held = await world.table.positions()
        assert held[TopicPartition(CONTEXTS, 0)] == 12


async def test_a_log_made_anew_behind_its_address_is_noticed_before_anything_is_applied() -> None:
    class Replaced:
        """A server before a log, and then before another."""

        def __init__(self, log: MemoryLog) -> None:
            self.log = log
            self.waiting = asyncio.Event()

        def __getattr__(self, name):
            return getattr(self.log, name)

        async def read(self, positions, **how):
            while True:
                entries = await self.log.read(positions, most=how["most"])
                if entries:
                    return entries
                self.waiting.set()
                await asyncio.sleep(0)

    key, later = a_key(), a_key()
    served = Replaced(await a_log(key_record(key, 1), canaries(1, 1.0)[0]))
    async with a_world(complete=False) as world:
        async with following(world, served) as task:
            await reached(world, 1)
            served.waiting.clear()
            await served.waiting.wait()
            assert await world.status(key) == 200
            records = [key_record(key, 5, revoked=True), key_record(later, 6), canaries(9, 1.0)[0]]
            served.log = await a_log(*records)
            with pytest.raises(UnreachableError, match="made anew"):
                await task
            assert world.table.knows.revision == 1
        async with following(world, served):
            await reached(world, 9)
        assert await world.status(key) == 401


async def test_a_region_of_an_earlier_release_has_no_contexts_yet() -> None:
    log = MemoryLog(SystemClock())
    async with a_world() as world:
        with pytest.raises(UnknownTopicError):
            await keep(world.table, log, BOTH, world.door.read)


def a_heart(world, clock, epoch: int = 7) -> GatewayHeart:
    states = {
        "contexts": WorkerState("contexts", "retrying", "disk full"),
        "heartbeat": WorkerState("heartbeat"),
    }
    return GatewayHeart(
        region="eu",
        gateway="one",
        epoch=epoch,
        table=world.table,
        door=world.door,
        ready=lambda: world.table.knows.complete,
        errors=lambda: world.decider.errors,
        address=lambda: "http://127.0.0.1:1",
        states=lambda: states,
        clock=clock,
        randomness=Randomness(1),
        period_seconds=2,
    )


async def next_beat(log: MemoryLog, number: int) -> GatewayBeat:
    (entry, *_) = await log.read({TopicPartition(GATEWAYS, 0): number}, wait_seconds=20)
    return msgspec.json.decode(from_entry(entry).value, type=GatewayBeat)


async def until_asleep(clock: ManualClock, sleepers: int) -> None:
    while clock.sleeping < sleepers:
        await asyncio.sleep(0)


async def test_a_beat_says_what_the_gateway_knows_and_comes_soon_after_it_knows_more() -> None:
    clock, log = ManualClock(), await a_log()
    async with a_world(key_record(a_key(), 1), clock=clock) as world:
        await world.table.apply([], {TopicPartition(CONTEXTS, 0): 4, TopicPartition(CONTEXTS_BULK, 0): 2})
        world.door.refuse("api_key/bad", "no signature")
        beating = asyncio.create_task(a_heart(world, clock).run(log))
        beat = await next_beat(log, 0)
        assert msgspec.structs.replace(beat, time="", instance="") == GatewayBeat(
            region="eu",
            gateway="one",
            time="",
            ready=True,
            epoch=1,
            revision=1,
            bulk_revision=1,
            age_seconds=0.0,
            rows=1,
            read={"contexts/0": 4, "contexts-bulk/0": 2},
            refused={"api_key/bad": "no signature"},
            refused_count=1,
            address="http://127.0.0.1:1",
            workers={"contexts": "retrying: disk full"},
        )
        await until_asleep(clock, 1)
        await world.complete(revision=5)
        await world.complete(revision=6)
        clock.advance(0.25)  # long before the period is over
        beat = await next_beat(log, 1)
        assert beat.revision == 6
        await until_asleep(clock, 1)
        clock.advance(0.25)
        await until_asleep(clock, 1)
        assert (await log.bounds(GATEWAYS))[0].end == 2
        clock.advance(3)  # nothing new, and the period is over
        assert (await next_beat(log, 2)).age_seconds == 3.5
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


async def test_a_table_that_cannot_be_read_is_told_of(tmp_path) -> None:
    class Broken(MemoryTable):
        async def count(self) -> int:
            raise OSError("rot")

    async with a_world(complete=False) as world:
        world.table.inner = Broken()
        beat = await a_heart(world, ManualClock()).now()
    assert (beat.ready, beat.rows, beat.read) == (False, 0, {})
    assert beat.age_seconds is None


def test_a_life_is_numbered_above_all_before_whatever_the_clock_says(tmp_path) -> None:
    numbers = [next_epoch(tmp_path, ManualClock(wall)) for wall in (9000.0, 5000.0, 5000.0, 9500.0)]
    assert numbers == [9000, 9001, 9002, 9500]
    (tmp_path / "incarnation").write_text("rot")
    assert next_epoch(tmp_path, ManualClock(9900.0)) == 9900


async def test_a_gateway_never_makes_the_regions_log(tmp_path) -> None:
    config = GatewayConfig(region="eu", log=tmp_path / "log.db", trusted_signers=["x"])
    with pytest.raises(UnreachableError, match="there is no log"):
        async with RegionLog(config, SystemClock(), Randomness(7)).opened():
            pass
    assert list(tmp_path.iterdir()) == []


async def test_the_second_of_two_gateways_of_one_name_says_and_answers_nothing_until_it_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, log = ManualClock(), await a_log()
    async with a_world(clock=clock) as world:
        first, second = a_heart(world, clock, epoch=7), a_heart(world, clock, epoch=8)
        answering = asyncio.create_task(second.alone(asyncio.Event().wait()))
        one = asyncio.create_task(first.run(log))
        await next_beat(log, 0)
        two = asyncio.create_task(second.run(log))
        assert (await next_beat(log, 1)).instance == second.instance

        async def until_refused() -> None:
            async with asyncio.timeout(20):
                while not two.done():
                    clock.advance(1)  # the first beats again, and the second hears it
                    await asyncio.sleep(0)
            with pytest.raises(ConflictError, match=r"called 'one', at http://127.0.0.1:1; give one"):
                await two

        await until_refused()
        with pytest.raises(ConflictError, match="called 'one'"):
            await answering
        with pytest.raises(ConflictError, match="called 'one'"):
            await second.alone(asyncio.Event().wait())
        end = (await log.bounds(GATEWAYS))[0].end
        two = asyncio.create_task(second.run(log))  # as a worker tries again: it listens first
        await until_refused()
        for number in range(end, (await log.bounds(GATEWAYS))[0].end):
            assert (await next_beat(log, number)).instance == first.instance
        assert not one.done()
        one.cancel()
        monkeypatch.setattr(heartbeat, "_LISTEN_SECONDS", 0.0)
        end = (await log.bounds(GATEWAYS))[0].end
        two = asyncio.create_task(second.run(log))
        assert (await next_beat(log, end)).instance == second.instance
        assert second.taken == ""
        two.cancel()
