"""transom's mirror and MirrorMaker 2 behind one interface, so that both go through the same measurements.

Every run gets names of its own: it mirrors from the beginning, into topics of its own, between the same
brokers. Next on the data's way: `mirror.py`.
"""

import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.mirror_load import Wire, wire
from engines.kafka import Brokers
from engines.mirrormaker import MirrorMaker
from engines.process import GuardedProcess

_HEAP_MEBIBYTES = 512
_DRAIN_SECONDS = 300.0
_LOOK_SECONDS = 0.01
_runs = itertools.count(1)


class Clusters(NamedTuple):
    """The two brokers, and requests to each."""

    source: Brokers
    target: Brokers
    at_source: Wire
    at_target: Wire


@asynccontextmanager
async def clusters() -> AsyncGenerator[Clusters]:
    """Two empty clusters of one broker."""
    async with (
        Brokers(heap_mebibytes=_HEAP_MEBIBYTES) as source,
        Brokers(heap_mebibytes=_HEAP_MEBIBYTES) as target,
        wire(source.bootstrap) as at_source,
        wire(target.bootstrap) as at_target,
    ):
        yield Clusters(source, target, at_source, at_target)


class Side(NamedTuple):
    """A mirror that runs: its process, and what its copies are called."""

    process: GuardedProcess
    prefix: str

    def copy(self, topic: str) -> str:
        """The name of a topic's copy."""
        return f"{self.prefix}.{topic}"


Starter = Callable[..., AbstractAsyncContextManager[Side]]
"""Mirrors the topics whose names match an expression, from one cluster (bootstrap) to another; `settings` are
MirrorMaker's.
"""


@asynccontextmanager
async def mirrormaker(
    source: str, target: str, topics: str, settings: Mapping[str, str | int] | None = None
) -> AsyncGenerator[Side]:
    """MirrorMaker 2, with `settings` over those of `engines/mirrormaker.py`."""
    run = next(_runs)
    async with MirrorMaker(f"mm{run}", source, f"us{run}", target, topics, settings=settings) as running:
        yield Side(running.process, f"mm{run}")


@asynccontextmanager
async def transom(
    source: str, target: str, topics: str, settings: Mapping[str, str | int] | None = None
) -> AsyncGenerator[Side]:
    """Our mirror, as `transom mirror -c mirror.toml` runs it; it needs no settings."""
    del settings
    name = f"eu{next(_runs)}"
    home = Path(tempfile.mkdtemp(prefix="transom-mirror-"))
    process = GuardedProcess("transom's mirror", home / "mirror.log", home=home)
    config = home / "mirror.toml"
    config.write_text(
        f'name = "{name}"\nlisten = ""\nlog_level = "warning"\n'
        f'[source]\nname = "{name}"\naddress = "kafka://{source}"\n'
        f'[target]\nname = "us"\naddress = "kafka://{target}"\n'
        f'[topics]\ninclude = ["{topics}"]\n',
        encoding="utf-8",
    )
    try:
        process.launch([sys.executable, "-m", "transom", "mirror", "-c", str(config)])
        yield Side(process, name)
    finally:
        await asyncio.to_thread(process.kill)
        process.close()
        shutil.rmtree(home, ignore_errors=True)


class Moment(NamedTuple):
    """When so many records were readable at the target, and what the processes had spent by then."""

    records: int
    at_seconds: float
    cpu_seconds: float
    brokers_cpu_seconds: float
    memory_bytes: int
    """The most that the mirror held since it began."""


async def passing(
    side: Side, target: Wire, topic: str, marks: list[int], others: list[GuardedProcess]
) -> list[Moment]:
    """The moments at which the copy of `topic` first had at least each of these numbers of records.

    Raises `EngineError` when the mirror ends, `TimeoutError` when it takes too long.
    """
    found: list[Moment] = []
    most = 0
    async with asyncio.timeout(_DRAIN_SECONDS):
        for mark in marks:
            while (records := await target.end(side.copy(topic)) or 0) < mark:
                if not side.process.is_running():
                    raise side.process.failed("ended")
                most = max(most, side.process.memory_bytes())
                await asyncio.sleep(_LOOK_SECONDS)
            cpu, brokers = side.process.cpu_seconds(), sum(each.cpu_seconds() for each in others)
            found.append(Moment(records, time.perf_counter(), cpu, brokers, most))
    return found
