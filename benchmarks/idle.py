"""What the processes cost while nothing happens, with a few things declared: processor and memory of each."""

import asyncio
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from benchmarks.plant import Plant
from benchmarks.report import figure
from benchmarks.throughput import REGIONS, declare

_SETTLE_SECONDS = 5.0
_WATCH_SECONDS = 30.0


async def main() -> None:
    """Print the figures of the process that costs most."""
    with tempfile.TemporaryDirectory(prefix="transom-") as folder:
        plant = Plant(Path(folder), REGIONS, {"a": "null"}, 'log_level = "warning"')
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
    figure("idle_processor_most", max(shares), "% of a core", target="<= 2", runs=shares)
    figure("idle_memory_most", max(sizes), "MiB", target="<= 110", runs=sizes)


if __name__ == "__main__":
    uvloop.run(main())
