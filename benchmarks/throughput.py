"""How many Deployments a second go all the way: created, fanned out to three regions, reported, folded.

A driver that does nothing stands for the machines, so the figure is the control plane's own. Time runs from
the first create to the last status folded. A Deployment is four resources and about nine writes.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.plant import DEPLOYMENT, Plant, deployment
from benchmarks.report import figure
from transom.client.hub import HubClient
from transom.processes.up_files import Engines

REGIONS = ("ap", "eu", "us")
_CLIENTS = 16


async def main() -> None:
    """Print the figures."""
    small = [await seconds(1000) for _ in range(3)]
    middle = median(small)
    figure("deployments_a_second", 1000 / middle, "1/s", target=">= 150", runs=[1000 / s for s in small])
    large = await seconds(10_000)
    figure("time_of_10000_over_1000", large / middle, "", target="<= 11", runs=[large, middle])


async def seconds(count: int, engines: Engines | None = None) -> float:
    """From the first create of `count` Deployments to the last that is ready."""
    with tempfile.TemporaryDirectory(prefix="transom-") as folder:
        plant = Plant(Path(folder), REGIONS, {"a": "null"}, 'log_level = "warning"', engines=engines)
        async with plant.running() as hub:
            began = time.perf_counter()
            await declare(hub, count)
            return time.perf_counter() - began


async def declare(hub: HubClient, count: int) -> None:
    """Create so many Deployments, by a few clients at once, and wait until all are ready."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_all_ready(hub, count))
        numbers = iter(range(count))
        for _ in range(_CLIENTS):
            group.create_task(_create(hub, numbers))


async def _create(hub: HubClient, numbers: Iterator[int]) -> None:
    for number in numbers:
        await hub.create(DEPLOYMENT, deployment(f"app{number}", REGIONS), "acme")


async def _all_ready(hub: HubClient, count: int) -> None:
    """Wait until so many Deployments are ready, by watching them."""
    ready: set[str] = set()
    async for event in hub.watch(DEPLOYMENT, "acme"):
        condition = event.object.condition("Ready")
        if condition is not None and condition.status == "True":
            ready.add(event.object.metadata.name)
        if len(ready) == count:
            return


if __name__ == "__main__":
    uvloop.run(main())
