"""One change for a hundred regions: how long until the last of them refuses the key.

The hub is a real one, a process of its own. The regions are simulated: one process, this one, has a log
server, a log in memory and a gateway's table for each of them, with the gateway's own door (every seal is
checked), its beats, and its answers to sweeps; their clients and disks are left out. So a hundred regions
share one core here, and the hub has the other. Each change is a PATCH of one ApiKey that every region has;
time runs from the hub's answer until the last table has told its caches.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from statistics import median

import psutil
import uvloop

from benchmarks.plant import REGION, Plant, manifest
from benchmarks.report import figure, note, percentile
from benchmarks.revocation import TENANT, declare_keys
from transom.catalog.api_key.kind import API_KEY
from transom.catalog.contexts import shipped_contexts
from transom.client.hub import HubClient
from transom.logs.memory import MemoryLog
from transom.logs.server import log_server
from transom.model.api_keys import hash_of, new_api_key
from transom.model.records import Record
from transom.model.roads import CONTEXTS, CONTEXTS_BULK, context_table
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.heartbeat import GatewayHeart
from transom.region.topics import LINK_RIGHTS, TOPICS
from transom.runtime.clock import SystemClock
from transom.runtime.http import serve
from transom.runtime.randomness import Randomness, choose_secret
from transom.runtime.secret_files import ensure_secret, hash_secret
from transom.runtime.signals import Level
from transom.runtime.signing import Trust, ensure_signing_key
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable
from transom.tables.seals import Seals
from transom.tables.sweeps import answer_sweeps

_REGIONS = 100
_CHANGES = 60
_PAUSE_SECONDS = 0.3
_IDLE_SECONDS = 6.0
_GATEWAY = "one"
CLOCK = SystemClock()


class Simulated:
    """One region: its log, and what its gateway knows. `seen` are the keys that it was told are revoked."""

    def __init__(self, name: str, signer: str) -> None:
        self.name = name
        self.log = MemoryLog(CLOCK)
        self.door = Door(Seals(name, Trust([signer])), shipped_contexts())
        self.refused: dict[str, float] = {}
        self.changed = Level()

    async def run(self, key: str, ready: asyncio.Future[int]) -> None:
        """Serve the log with this link key, and keep the table."""
        await self.log.create(TOPICS)
        table = await ContextTable.open(MemoryTable(), self.door, CLOCK, 1_000_000)
        table.listen(self._told)
        self.table = table
        heart = GatewayHeart(
            region=self.name,
            gateway=_GATEWAY,
            epoch=1,
            table=table,
            door=self.door,
            ready=lambda: table.knows.complete,
            errors=lambda: 0,
            address=str,
            states=dict,
            clock=CLOCK,
            randomness=Randomness(),
            period_seconds=2.0,
        )
        app = log_server(self.log, {"link": hash_secret(key)}, {"link": LINK_RIGHTS})
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(app, "127.0.0.1", 0, ready=ready.set_result))
            group.create_task(keep(table, self.log, (CONTEXTS, CONTEXTS_BULK), self.door.read))
            group.create_task(answer_sweeps(context_table(_GATEWAY), table, self.log))
            group.create_task(heart.run(self.log))

    def _told(self, records: Sequence[Record]) -> None:
        now = time.perf_counter()
        for record in records:
            if b'"revoked":true' in record.value:
                self.refused.setdefault(record.key, now)
        self.changed.rise()

    async def until_refused(self, key: str) -> float:
        """When the key was refused."""
        while key not in self.refused:
            await self.changed.above(self.changed.value)
        return self.refused[key]


@contextlib.asynccontextmanager
async def simulated(plant: Plant, count: int) -> AsyncGenerator[tuple[list[Simulated], dict[str, int]]]:
    """So many regions, running, and their ports."""
    signer = ensure_signing_key(plant.hub.folder / "signing.key").public_text
    regions = [Simulated(f"region-{number}", signer) for number in range(count)]
    ports: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        for region in regions:
            key = ensure_secret(plant.hub.folder / "link-keys" / f"{region.name}.key")
            ready: asyncio.Future[int] = loop.create_future()
            tasks.append(group.create_task(region.run(key, ready)))
            ports[region.name] = await ready
        yield regions, ports
        for task in tasks:
            task.cancel()


async def main(count: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="transom-") as name:
        plant = Plant(Path(name), [], {}, 'log_level = "warning"')
        async with simulated(plant, count) as (regions, ports), plant.running() as hub:
            for region, port in ports.items():
                spec = {"log": f"http://127.0.0.1:{port}"}
                await hub.apply(REGION, manifest("Region", {"name": region}, spec))
            keys = [new_api_key(choose_secret) for _ in range(_CHANGES)]
            newest = await declare_keys(hub, keys)
            await _until_known(regions, newest)
            spent, passed = _hub_seconds(plant), time.perf_counter()
            times = [await _revoke(hub, number, key, regions) for number, key in enumerate(keys)]
            spent, passed = _hub_seconds(plant) - spent, time.perf_counter() - passed
            await asyncio.sleep(_IDLE_SECONDS)
            idle, began = _hub_seconds(plant), time.perf_counter()
            await asyncio.sleep(_IDLE_SECONDS)
            idle = (_hub_seconds(plant) - idle) / (time.perf_counter() - began)
    figure("one_change_to_100_regions_p50", median(times), "ms", target="<= 300")
    note("one_change_to_100_regions_p90", percentile(times, 90), "ms")
    note("one_change_to_100_regions_most", max(times), "ms")
    note("one_change_to_100_regions_hub_cpu", 1000 * (spent - idle * passed) / len(times), "ms")
    note("idle_hub_of_100_regions", 100 * idle, "% of a core")


def _hub_seconds(plant: Plant) -> float:
    return sum(psutil.Process(plant.hub.process.pid).cpu_times()[:2]) if plant.hub.process else 0.0


async def _until_known(regions: Sequence[Simulated], revision: int) -> None:
    async with asyncio.timeout(300):
        for region in regions:
            table = region.table
            while not (table.knows.complete and table.knows.revision >= revision):
                await table.moved.above(table.moved.value)


async def _revoke(hub: HubClient, number: int, key: str, regions: Sequence[Simulated]) -> float:
    """Milliseconds until every region refuses the key."""
    await hub.patch(API_KEY, f"key-{number}", {"spec": {"revoked": True}}, TENANT)
    committed = time.perf_counter()
    name = f"api_key/{hash_of(key.encode()).hex()}"
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(region.until_refused(name)) for region in regions]
    await asyncio.sleep(_PAUSE_SECONDS)
    return 1000 * (max(task.result() for task in waiting) - committed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--regions", type=int, default=_REGIONS)
    uvloop.run(main(parser.parse_args().regions))
