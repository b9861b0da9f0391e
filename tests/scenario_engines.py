"""Scenarios on either engine: files, or one PostgreSQL and two Kafka clusters; no scenario knows which.

A scenario is marked with `each_engine`, or with `real_in_soak` when `make test` has no time for it on real
engines; its argument `engine` gives it its plant, and does to the storage what the scenario wants done.
"""

import asyncio
import contextlib
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from benchmarks.plant import Part, Plant

from engines.kafka import Brokers
from engines.postgres import Postgres
from engines_fixtures import lent, shared
from kafka_logs import empty, kafka_log
from transom.logs.protocol import Log
from transom.logs.sqlite import SqliteLog
from transom.processes.up_files import Engines
from transom.runtime.clock import SystemClock
from transom.runtime.steps import POINTS

each_engine = pytest.mark.parametrize("engine", ["embedded", "real"], indirect=True)
real_in_soak = pytest.mark.parametrize(
    "engine", ["embedded", pytest.param("real", marks=pytest.mark.soak)], indirect=True
)


class Engine(ABC):
    """What a scenario asks of the engine it runs on. What is stopped or copied, no process uses meanwhile."""

    points: Sequence[str] = tuple(point for point in POINTS if not point.startswith("carry."))
    """The durable steps that processes pass."""
    kills = len(points)
    """How many deaths `make test` has time for; all the others come in `make soak`."""

    def plant(
        self, folder: Path, regions: Sequence[str], zones: dict[str, str], settings: str = "", **more: Any
    ) -> Plant:
        """See `Plant`."""
        return Plant(folder, regions, zones, settings, engines=self.engines(), **more)

    @abstractmethod
    def engines(self) -> Engines | None:
        """Where the plant keeps what it keeps."""

    @abstractmethod
    def log_line(self, name: str) -> str:
        """How a region outside of plants is told where its log is; empty when it is in its folder."""

    @abstractmethod
    def log(self, folder: Path, name: str) -> contextlib.AbstractAsyncContextManager[Log]:
        """The log of the hub or of a region, with its data in `folder`, open to be looked at."""

    @abstractmethod
    def rows(self, plant: Plant, sql: str, *values: str) -> list[tuple[Any, ...]]:
        """What the hub's store says, asked without any of our code; `?` stands for a value."""

    @abstractmethod
    async def lose_store(self, plant: Plant) -> None:
        """Take everything that the hub's store holds."""

    @abstractmethod
    async def copy_store(self, plant: Plant) -> None:
        """Keep a copy of the hub's store."""

    @abstractmethod
    async def put_store_back(self, plant: Plant) -> None:
        """Replace the hub's store with the copy."""

    @abstractmethod
    async def copy_hub_log(self, plant: Plant) -> None:
        """Keep a copy of the hub's log."""

    @abstractmethod
    async def put_hub_log_back(self, plant: Plant) -> None:
        """Replace the hub's log with the copy."""

    async def lose_region(self, part: Part) -> None:
        """Take everything that a region keeps, its log included."""
        _remove(part.folder / "data", "*.db*")


class Embedded(Engine):
    """Everything is in files."""

    def engines(self) -> None:
        """See `Engine`."""

    def log_line(self, name: str) -> str:
        return ""

    @contextlib.asynccontextmanager
    async def log(self, folder: Path, name: str) -> AsyncIterator[Log]:
        log = await SqliteLog.open(folder / "log.db", SystemClock())
        try:
            yield log
        finally:
            await log.close()

    def rows(self, plant: Plant, sql: str, *values: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(_data(plant) / "store.db")) as db:
            return db.execute(sql, values).fetchall()

    async def lose_store(self, plant: Plant) -> None:
        _remove(_data(plant), "store.db*")

    async def copy_store(self, plant: Plant) -> None:
        _copy(_data(plant), "store.db*", plant.folder / "copy of store")

    async def put_store_back(self, plant: Plant) -> None:
        _remove(_data(plant), "store.db*")
        _copy(plant.folder / "copy of store", "*", _data(plant))

    async def copy_hub_log(self, plant: Plant) -> None:
        _copy(_data(plant), "log.db*", plant.folder / "copy of log")

    async def put_hub_log_back(self, plant: Plant) -> None:
        _remove(_data(plant), "log.db*")
        _copy(plant.folder / "copy of log", "*", _data(plant))


class Real(Engine):
    """One PostgreSQL, a Kafka for the hub and all regions but `eu`, and one for that."""

    points = tuple(point for point in Engine.points if not point.startswith("log."))  # Kafka has none
    kills = 8

    def __init__(self, postgres: Postgres, database: str, shared: Brokers, eu: Brokers) -> None:
        self._postgres, self._database = postgres, database
        self._shared, self._eu = shared, eu

    def engines(self) -> Engines:
        shared, eu = (f"kafka://{brokers.bootstrap}" for brokers in (self._shared, self._eu))
        return Engines(self._database, {"hub": shared, "us": shared, "eu": eu})

    def log_line(self, name: str) -> str:
        return f'log = "{self.engines().logs[name]}"\n'

    @contextlib.asynccontextmanager
    async def log(self, folder: Path, name: str) -> AsyncIterator[Log]:
        log = kafka_log(self._eu if name == "eu" else self._shared)
        try:
            yield log
        finally:
            await log.close()

    def rows(self, plant: Plant, sql: str, *values: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._database) as db:
            return db.execute(sql.replace("?", "%s").encode(), values or None).fetchall()

    async def lose_store(self, plant: Plant) -> None:
        await asyncio.to_thread(self._replace, self._name)

    async def copy_store(self, plant: Plant) -> None:
        await asyncio.to_thread(self._replace, self._copy_name, self._name)

    async def put_store_back(self, plant: Plant) -> None:
        await asyncio.to_thread(self._replace, self._name, self._copy_name)

    async def copy_hub_log(self, plant: Plant) -> None:
        await asyncio.to_thread(self._move_hub_log, self._shared.data(0), plant.folder / "copy of log")

    async def put_hub_log_back(self, plant: Plant) -> None:
        await asyncio.to_thread(self._move_hub_log, plant.folder / "copy of log", self._shared.data(0))

    async def lose_region(self, part: Part) -> None:
        await super().lose_region(part)
        await asyncio.to_thread(self._eu.replace_disks)

    async def clear(self) -> None:
        """Make it as if nothing had happened."""
        for brokers in (self._shared, self._eu):
            await asyncio.to_thread(brokers.mend)
            await empty(brokers)
        await asyncio.to_thread(self._postgres.drop, self._copy_name)

    @property
    def _name(self) -> str:
        return urlsplit(self._database).path.lstrip("/")

    @property
    def _copy_name(self) -> str:
        return f"{self._name}_copy"

    def _replace(self, name: str, template: str = "template0") -> None:
        self._postgres.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", template
        )
        self._postgres.drop(name)
        self._postgres.create(name, template)

    def _move_hub_log(self, source: Path, target: Path) -> None:
        self._shared.stop()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        self._shared.start()


@pytest.fixture(scope="session")
def shared_eu_brokers() -> Iterator[Brokers]:
    with shared(Brokers()) as running:
        yield running


@pytest.fixture
def eu_brokers(shared_eu_brokers: Brokers) -> Iterator[Brokers]:
    """The broker of region `eu` alone."""
    with lent(shared_eu_brokers):
        yield shared_eu_brokers


@pytest.fixture
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """The engine of this run of a scenario."""
    if request.param == "embedded":
        yield Embedded()
        return
    names = ("postgres", "database", "brokers", "eu_brokers")
    real = Real(*(request.getfixturevalue(name) for name in names))
    yield real
    await real.clear()


def _data(plant: Plant) -> Path:
    return plant.hub.folder / "data"


def _remove(folder: Path, pattern: str) -> None:
    for file in list(folder.glob(pattern)):
        if file.is_file():
            file.unlink()


def _copy(folder: Path, pattern: str, to: Path) -> None:
    to.mkdir(exist_ok=True)
    for file in folder.glob(pattern):
        if file.is_file():
            shutil.copy2(file, to)
