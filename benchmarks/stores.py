"""The hub's store in a SQLite file and in PostgreSQL, both waiting for the disk at every commit.

A write is one resource, its history entry and its outbox row; those who wait together share a commit.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.report import note, percentile
from engines.postgres import Postgres
from transom.catalog.kinds import shipped
from transom.hub.changes import Actor, Change, applying
from transom.hub.store import Store
from transom.hub.store_engine import Database
from transom.hub.store_postgres_setup import postgres_database
from transom.hub.store_sqlite import SqliteDatabase
from transom.model.kinds import PEOPLE
from transom.model.resources import Metadata, Resource
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

_SINGLE = 300
_WAITING = 4000
_ROWS = 1000
_BATCHES = 8
_PERSON = Actor(PEOPLE, "ada")


async def main() -> None:
    """Print the figures of either engine."""
    with tempfile.TemporaryDirectory(prefix="transom-") as folder:
        await _figures("sqlite", SqliteDatabase(Path(folder) / "store.db"))
    async with Postgres(durable=True) as server:
        with server.database() as url:
            await _figures("postgres", postgres_database(url, None, None))


async def _figures(engine: str, database: Database) -> None:
    async with store_of(database) as store:
        await asyncio.gather(*(store.write(change(f"warm{number}")) for number in range(500)))
        alone = [await _seconds(store, [change(f"one{number}")]) for number in range(_SINGLE)]
        note(f"store_{engine}_single_write_p50", median(alone) * 1000, "ms")
        note(f"store_{engine}_single_write_p99", percentile(alone, 99) * 1000, "ms")
        rates = [await _waiting(store, turn) for turn in range(3)]
        note(f"store_{engine}_waiting_writes_a_second", median(rates), "1/s", runs=rates)
        seconds = [
            await _seconds(store, [change(f"many{batch}-{number}") for number in range(_ROWS)])
            for batch in range(_BATCHES)
        ]
        note(f"store_{engine}_changes_a_second_in_batches_of_{_ROWS}", _ROWS / median(seconds), "1/s")
        began = time.perf_counter()
        rows = await store.outbox(0, 10_000)
        note(f"store_{engine}_outbox_rows_read_a_second", len(rows) / (time.perf_counter() - began), "1/s")
        gets = [await _get_seconds(store, f"one{number}") for number in range(_SINGLE)]
        note(f"store_{engine}_get_p50", median(gets) * 1000, "ms")


@contextlib.asynccontextmanager
async def store_of(database: Database) -> AsyncGenerator[Store]:
    """A store in `database` with what a Deployment needs."""
    store = await Store.open(database, shipped(), SystemClock(), Randomness(1))
    try:
        region = Resource("Region", Metadata("eu"), spec={"log": "http://127.0.0.1:1"})
        for each in (Resource("Tenant", Metadata("acme")), region):
            await store.write(Change(each.key, applying(each), _PERSON))
        yield store
    finally:
        await store.close()


async def _waiting(store: Store, turn: int) -> float:
    """Writes a second of so many callers that all wait at once."""
    began = time.perf_counter()
    await asyncio.gather(*(store.write(change(f"w{turn}-{number}")) for number in range(_WAITING)))
    return _WAITING / (time.perf_counter() - began)


async def _seconds(store: Store, changes: Sequence[Change]) -> float:
    began = time.perf_counter()
    await store.write_all(changes)
    return time.perf_counter() - began


async def _get_seconds(store: Store, name: str) -> float:
    key = change(name).key
    began = time.perf_counter()
    await store.get(key)
    return time.perf_counter() - began


def change(name: str) -> Change:
    """One that declares a Deployment."""
    spec = {"app": "shop", "version": "1", "command": ["serve"], "regions": ["eu"]}
    wanted = Resource("Deployment", Metadata(name, namespace="acme"), spec=spec)
    return Change(wanted.key, applying(wanted), _PERSON)


if __name__ == "__main__":
    uvloop.run(main())
