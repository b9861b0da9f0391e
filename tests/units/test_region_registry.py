"""Who does what in a region, as its log tells it; what is the same for every registry is in `test_duties`."""

import asyncio
import contextlib

import pytest

from transom.logs.memory import MemoryLog
from transom.logs.protocol import Message
from transom.model.errors import FencedError, UnreachableError
from transom.region.registry import PROCESSES, LogRegistry, fence_of
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.duties import Alone, Duties, Lease, Member
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

CLOCK = SystemClock()


async def test_whoever_takes_a_duty_in_a_log_shuts_out_what_is_appended_for_it():
    log = MemoryLog(CLOCK)
    first, second = LogRegistry(log), LogRegistry(log)
    nobody = (await first.beat("a", Member("", 1), ["it"])).leases["it"]
    lease = await first.take(nobody, None, "a")
    assert lease is not None
    await first.confirm(lease)
    seen = (await second.beat("b", Member("", 1), ["it"])).leases["it"]
    assert seen == lease
    assert await second.take(nobody, None, "b") is None, "somebody has it since"
    assert await second.take(seen, 0, "b") is None, "who has it beats"
    await first.confirm(lease)
    taken = await second.take(seen, 1, "b")
    assert taken == Lease("it", "b", 2)
    end = (await log.bounds(PROCESSES.name))[0].end
    for attempt in (
        lambda: first.confirm(lease),
        lambda: log.append([Message(PROCESSES.name, b"x", b"")], fence=fence_of(lease)),
    ):
        with pytest.raises(FencedError):
            await attempt()
    await first.give_up(lease)
    assert (await log.bounds(PROCESSES.name))[0].end == end
    await second.give_up(taken)
    assert (await first.beat("a", Member("", 2), ["it"])).leases["it"].holder == ""


async def test_what_cannot_be_understood_in_the_log_hides_nobody():
    log = MemoryLog(CLOCK)
    registry = LogRegistry(log)
    await registry.beat("a", Member("", 1), [])
    for key in (b"process/b", b"duty/it", b"duty/", b"\xff", b"what"):
        await log.append([Message(PROCESSES.name, key, b"\xff{")])
    roster = await registry.beat("a", Member("", 2), ["it"])
    assert list(roster.members) == ["a"]
    assert roster.leases["it"].holder == ""


async def test_a_fence_that_was_taken_in_passing_is_taken_back_at_the_next_look():
    clock, log, runs = ManualClock(), MemoryLog(CLOCK), []
    async with workers(CLOCK, Randomness(1)) as group:
        duties = Duties(LogRegistry(log), group, clock, Randomness(2), "a")

        async def append(lease):
            runs.append(lease)
            while True:
                await log.append([Message(PROCESSES.name, b"x", b"")], fence=fence_of(lease))
                await asyncio.sleep(0)

        @contextlib.asynccontextmanager
        async def work(lease):
            held = duties.as_long_as_held(lease, lambda: append(lease))
            async with group.running("appends", lambda: held):
                yield

        await duties.begin({"it": work})
        await log.take_fence("region/it")
        while len(runs) == 1:
            await duties.look()
            await asyncio.sleep(0)
        assert [lease.token for lease in runs] == [1, 3]
        await duties.close()


async def test_where_nobody_else_can_be_all_is_taken_and_nothing_said():
    began = []

    @contextlib.asynccontextmanager
    async def work(lease):
        began.append(lease.duty)
        yield

    async with workers(CLOCK, Randomness(1)) as group:
        duties = Duties(Alone(), group, ManualClock(), Randomness(2), "a", "before")
        await duties.begin(dict.fromkeys(["x", "y", "z"], work))
        assert sorted(began) == ["x", "y", "z"]
        await duties.run()
        assert duties.describe()[0]["duties"] == ["x", "y", "z"]
        await duties.close()


async def test_a_log_that_is_away_at_the_beginning_ends_nobody(monkeypatch):
    log, began = MemoryLog(CLOCK), []
    registry = LogRegistry(log)

    @contextlib.asynccontextmanager
    async def work(lease):
        began.append(lease.duty)
        yield

    async def away(*_):
        raise UnreachableError("the log is away")

    async with workers(CLOCK, Randomness(1)) as group:
        duties = Duties(registry, group, ManualClock(), Randomness(2), "a")
        with monkeypatch.context() as patched:
            patched.setattr(registry, "beat", away)
            await duties.begin({"it": work})
        assert not began
        for event in await duties.look():
            await event.wait()
        assert began == ["it"]
        await duties.close()
