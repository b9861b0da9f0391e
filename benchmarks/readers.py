"""A reader of a region's desired state, as any service of the region is: its log, and a table of its own."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from benchmarks.plant import Plant
from transom.logs.opening import LogPlace, open_log
from transom.logs.protocol import Log
from transom.logs.sqlite import SqliteLog
from transom.runtime.clock import Clock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers
from transom.tables.keeper import keep
from transom.tables.sqlite import SqliteTable


async def until_in(table: SqliteTable, key: str, version: str) -> None:
    """Wait until `table` has `key` with this app version."""
    mark = f'"version":"{version}"'.encode()
    while True:
        seen = table.changed.value
        record = await table.get(key)
        if record is not None and mark in record.value:
            return
        await table.changed.above(seen)


@contextlib.asynccontextmanager
async def region_tables(plant: Plant, folder: Path) -> AsyncGenerator[dict[str, SqliteTable]]:
    """A table for each region of a running plant, kept by this process from the region's own log."""
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        tables: dict[str, SqliteTable] = {}
        logs: dict[str, Log] = {}
        for name in plant.regions:
            logs[name] = await _log_of(plant, name, clock)
            stack.push_async_callback(logs[name].close)
            tables[name] = await SqliteTable.open(folder / f"reader-{name}.db")
            stack.push_async_callback(tables[name].close)
        group = await stack.enter_async_context(workers(clock, Randomness()))
        for name, table in tables.items():
            group.start(name, lambda table=table, name=name: keep(table, logs[name], ["desired"]))
        yield tables


async def _log_of(plant: Plant, name: str, clock: Clock) -> Log:
    if plant.engines is not None:
        return await open_log(LogPlace(plant.engines.logs[name]), clock, Randomness())
    return await SqliteLog.open(plant.regions[name].folder / "data" / "log.db", clock)
