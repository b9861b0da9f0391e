"""What a region says of itself, and that a newer word always counts more than an older one."""

import asyncio
import contextlib
import re

import msgspec

from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry
from transom.model.records import Record
from transom.model.roads import DESIRED, HEARTBEATS, STATUS
from transom.model.version import Version
from transom.region.heartbeat import Heartbeat
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import WorkerState
from transom.tables.memory import MemoryTable


async def beats(log: MemoryLog, clock: ManualClock, table: MemoryTable, count: int) -> list[Record]:
    """The next `count` heartbeats of a region whose process starts now."""
    states = {
        "agent a": WorkerState("agent a"),
        "heartbeat": WorkerState("heartbeat", "retrying", "disk full"),
    }
    heartbeat = Heartbeat("eu", log, table, lambda: states, clock, Randomness(1), period_seconds=2)
    (bounds,) = (await log.bounds(HEARTBEATS)).values()
    task = asyncio.create_task(heartbeat.run())
    found: list[Record] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            at = {TopicPartition(HEARTBEATS, 0): bounds.end + len(found)}
            found.extend(from_entry(entry) for entry in await log.read(at, wait_seconds=20))
            clock.advance(3)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return found[:count]


async def test_a_heartbeat_says_what_the_region_knows_and_what_ails() -> None:
    clock, table = ManualClock(), MemoryTable()
    log = MemoryLog(clock)
    await log.create(TOPICS)
    marker = Record("RegionalDeployment/acme/shop", Version(1, 7, "hub"), b"{}", deleted=True)
    await table.apply([marker], {TopicPartition(DESIRED, 0): 12, TopicPartition(STATUS, 0): 5})
    (beat,) = await beats(log, clock, table, 1)
    assert beat.key == "eu"
    said = msgspec.json.decode(beat.value)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", said.pop("time"))
    assert said == {
        "region": "eu",
        "desired": {"0": 12},
        "version": "1.7.hub",
        "workers": {"heartbeat": "retrying: disk full"},
    }


async def test_heartbeats_are_newer_than_all_before_whatever_the_clock_says() -> None:
    log = MemoryLog(ManualClock())
    await log.create(TOPICS)
    first = await beats(log, ManualClock(wall=9000.0), MemoryTable(), 3)
    second = await beats(log, ManualClock(wall=5000.0), MemoryTable(), 2)  # the clock was set back
    versions = [record.version for record in (*first, *second)]
    assert versions == sorted(set(versions))
    assert versions[0] == Version(9000, 1, "eu")
