"""The hub's store as a file: restarts, kills, full disks, other releases' and other programs' files."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from store_world import OWNER, by, deployment, make, open_store, people, region, tenant

from disk_parts import disk_of
from transom.hub import migrations
from transom.hub.changes import deleting, setting_status
from transom.hub.store import Store
from transom.hub.store_schema import HEAD, metadata
from transom.hub.store_sqlite import SqliteDatabase
from transom.logs.protocol import TopicPartition
from transom.model.errors import InvalidError, NewerDataError, StorageFullError
from transom.model.resources import Metadata, OwnerReference, Resource, from_json
from transom.runtime.clock import ManualClock

ALL = 10_000
AT = TopicPartition("status", 0)


def rows_of(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# --- restarts and kills --------------------------------------------------------------------------------


async def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "hub.db"
    clock = ManualClock()
    store = await open_store(path, clock)
    await make(store, tenant(), region())
    (made,) = await make(store, deployment())
    await store.write_all(
        [by(OWNER, made.key, setting_status(made.key, "", {"ready": 1}))], reader="archive", offsets={AT: 4}
    )

    async def everything(store: Store) -> Any:
        pages = [await store.page(kind.name) for kind in store.catalog]
        read = pages, await store.events(0, ALL), await store.outbox(0, ALL)
        return read, await store.positions_of("archive"), store.epoch, store.changed.value

    before = await everything(store)
    await store.close()
    assert path.stat().st_mode & 0o777 == 0o600
    clock.advance(1000)  # the epoch is the storage's, not the process's
    store = await open_store(path, clock)
    assert await everything(store) == before
    (another,) = await make(store, deployment("another"))
    assert another.metadata.resource_version == "5"
    await store.close()


async def test_a_new_storage_has_a_later_epoch(tmp_path: Path) -> None:
    clock = ManualClock()
    first = await open_store(tmp_path / "first.db", clock)
    clock.advance(10)
    second = await open_store(tmp_path / "second.db", clock)
    assert second.epoch > first.epoch > 0
    await first.close()
    await second.close()


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from store_world import deployment, make, open_store, people, region, tenant
from transom.hub.changes import applying
from transom.logs.protocol import TopicPartition

async def main():
    store = await open_store(Path(sys.argv[1]))
    for number in range(1, 40):
        batch = [people(tenant()), people(region())]
        batch += [people(deployment(n), applying(deployment(n, version=str(number)))) for n in ("a", "b")]
        await store.write_all(batch, reader="archive", offsets={TopicPartition("status", 0): number})
        print(number, flush=True)

asyncio.run(main())
"""


def written_until_killed(path: Path, point: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(path), *map(str, Path(__file__).parents[:3])],
        env={**os.environ, "TRANSOM_DIE_AT": point},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "point",
    [
        "store.committing:1",
        "store.committed:1",
        "store.committing:2",
        "store.committing:9",
        "store.committed:9",
    ],
)
async def test_a_kill_loses_nothing_acknowledged_and_leaves_nothing_half(point: str, tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    done = written_until_killed(path, point)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    name, _, count = point.partition(":")
    committed = int(count) - (name == "store.committing")
    assert len(done.stdout.split()) in (committed, committed - 1)

    store = await open_store(path)
    last = 2 + 2 * committed if committed else 0
    assert store.changed.value == last
    assert [event.revision for event in await store.events(0, ALL)] == list(range(1, last + 1))
    assert [row.revision for row in await store.outbox(0, ALL)] == list(range(1, last + 1))
    held = {item.metadata.name: item.spec["version"] for item in await store.all_of("Deployment")}
    assert held == (dict.fromkeys(("a", "b"), str(committed)) if committed else {})
    assert await store.positions_of("archive") == ({AT: committed} if committed else {})
    bodies = rows_of(path, "SELECT max(revision), body FROM history GROUP BY kind, namespace, name")
    for _, body in bodies:
        assert await store.get(from_json(body).key) == from_json(body)
    await make(store, deployment("after")) if committed else await make(store, tenant())
    assert store.changed.value == last + 1
    await store.close()


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    # A kill cannot show it, only a power loss could.
    writer = SqliteDatabase(tmp_path / "hub.db").writer()

    def settings(connection: Connection) -> dict[str, Any]:
        names = ("synchronous", "journal_mode")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

    pragmas = writer.run(settings)
    writer.close()
    assert pragmas == {"synchronous": 2, "journal_mode": "wal"}  # 2: FULL


# --- files that are not this release's -----------------------------------------------------------------


async def test_a_store_of_a_newer_release_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    store = await open_store(path)
    await make(store, tenant())
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.commit()
        db.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    with pytest.raises(NewerDataError, match="'9999'"):
        await open_store(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["hub.db"]


def _other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x TEXT)")
        db.commit()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_other_database, "is some other program's database"),
        (lambda path: path.write_text("a letter to grandmother\n" * 50), "is not a transom store"),
    ],
)
async def test_a_foreign_file_is_refused_and_left_untouched(
    write: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "hub.db"
    write(path)
    before = path.read_bytes()
    with pytest.raises(InvalidError, match=rf"hub\.db is invalid: {words}"):
        await open_store(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["hub.db"]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    path.touch()
    SqliteDatabase(path).prepare(epoch=5)
    assert rows_of(path, "SELECT epoch, revision, pruned_revision FROM counter") == [(5, 0, 0)]
    SqliteDatabase(path).prepare(epoch=6)
    assert rows_of(path, "SELECT epoch, revision, pruned_revision FROM counter") == [(5, 0, 0)]


# --- migrations ----------------------------------------------------------------------------------------


def shape_of(path: Path) -> Any:
    """Columns and indexes as SQLite sees them, in order."""
    tables = [
        name for (name,) in rows_of(path, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
    ]
    ours = [name for name in tables if name != "alembic_version"]
    return {
        name: (
            rows_of(path, f"PRAGMA table_info({name})"),
            [
                (unique, origin, rows_of(path, f"PRAGMA index_info({index})"))
                for _, index, unique, origin, _ in sorted(
                    rows_of(path, f"PRAGMA index_list({name})"), key=lambda row: row[1]
                )
            ],
        )
        for name in ours
    }


def steps() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def test_the_migrations_make_exactly_what_a_new_store_has(tmp_path: Path) -> None:
    migrated, created = tmp_path / "migrated.db", tmp_path / "created.db"
    config = steps()
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    SqliteDatabase(created).prepare(epoch=1)
    assert shape_of(migrated) == shape_of(created)
    version = "SELECT * FROM alembic_version", "PRAGMA table_info(alembic_version)"
    assert [rows_of(migrated, asked) for asked in version] == [rows_of(created, asked) for asked in version]
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(steps()).get_heads() == [HEAD]


def test_a_hub_with_nothing_to_migrate_does_not_load_the_tool(tmp_path: Path) -> None:
    program = """
import pathlib, sys
from transom.hub.store_sqlite import SqliteDatabase
SqliteDatabase(pathlib.Path(sys.argv[1])).prepare(epoch=1)
sys.exit("alembic" in sys.modules)
"""
    for _ in ("new", "known"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "store.db")], check=True, timeout=60)


# --- full disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(2, tmp_path / "disk") as disk:
        yield disk


async def test_a_full_disk_refuses_the_write_and_the_store_goes_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1200 << 10))
    store = await open_store(small_disk / "hub.db")
    await make(store, tenant(), region())
    before = await store.events(0, ALL)
    big = deployment("big").with_metadata(annotations={"note": "x" * (400 << 10)})
    with pytest.raises(StorageFullError, match="full"):
        await store.write(people(big))
    # Reading goes on; nothing of the write is there.
    assert await store.events(0, ALL) == before
    assert await store.all_of("Deployment") == []
    with pytest.raises(StorageFullError):
        await store.write_all([people(big)], reader="archive", offsets={AT: 9})
    assert await store.positions_of("archive") == {}
    ballast.unlink()
    (made,) = await make(store, big)
    assert made.metadata.resource_version == "3"
    assert [row.revision for row in await store.outbox(0, ALL)] == [1, 2, 3]
    await store.close()


async def test_a_store_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(4 << 20))
    with pytest.raises((StorageFullError, OSError), match=r"full|No space"):
        await open_store(small_disk / "hub.db")
    ballast.unlink()
    store = await open_store(small_disk / "hub.db")
    await make(store, tenant())
    await store.close()


AUDITED = (
    "SELECT h.revision, h.audit_digest, h.audit_hash, c.audit_hash, c.audit_base, c.audit_base_revision"
    " FROM history AS h, counter AS c ORDER BY 1"
)


async def test_what_the_release_before_stored_is_kept_and_can_be_brought_back(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    store = await open_store(path)
    made, _, _ = await make(store, tenant(), region(), deployment())
    mine = Resource("KafkaCluster", Metadata("mine", "acme"), spec={"bootstrapServers": ["kafka:9092"]})
    (owner,) = await make(store, mine)
    reference = OwnerReference("transom.dev/v1", owner.kind, "mine", owner.metadata.uid)
    its = mine.with_metadata(name="its", owner_references=[reference])
    await make(store, its)
    await store.write(people(its, deleting(its.key)))
    await store.close()
    audited = rows_of(path, AUDITED)
    script = (
        "DROP TABLE dependents; DROP INDEX resources_restorable;"
        "ALTER TABLE resources DROP COLUMN deleted_at;"
        "ALTER TABLE history DROP COLUMN source; ALTER TABLE history DROP COLUMN before;"
        "DROP INDEX history_purges; ALTER TABLE history DROP COLUMN audit_digest;"
        "ALTER TABLE history DROP COLUMN audit_hash;"
        "ALTER TABLE counter DROP COLUMN audit_hash; ALTER TABLE counter DROP COLUMN audit_base;"
        "ALTER TABLE counter DROP COLUMN audit_base_revision; UPDATE alembic_version SET version_num = '0003'"
    )
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    store = await open_store(path)
    (deleted,) = [event for event in await store.history_of(its.key) if event.event == "DELETED"]
    assert (await store.get(made.key), deleted.source) == (made, "")
    await store.close()
    assert rows_of(path, "SELECT key, deleted_at FROM resources WHERE deleted_at IS NOT NULL") == [
        (str(its.key), deleted.at)
    ]
    assert rows_of(path, AUDITED) == audited, "the chain is made of what is there, as if it had always been"
    assert rows_of(path, "SELECT key, owner_uid FROM dependents") == [(str(its.key), owner.metadata.uid)]
