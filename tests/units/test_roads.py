"""What the hub can say of its roads: does the region answer, and how old is what it knows (invariant 4)."""

import asyncio
import contextlib

import msgspec
import pytest

from hub_parts import deployment, hub_log, open_store, put, zone_status
from transom.catalog.deployment.controller import DeploymentController
from transom.client.waiting import lacking
from transom.hub.controllers import ControllerRunner
from transom.hub.roads import Roads
from transom.hub.silence import Silence
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Topic
from transom.logs.records import to_message
from transom.model.errors import UnreachableError
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import DESIRED, HEARTBEATS, STATUS, Heartbeat
from transom.model.version import Version
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers
from transom.tables.sweeps import DIGESTS, SWEEPS

BEGIN = 1_700_000_000.0


class Line:
    """The way to a region's log, which can be cut."""

    def __init__(self, log):
        self._log = log
        self.cut = False

    @property
    def trouble(self) -> str:
        return ""

    def __getattr__(self, name):
        if self.cut:
            raise UnreachableError("nobody answers")
        return getattr(self._log, name)


class World:
    """A hub whose one region says what a test says that it says."""

    def __init__(self, store, roads, line, region_log, clock):
        self.store, self.roads, self.line, self.clock = store, roads, line, clock
        self._region_log = region_log
        self._beats = 0

    async def declare(self, name):
        """A Deployment, and what the hub makes of it; returns once the region's topic has it."""
        await self.store.write(put(deployment(name, regions=["eu"])))
        await self._controller().look_at([deployment(name).key])
        async with asyncio.timeout(20):
            while self.roads.publisher.state.revision < self.store.changed.value:
                await asyncio.sleep(0)
        return (await self._region_log.bounds(DESIRED))[0].end

    def _controller(self):
        return ControllerRunner(
            DeploymentController(), self.store, MemoryLog(self.clock), self.clock, Randomness(1)
        )

    async def beat(self, read, seconds_ago=0):
        """The region says, or said a while ago, that it has read up to `read`; the report after that."""
        self._beats += 1
        said = Heartbeat("eu", f"beat {self._beats}", {"0": read})
        record = Record("eu", Version(1, self._beats, "eu"), to_json(said))
        said_at_ms = int((self.clock.wall() - seconds_ago) * 1000)
        message = msgspec.structs.replace(to_message(HEARTBEATS, record), timestamp_ms=said_at_ms)
        await self._region_log.append([message])
        async with asyncio.timeout(20):
            while (await self.roads.report()).last_heard != said.time:
                await asyncio.sleep(0)
        return await self.roads.report()


@pytest.fixture
async def world(tmp_path):
    clock = ManualClock(wall=BEGIN)
    region_log = MemoryLog(clock)
    topics = [Topic(name, compact=True) for name in (DESIRED, STATUS, HEARTBEATS)]
    await region_log.create([*topics, SWEEPS, DIGESTS])
    line = Line(region_log)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(tmp_path))
        group = await stack.enter_async_context(workers(clock, Randomness(1)))
        roads = Roads("eu", "production", store, await hub_log(), line, clock, Randomness(1), 1e6)
        await roads.open()
        roads.start(group)
        yield World(store, roads, line, region_log, clock)


async def test_how_old_a_region_s_knowledge_is_counts_from_when_it_had_read_all(world):
    assert (await world.roads.report()).knows_age_seconds is None
    end = await world.declare("shop")
    behind = await world.beat(end - 1)
    assert (behind.down_lag, behind.knows_age_seconds) == (1, None)

    world.clock.advance(5)
    level = await world.beat(end, seconds_ago=2)
    assert (level.reachable, level.down_lag, level.knows_age_seconds) == (True, 0, 2.0)

    world.clock.advance(5)
    newer = await world.declare("another")
    assert newer > end
    behind = await world.beat(end)
    assert (behind.down_lag, behind.knows_age_seconds) == (newer - end, 7.0)


async def test_of_a_region_that_does_not_answer_the_age_can_still_be_read(world):
    end = await world.declare("shop")
    await world.beat(end)
    world.line.cut = True
    world.clock.advance(60)
    report = await world.roads.report()
    assert (report.reachable, report.up_lag, report.knows_age_seconds) == (False, None, 60.0)


async def test_a_beat_that_cannot_be_read_ends_nothing(world):
    record = Record("eu", Version(1, 1, "eu"), b"rot")
    await world._region_log.append([to_message(HEARTBEATS, record)])
    world._beats = 1
    assert (await world.beat(0)).last_heard == "beat 2"


async def test_a_beat_that_was_sent_before_the_hub_wrote_makes_nobody_know_more(world):
    """What the store has and the publisher has not yet passed on is missing in the region."""
    end = await world.declare("shop")
    await world.beat(end)
    world.clock.advance(9)
    world.roads.publisher.state.revision -= 1  # as in the moment between a commit and its publication
    assert (await world.beat(end)).knows_age_seconds == 9.0


async def test_what_a_silent_region_said_last_is_unknown_until_it_is_heard_again(world):
    await world.declare("shop")
    regional, whole = Key("RegionalDeployment", "acme", "shop.eu"), Key("Deployment", "acme", "shop")
    end = (await world._region_log.bounds(DESIRED))[0].end
    await world.beat(end)

    async def ready(key, status):
        """Wait until its condition Ready has this status, as time passes; returns the condition."""
        async with asyncio.timeout(20):
            while True:
                await world._controller().look_at([whole])
                held = (await world.store.get(key)).condition("Ready")
                if held is not None and held.status == status:
                    return held
                await asyncio.sleep(0.001)

    said = zone_status(await world.store.get(regional))
    await world._region_log.append(
        [to_message(STATUS, Record(f"{regional}@a", Version(1, 1, "eu/a"), to_json(said)))]
    )
    await ready(whole, "True")
    for _ in range(7):
        world.clock.advance(2)
        await asyncio.sleep(0)
    assert "region" not in (await world.roads.report()).problems
    for _ in range(2):
        world.clock.advance(2)
        await asyncio.sleep(0)
    assert (await ready(regional, "Unknown")).reason == "RegionSilent"
    told = await ready(whole, "Unknown")
    assert (told.reason, "region 'eu' is not heard of" in told.message) == ("RegionSilent", True)
    assert lacking(await world.store.get(whole), "Ready", "True").startswith("Ready is Unknown (RegionSilent")
    assert "not heard of for" in (await world.roads.report()).problems["region"]
    before = world.store.changed.value
    assert await world.roads.silence.tell(silent=True) == 0
    assert world.store.changed.value == before, "said once"
    await world.beat(end)
    world.clock.advance(2)
    await ready(regional, "True")
    await ready(whole, "True")
    assert "region" not in (await world.roads.report()).problems


async def test_a_hub_that_stood_still_calls_nobody_silent(world):
    await world.beat(0)
    await asyncio.sleep(0)
    world.clock.advance(3600)  # nobody listened meanwhile
    async with asyncio.timeout(20):
        while world.roads.silence.seconds > 0:
            await asyncio.sleep(0.001)
    assert not world.roads.silence.is_silent


def test_a_region_that_beats_seldom_is_given_time():
    clock = ManualClock()
    silence = Silence(None, "eu", clock)
    silence.hear(clock.monotonic())
    clock.advance(60)
    assert silence.is_silent
    silence.hear(clock.monotonic())
    clock.advance(179)
    assert not silence.is_silent
    clock.advance(1)
    assert silence.is_silent
