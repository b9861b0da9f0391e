"""How long a change takes from the hub to where it is used, and what it costs among few and among many.

Each change is a PATCH of one Deployment over HTTP. Time runs from the hub's answer (the change is committed)
to the moment when the tables of three regions have it; on the way lie the relay, the controller's own write,
the publisher and the regions' logs. The cost is the processor time of the hub and the regions for one change,
less what they use in that time when nothing changes: once a minute each region's agent looks at all it has,
which takes it a hundred times as long among a hundred times as many, whether anything is changed or not. The
figure with that is printed, too.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import uvloop

from benchmarks.plant import DEPLOYMENT, Plant
from benchmarks.readers import region_tables, until_in
from benchmarks.report import figure, note, percentile
from benchmarks.throughput import declare
from transom.client.hub import HubClient
from transom.processes.up_files import Engines
from transom.tables.sqlite import SqliteTable

REGIONS = ("ap", "eu", "us")
_CHANGES = 200
_PAUSE_SECONDS = 0.15  # until what the change set off has come to rest
_A_MINUTE_SECONDS = 70.0  # what is done once a minute is done in it
_FEW_IDLE_SECONDS = 10.0  # among few, what is done once a minute is next to nothing


class Cost(NamedTuple):
    """Processor time (ms) of a change, and with what runs anyway in the time that it is given."""

    net: float
    gross: float


async def main() -> None:
    """Print the figures."""
    measured = [await measure(100) for _ in range(3)]
    halves = [percentile(latencies, 50) for latencies, _ in measured]
    tails = [percentile(latencies, 99) for latencies, _ in measured]
    few = Cost(*(median(part) for part in zip(*(cost for _, cost in measured), strict=True)))
    figure("commit_to_three_tables_p50", median(halves), "ms", target="<= 15", runs=halves)
    figure("commit_to_three_tables_p99", median(tails), "ms", target="<= 50", runs=tails)
    _, many = await measure(10_000, idle_seconds=_A_MINUTE_SECONDS)
    ratio = many.net / few.net
    figure("cost_of_a_change_among_10000_over_100", ratio, "", target="<= 1.2", runs=[many.net, few.net])
    note("the_same_with_what_runs_anyway", many.gross / few.gross, "", runs=[many.gross, few.gross])


async def measure(
    count: int, idle_seconds: float = _FEW_IDLE_SECONDS, engines: Engines | None = None
) -> tuple[list[float], Cost]:
    """Latencies (ms) of changes among `count` Deployments, and the cost of one of them."""
    with tempfile.TemporaryDirectory(prefix="transom-") as name:
        folder = Path(name)
        plant = Plant(folder, REGIONS, {"a": "null"}, 'log_level = "warning"', engines=engines)
        async with plant.running() as hub:
            await declare(hub, count)
            async with region_tables(plant, folder) as tables:
                await _change(hub, tables, count, 20)
                before = _processor_seconds(plant)
                await asyncio.sleep(idle_seconds)
                idle_share = (_processor_seconds(plant) - before) / idle_seconds
                before, began = _processor_seconds(plant), time.perf_counter()
                latencies = await _change(hub, tables, count, _CHANGES)
                took = time.perf_counter() - began
                spent = _processor_seconds(plant) - before
    return latencies, Cost(1000 * (spent - idle_share * took) / _CHANGES, 1000 * spent / _CHANGES)


async def _change(hub: HubClient, tables: dict[str, SqliteTable], count: int, changes: int) -> list[float]:
    latencies: list[float] = []
    for number in range(changes):
        app = f"app{number * 37 % count}"
        version = f"{changes}-{number}"
        await hub.patch(DEPLOYMENT, app, {"spec": {"version": version}}, "acme")
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for region, table in tables.items():
                group.create_task(until_in(table, f"RegionalDeployment/acme/{app}.{region}", version))
        latencies.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(_PAUSE_SECONDS)
    return latencies


def _processor_seconds(plant: Plant) -> float:
    processes = [psutil.Process(part.process.pid) for part in plant.parts if part.process]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    uvloop.run(main())
