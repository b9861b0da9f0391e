"""What hub, regions and gateways cost while nothing happens, with a few things declared."""

import asyncio
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from benchmarks.plant import Plant
from benchmarks.report import figure, note
from benchmarks.throughput import REGIONS, declare
from transom.processes.up_files import Engines

_SETTLE_SECONDS = 5.0
_WATCH_SECONDS = 30.0


async def main() -> None:
    """Print the figures of the process that costs most."""
    shares, sizes, gateways = await measure()
    figure("idle_processor_most", max(shares), "% of a core", target="<= 2", runs=shares)
    figure("idle_memory_most", max(sizes), "MiB", target="<= 110", runs=sizes)
    note("idle_processor_hub", shares[0], "% of a core")
    note("idle_processor_gateway", max(shares[-gateways:]), "% of a core", runs=shares[-gateways:])
    note("idle_memory_gateway", max(sizes[-gateways:]), "MiB", runs=sizes[-gateways:])


async def measure(engines: Engines | None = None) -> tuple[list[float], list[float], int]:
    """Processor (percent of a core) and memory (MiB) of the hub, the regions and, last, so many gateways."""
    with tempfile.TemporaryDirectory(prefix="transom-") as folder:
        quiet = 'log_level = "warning"'
        plant = Plant(Path(folder), REGIONS, {"a": "null"}, quiet, gateways="", engines=engines)
        async with plant.running() as hub:
            await declare(hub, 10)
            await asyncio.sleep(_SETTLE_SECONDS)
            processes = [psutil.Process(part.process.pid) for part in plant.parts if part.process]
            before = [sum(process.cpu_times()[:2]) for process in processes]
            began = time.perf_counter()
            await asyncio.sleep(_WATCH_SECONDS)
            passed = time.perf_counter() - began
            shares = [
                100 * (sum(process.cpu_times()[:2]) - spent) / passed
                for process, spent in zip(processes, before, strict=True)
            ]
            sizes = [process.memory_info().rss / 2**20 for process in processes]
    return shares, sizes, len(plant.gateways)


if __name__ == "__main__":
    uvloop.run(main())
