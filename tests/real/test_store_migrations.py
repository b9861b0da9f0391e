"""Stores of earlier releases, brought to this one's tables: what they hold, and what is filled in for them.

What is filled in must be what this release would have written itself: a store that it has written is copied
into the tables of an earlier release, as far as those go, and migrated, on either engine. Whoever is killed
on the way leaves nothing of it; of two who begin at once, one does it.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, inspect, select

from hub_parts import CLOCK, PERSON, open_store, put, remove
from store_places import ENGINES
from transom.catalog.deployment.kind import CONTROLLER
from transom.catalog.kinds import shipped
from transom.hub import migrations
from transom.hub.changes import Actor, Change, creating, setting_status
from transom.hub.store import Store
from transom.hub.store_engine import Database, named_database
from transom.hub.store_schema import HEAD, metadata
from transom.hub.store_sqlite import SqliteDatabase
from transom.hub.undeletion import restore
from transom.model.names import Key
from transom.model.resources import Metadata, OwnerReference, Resource
from transom.runtime.randomness import Randomness

OLDER = ("0003", "0004", "0005")
MANY = 620  # over the pages that migrations take rows in
APP: dict[str, Any] = {"app": "a", "version": "1", "command": ["a"]}
OWNER = Key("KafkaCluster", "acme", "owner")
TABLES = ("counter", "resources", "history", "outbox", "positions", "dependents")

PREPARE = """
import os, pathlib, signal, sys
from sqlalchemy import Engine, event
from transom.hub.store_engine import named_database

url, path, left = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
done = 0

@event.listens_for(Engine, "after_cursor_execute")
def count(*_):
    global done
    done += 1
    if done == left:
        os.kill(os.getpid(), signal.SIGKILL)

named_database(url, path, None, None).prepare(epoch=99)
print(done)
"""
"""A process that prepares a store, and is killed behind the statement of this number."""


class Place(NamedTuple):
    """Where a store is: a file, or, with a `url`, a database."""

    url: str
    path: Path

    @property
    def database(self) -> Database:
        return named_database(self.url, self.path, None, None)

    def preparing(self, left: int = 0) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PREPARE, self.url, str(self.path), str(left)]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    def prepared(self, left: int = 0) -> tuple[int, int]:
        """What the process ended with, and after how many statements."""
        process = self.preparing(left)
        told, _ = process.communicate(timeout=120)
        return process.returncode, int(told or 0)


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("database") if request.param == "real" else ""
    return Place(url, tmp_path / "old.db")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What this release has written: every table, row by row."""
    folder = tmp_path_factory.mktemp("written")
    asyncio.run(_written(folder))
    return _rows(SqliteDatabase(folder / "store.db"))


async def _written(folder: Path) -> None:
    async with open_store(folder) as store:
        owner = await _made(store, _cluster("owner"))
        refers = OwnerReference("transom.dev/v1", "KafkaCluster", "owner", owner.metadata.uid)
        both = OwnerReference("transom.dev/v1", "KafkaCluster", "other", "another-uid")
        await store.write_all([put(_cluster(f"its-{n:04}", refers)) for n in range(MANY)])
        await store.write_all([put(_cluster("shared", refers, both)), put(_deployment())])
        shop = await store.get(Key("Deployment", "acme", "shop"))
        controller = Actor(CONTROLLER, CONTROLLER)
        made_for = OwnerReference("transom.dev/v1", "Deployment", "shop", shop.metadata.uid, controller=True)
        spec = {**APP, "region": "eu", "zones": {"a": 1}}
        meta = Metadata("shop.eu", "acme", owner_references=[made_for])
        child = Resource("RegionalDeployment", meta, spec=spec)
        status = setting_status(shop.key, shop.metadata.uid, {"ready": 1})
        ran = Resource("Instance", Metadata("i.eu", "acme"))
        region = Actor("region", "eu")
        await store.write_all(
            [
                Change(child.key, creating(child), controller),
                Change(shop.key, status, controller),
                Change(ran.key, creating(ran), region),
                remove(ran.key, region),
                remove(OWNER),
                *(remove(Key("KafkaCluster", "acme", f"its-{n:04}")) for n in range(5)),
            ]
        )


def _deployment() -> Resource:
    return Resource("Deployment", Metadata("shop", "acme"), spec={**APP, "regions": ["eu"]})


async def _made(store: Store, resource: Resource) -> Resource:
    held = await store.write(put(resource))
    assert held is not None
    return held


def _cluster(name: str, *references: OwnerReference) -> Resource:
    meta = Metadata(name, "acme", owner_references=list(references))
    return Resource("KafkaCluster", meta, spec={"bootstrapServers": ["kafka.example:9092"]})


@contextlib.contextmanager
def _connected(database: Database) -> Generator[Any]:
    transactions = database.writer()
    try:
        yield transactions.run
    finally:
        transactions.close()


def _rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    def read(db: Connection) -> dict[str, list[dict[str, Any]]]:
        found = MetaData()
        found.reflect(db)
        return {
            name: sorted(
                (dict(row) for row in db.execute(select(table)).mappings()),
                key=lambda row: [str(row[column.name]) for column in table.primary_key] or str(row),
            )
            for name, table in sorted(found.tables.items())
        }

    with _connected(database) as run:
        return run(read)


def _fill(place: Place, rows: dict[str, list[dict[str, Any]]], version: str) -> None:
    """Have what was written in the tables of an earlier release, as far as those go."""

    def work(db: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = db
        command.upgrade(config, version)
        there = inspect(db)
        for name in TABLES:
            if rows[name] and there.has_table(name):
                columns = {column["name"] for column in there.get_columns(name)}
                table = metadata.tables[name]
                old = [{word: row[word] for word in row.keys() & columns} for row in rows[name]]
                db.execute(table.insert(), [_whole(row, columns) for row in old])

    with _connected(place.database) as run:
        run(work)


def _whole(row: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    assert set(row) == columns
    return row


def _told(tables: dict[str, list[dict[str, Any]]], version: str) -> dict[str, list[dict[str, Any]]]:
    """What must be in the tables after a migration from `version`."""
    wanted = {name: [dict(row) for row in tables[name]] for name in TABLES}
    if version == "0003":
        # What a change replaced was not kept: who watches from there lists again.
        for row in wanted["history"]:
            row["before"] = None
        wanted["counter"][0]["pruned_revision"] = wanted["counter"][0]["revision"] + 1
    return wanted


@pytest.mark.parametrize("version", OLDER)
async def test_what_is_filled_in_is_what_this_release_would_have_written(
    place: Place, rows: dict[str, list[dict[str, Any]]], version: str
) -> None:
    assert len(rows["history"]) > MANY
    assert len(rows["dependents"]) == MANY + 2
    assert sum(row["deleted_at"] is not None for row in rows["resources"]) == 6
    assert sum(row["audit_hash"] is None for row in rows["history"]) > 0
    _fill(place, rows, version)
    place.database.prepare(epoch=99)
    migrated = _rows(place.database)
    for name, wanted in _told(rows, version).items():
        assert migrated[name] == wanted, name
    assert migrated["alembic_version"] == [{"version_num": HEAD}]

    # It goes on from there: what was deleted before comes back, with what went along.
    store = await Store.open(place.database, shipped(), CLOCK, Randomness(1))
    try:
        assert [each.key for each in (await restore(store, OWNER, PERSON, "")).back][:1] == [OWNER]
        assert (await store.get(OWNER)).spec["bootstrapServers"] == ["kafka.example:9092"]
    finally:
        await store.close()


def test_who_is_killed_while_migrating_leaves_nothing_of_it(
    place: Place, rows: dict[str, list[dict[str, Any]]]
) -> None:
    _fill(place, rows, OLDER[0])
    before = _rows(place.database)
    for number in (2, 6, 12, 18, 24, 30):
        assert place.prepared(number)[0] == -signal.SIGKILL
        assert _rows(place.database) == before, number
    code, statements = place.prepared()
    assert code == 0
    assert statements >= 30, "the last kill was in the middle of it, too"
    after = _rows(place.database)
    assert {name: after[name] for name in TABLES} == _told(rows, OLDER[0])


def test_two_processes_that_begin_at_once_migrate_once(
    place: Place, rows: dict[str, list[dict[str, Any]]]
) -> None:
    _fill(place, rows, OLDER[0])
    both = [place.preparing(), place.preparing()]
    assert [(each.communicate(timeout=120), each.returncode)[1] for each in both] == [0, 0]
    after = _rows(place.database)
    assert {name: after[name] for name in TABLES} == _told(rows, OLDER[0])
