"""A reader of a region's desired state, as any service of the region is: its log, and a table of its own."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from benchmarks.plant import Part, Plant
from transom.logs.sqlite import SqliteLog
from transom.runtime.clock import SystemClock
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
        logs: dict[str, SqliteLog] = {}
        for name, part in plant.regions.items():
            logs[name] = await SqliteLog.open(_log_of(part), clock)
            stack.push_async_callback(logs[name].close)
            tables[name] = await SqliteTable.open(folder / f"reader-{name}.db")
            stack.push_async_callback(tables[name].close)
        group = await stack.enter_async_context(workers(clock, Randomness()))
        for name, table in tables.items():
            group.start(name, lambda table=table, name=name: keep(table, logs[name], ["desired"]))
        yield tables


def _log_of(part: Part) -> Path:
    return part.folder / "data" / "log.db"
