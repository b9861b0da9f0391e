"""What each duty of a region is: the agent of a zone, and speaking for the region.

One process at a time does each (`runtime.duties`). Each has a table of what is desired and can take over;
what a driver runs is left running when its agent goes, and found again by the next one that looks in the
same folder (invariant 5). Next on the data's way: `agent`, `heartbeat`.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transom.logs.protocol import Fence, Log
from transom.model.roads import DESIRED_TABLE
from transom.region.agent import Agent
from transom.region.config import RegionConfig, ZoneConfig
from transom.region.desired import DesiredTable
from transom.region.driver import Driver
from transom.region.drivers.null import NullDriver
from transom.region.drivers.process import ProcessDriver
from transom.region.heartbeat import Heartbeat
from transom.region.making import Maker, Workshop
from transom.region.planning import Place, Planner
from transom.region.registry import fence_of
from transom.region.reports import Reports
from transom.runtime.clock import Clock
from transom.runtime.duties import Duties, Lease, Work
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import ensure_secret, hash_secret
from transom.tables.sqlite import SqliteTable
from transom.tables.sweeps import answer_sweeps


@dataclass
class Works:
    """The duties of a region, over its log and its table of what is desired."""

    config: RegionConfig
    log: Log
    desired: DesiredTable
    planners: Mapping[str, Planner]
    makers: Mapping[str, Maker]
    duties: Duties
    clock: Clock
    randomness: Randomness

    def by_duty(self) -> Mapping[str, Work]:
        """What to do for each duty, by its name."""
        agents = {f"zone/{zone.name}": partial(self.zone, zone) for zone in self.config.zones}
        return {"region": self.region, **agents}

    @contextlib.asynccontextmanager
    async def region(self, lease: Lease) -> AsyncGenerator[None]:
        """The region beats, and answers what it is asked, inside the block."""
        workers, fence = self.duties.workers, self._fence(lease)
        heartbeat = Heartbeat(
            self.config.name,
            self.log,
            self.desired,
            lambda: workers.states,
            self.clock,
            self.randomness,
            self.config.heartbeat_seconds,
            fence,
        )
        answering = partial(answer_sweeps, DESIRED_TABLE, self.desired, self.log, fence)
        held = partial(self.duties.as_long_as_held, lease)
        async with (
            workers.running("sweep answers", partial(held, answering)),
            workers.running("heartbeat", partial(held, heartbeat.run)),
        ):
            yield

    @contextlib.asynccontextmanager
    async def zone(self, zone: ZoneConfig, lease: Lease) -> AsyncGenerator[None]:
        """The zone has its agent inside the block."""
        place, data = Place(self.config.name, zone.name), self.config.data
        async with contextlib.AsyncExitStack() as stack:
            folder = workloads(self.config) / zone.name
            driver = await stack.enter_async_context(open_driver(zone, folder, self.clock, self.randomness))
            memory = await SqliteTable.open(data / f"reports-{zone.name}.db")
            stack.push_async_callback(memory.close)
            # Beside the folders of the zone's processes; the name of a zone has no dot.
            made = workloads(self.config) / f"{zone.name}.made"
            workshop = await stack.enter_async_context(Workshop.open(place, self.makers, made, self.clock))
            inbox = self.desired.inbox()
            stack.callback(self.desired.close_inbox, inbox)
            agent = Agent(
                place,
                self.desired,
                inbox,
                driver,
                await Reports.open(place, memory, self.log, self.clock, self._fence(lease)),
                self.planners,
                self.clock,
                self.randomness,
                workshop,
            )
            run = partial(self.duties.as_long_as_held, lease, agent.run)
            await stack.enter_async_context(self.duties.workers.running(f"agent {zone.name}", run))
            yield

    def _fence(self, lease: Lease) -> Fence | None:
        return fence_of(lease) if self.duties.registry.is_shared else None


@contextlib.asynccontextmanager
async def open_driver(
    zone: ZoneConfig, folder: Path, clock: Clock, randomness: Randomness
) -> AsyncGenerator[Driver]:
    """The zone's driver; what it runs has its folders in `folder`."""
    if zone.driver == "null":
        async with NullDriver.open(clock) as null:
            yield null
        return
    async with ProcessDriver.open(folder, clock, randomness) as process:
        yield process


def workloads(config: RegionConfig) -> Path:
    """Where a region's processes have their folders; see `drivers.process.stop_everything`."""
    return config.workloads or config.data / "workloads"


def alike_in(config: RegionConfig) -> dict[str, str]:
    """What processes of one region must have in common: the folder of each zone's processes, without which
    whoever takes a zone over would start everything a second time.
    """
    folder = hash_secret(ensure_secret(workloads(config) / "folder.id"))
    return {f"workloads of zone {zone.name}": folder for zone in config.zones if zone.driver == "process"}
