"""The two ends of a link, and a source of rows, as tests drive them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

from transom.links.source import Changes
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.sqlite import SqliteLog
from transom.model.errors import UnreachableError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.clock import SystemClock
from transom.runtime.signals import Level

CLOCK = SystemClock()


class MemorySource:
    """`links.source.Source` in a dict."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch
        self.changed = Level()
        self.held: dict[str, Record] = {}

    def put(self, key: str, value: str = "", *, deleted: bool = False) -> Record:
        revision = self.changed.value + 1
        row = Record(
            key, Version(self.epoch, revision, "hub"), (value or f"{key}@{revision}").encode(), deleted
        )
        self.held[key] = row
        self.changed.rise()
        return row

    def delete(self, key: str) -> Record:
        return self.put(key, "{}", deleted=True)

    def live(self) -> list[Record]:
        return sorted((row for row in self.held.values() if not row.deleted), key=lambda row: row.key)

    async def revision(self) -> int:
        return self.changed.value

    async def begin_epoch(self, above: int) -> None:
        self.epoch = max(self.epoch, above) + 1

    async def changes(self, after: int, most: int, *, every_lane: bool = False) -> Changes:
        newer = [row for row in self.held.values() if row.version.counter > after]
        newer.sort(key=lambda row: row.version)
        if len(newer) < most:
            return Changes(newer, self.changed.value, more=False)
        return Changes(newer[:most], newer[most - 1].version.counter, more=True)

    async def rows(self) -> AsyncIterator[Sequence[Record]]:
        live = self.live()
        for at in range(0, len(live), 7):
            yield live[at : at + 7]

    async def changed_since(self, keys: Collection[str], revision: int) -> set[str]:
        return {key for key in keys if key in self.held and self.held[key].version.counter > revision}


class AnswersLost:
    """A log or a store whose answer to `write` gets lost: it is done, and whoever asked for it dies."""

    def __init__(self, inner: Any, write: str) -> None:
        self._inner = inner
        self._write = write

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._done_and_lost if name == self._write else found

    async def _done_and_lost(self, *args: Any, **kwargs: Any) -> None:
        await getattr(self._inner, self._write)(*args, **kwargs)
        raise UnreachableError("the answer was lost")


@contextlib.asynccontextmanager
async def log_of(kind: str, path: Path) -> AsyncIterator[Log]:
    log: Log = MemoryLog(CLOCK) if kind == "memory" else await SqliteLog.open(path, CLOCK)
    try:
        yield log
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def running(*works: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run `works` beside the block; when one of them raises, the block is left with what it raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def everything(log: Log, topic: str, at_least: int = 0) -> list[Entry]:
    """What `topic` holds, by partition, once it holds `at_least` entries."""
    bounds = await log.bounds(topic)
    positions = {TopicPartition(topic, number): ends.start for number, ends in bounds.items()}
    held: list[Entry] = []
    async with asyncio.timeout(30):
        while entries := await log.read(positions, wait_seconds=20 if len(held) < at_least else 0):
            held.extend(entries)
            positions.update({entry.position: entry.offset + 1 for entry in entries})
    return sorted(held, key=lambda entry: (entry.partition, entry.offset))


def texts(entries: Sequence[Entry]) -> list[str]:
    return sorted((entry.value or b"").decode() for entry in entries)
