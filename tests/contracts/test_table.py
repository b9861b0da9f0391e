"""What every table promises (`tables.protocol`), held by each of its implementations."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disk_parts import disk_of
from transom.logs.protocol import TopicPartition
from transom.model.errors import InvalidError, NewerDataError, StorageFullError, VersionClashError
from transom.model.records import Record
from transom.model.version import Version
from transom.tables import sqlite as sqlite_table
from transom.tables.digests import BUCKETS, bucket_of, differing, digest_of
from transom.tables.memory import MemoryTable
from transom.tables.protocol import Table
from transom.tables.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteTable

AT = TopicPartition("desired", 0)
FAST = TopicPartition("desired-fast", 0)


def record(key: str, counter: int, value: str = "", *, deleted: bool = False, epoch: int = 1) -> Record:
    return Record(key, Version(epoch, counter, "hub"), (value or f"{key}{counter}").encode(), deleted)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Table]:
    table: Table = MemoryTable() if kind == "memory" else await SqliteTable.open(folder / "table.db")
    try:
        yield table
    finally:
        await table.close()


@pytest.fixture(params=["memory", "sqlite"])
async def table(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Table]:
    async with opened(request.param, tmp_path) as made:
        yield made


async def test_an_empty_table(table: Table) -> None:
    assert await table.get("a") is None
    assert await table.scan() == []
    assert await table.latest() is None
    assert await table.positions() == {}
    digest = await table.digest()
    assert digest.positions == {}
    assert digest.buckets == [bytes(32)] * BUCKETS


async def test_a_record_is_kept_only_if_it_is_newer(table: Table) -> None:
    assert list(await table.apply([record("a", 5)], {AT: 1})) == [record("a", 5)]
    assert list(await table.apply([record("a", 4), record("a", 5)], {AT: 3})) == []
    assert await table.get("a") == record("a", 5)
    assert list(await table.apply([record("a", 6)], {AT: 4})) == [record("a", 6)]
    assert await table.get("a") == record("a", 6)


async def test_versions_compare_by_epoch_then_counter_then_origin(table: Table) -> None:
    first, second = Record("a", Version(1, 1, "eu"), b"eu"), Record("a", Version(1, 1, "us"), b"us")
    await table.apply([second, first], {})
    assert await table.get("a") == second
    await table.apply([record("a", 1, epoch=2), record("a", 99, epoch=1)], {})
    assert await table.get("a") == record("a", 1, epoch=2)


async def test_only_the_newest_of_a_batch_is_returned(table: Table) -> None:
    changed = await table.apply([record("a", 1), record("b", 9), record("a", 3), record("a", 2)], {AT: 4})
    assert sorted(changed, key=lambda row: row.key) == [record("a", 3), record("b", 9)]


async def test_positions_never_go_back(table: Table) -> None:
    await table.apply([], {AT: 7, FAST: 2})
    await table.apply([record("a", 1)], {AT: 3, FAST: 5})
    assert await table.positions() == {AT: 7, FAST: 5}


async def test_several_topics_feed_one_table(table: Table) -> None:
    await table.apply([record("a", 1), record("b", 1)], {AT: 2})
    await table.apply([record("a", 2)], {FAST: 1})
    await table.apply([record("a", 1)], {TopicPartition("desired", 1): 1})
    assert await table.scan() == [record("a", 2), record("b", 1)]
    assert await table.positions() == {AT: 2, FAST: 1, TopicPartition("desired", 1): 1}


async def test_one_version_with_two_values_is_raised_and_nothing_of_the_batch_kept(table: Table) -> None:
    await table.apply([record("a", 5, "one")], {AT: 1})
    before = (await table.digest(), table.changed.value)
    for clash in (record("a", 5, "two"), record("a", 5, "one", deleted=True)):
        with pytest.raises(VersionClashError, match=r"'a' has two different values at version 1\.5\.hub"):
            await table.apply([record("b", 9), clash], {AT: 3, FAST: 1})
    assert (await table.digest(), table.changed.value) == before
    assert await table.get("b") is None
    assert await table.get("a") == record("a", 5, "one")
    await table.apply([record("b", 9)], {AT: 3})
    assert await table.positions() == {AT: 3}


async def test_one_version_with_two_values_in_one_batch_is_raised_too(table: Table) -> None:
    with pytest.raises(VersionClashError):
        await table.apply([record("a", 5, "one"), record("a", 5, "two")], {AT: 2})
    assert await table.get("a") is None
    assert await table.positions() == {}


async def test_a_delete_marker_holds_against_late_older_writes(table: Table) -> None:
    await table.apply([record("a", 1), record("b", 1)], {AT: 2})
    gone = record("a", 5, "by lina", deleted=True)
    assert list(await table.apply([gone], {AT: 3})) == [gone]
    assert list(await table.apply([record("a", 4)], {AT: 4})) == []
    assert await table.get("a") == gone
    assert await table.scan() == [record("b", 1)]
    await table.apply([record("a", 6)], {AT: 5})
    assert await table.get("a") == record("a", 6)


async def test_a_delete_of_what_never_was_is_remembered(table: Table) -> None:
    await table.apply([record("a", 5, deleted=True), record("a", 4)], {AT: 2})
    assert await table.scan() == []
    assert await table.latest() == record("a", 5, deleted=True)


async def test_scan_is_by_prefix_in_the_order_of_keys(table: Table) -> None:
    keys = ["b", "a/2", "a/1", "a0", "a", "A", "é", "a/\U0010ffff", "\U0010ffff", "a%", "a_b", "a\0b"]
    await table.apply([record(key, 1) for key in keys], {})
    assert [row.key for row in await table.scan()] == sorted(keys)
    assert [row.key for row in await table.scan("a/")] == ["a/1", "a/2", "a/\U0010ffff"]
    assert [row.key for row in await table.scan("a%")] == ["a%"]
    assert [row.key for row in await table.scan("nothing")] == []


async def test_latest_is_the_highest_version_of_all(table: Table) -> None:
    await table.apply([record("a", 9), record("b", 30, deleted=True), record("c", 1, epoch=2)], {})
    assert await table.latest() == record("c", 1, epoch=2)


async def test_latest_goes_on_once_it_was_asked_for(table: Table) -> None:
    await table.apply([record("a", 9)], {})
    assert await table.latest() == record("a", 9)
    await table.apply([record("a", 9)], {AT: 1})
    await table.apply([], {AT: 2})
    assert await table.latest() == record("a", 9)
    await table.apply([record("b", 4), record("~canary/fast", 99)], {})
    assert await table.latest() == record("a", 9)
    await table.apply([record("b", 30, deleted=True), record("c", 12)], {})
    assert await table.latest() == record("b", 30, deleted=True)


async def test_changed_rises_with_rows_and_with_positions(table: Table) -> None:
    seen = table.changed.value
    await table.apply([record("a", 1)], {AT: 1})
    assert table.changed.value > seen
    # Who waits for a position (a sweep) must hear of a batch that changed no row.
    seen = table.changed.value
    await table.apply([record("a", 1)], {AT: 2})
    assert table.changed.value > seen


async def test_a_digest_ignores_order_and_delete_markers(tmp_path: Path) -> None:
    rows = [record(f"k{number}", number + 1) for number in range(3 * BUCKETS)]  # several in most buckets
    async with opened("sqlite", tmp_path) as left, opened("memory", tmp_path) as right:
        await left.apply(rows, {AT: len(rows)})
        await right.apply([record("gone", 9999, deleted=True), *reversed(rows)], {AT: len(rows)})
        assert await left.digest() == await right.digest()
        assert (await left.digest()).buckets == digest_of(reversed(rows)) == digest_of(rows)


async def test_a_digest_differs_in_the_bucket_of_what_differs(table: Table, tmp_path: Path) -> None:
    await table.apply([record("a", 1), record("b", 1)], {AT: 2})
    before = (await table.digest()).buckets
    await table.apply([record("b", 2)], {})
    assert differing(before, (await table.digest()).buckets) == [bucket_of("b")]
    await table.apply([record("b", 3, deleted=True)], {})
    async with opened("memory", tmp_path) as only_a:
        await only_a.apply([record("a", 1)], {})
        assert (await table.digest()).buckets == (await only_a.digest()).buckets


async def test_in_buckets_gives_the_live_rows_there(table: Table) -> None:
    rows = [record(f"k{number}", 1) for number in range(40)]
    await table.apply([*rows, record("k3", 2, deleted=True)], {})
    wanted = {bucket_of("k3"), bucket_of("k7"), bucket_of("k8")}
    live = [row for row in rows if bucket_of(row.key) in wanted and row.key != "k3"]
    assert sorted(row.key for row in await table.in_buckets(wanted)) == sorted(row.key for row in live)
    assert await table.in_buckets([]) == []
    assert len(await table.in_buckets(range(BUCKETS))) == len(rows) - 1


async def test_marks_are_kept_and_found_but_are_no_rows(table: Table) -> None:
    await table.apply([record("a", 1), record("\x7f", 1), record("~canary/fast", 99)], {AT: 3})
    assert await table.get("~canary/fast") == record("~canary/fast", 99)
    assert [row.key for row in await table.scan()] == ["a", "\x7f"]
    assert [row.key for row in await table.scan("~")] == ["~canary/fast"]
    assert [row.key for row in await table.in_buckets(range(BUCKETS))] == ["a", "\x7f"]
    assert (await table.digest()).buckets == digest_of([record("a", 1), record("\x7f", 1)])
    assert await table.count() == 2
    latest = await table.latest()
    assert latest is not None
    assert latest.key != "~canary/fast"


async def test_count_goes_with_every_row_that_comes_and_goes(table: Table) -> None:
    assert await table.count() == 0
    await table.apply([record("a", 1), record("a", 2), record("b", 1), record("c", 1, deleted=True)], {})
    assert await table.count() == 2
    await table.apply([record("a", 3), record("b", 2, deleted=True), record("~c", 1), record("d", 1)], {})
    assert await table.count() == 2
    await table.apply([record("b", 1), record("c", 2), record("b", 3, deleted=True)], {})
    assert await table.count() == 3
    with pytest.raises(VersionClashError):
        await table.apply([record("e", 1), record("a", 3, "other")], {})
    assert await table.count() == len(await table.scan()) == 3


# --- any order, any duplication, any replay: one table -------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c/1", "c/2", "\U0010ffff"])
VERSIONS = st.builds(
    Version, st.integers(1, 2), st.integers(1, 4) | st.just(10**18 - 1), st.sampled_from(["eu", "us"])
)


def _record_of(key: str, version: Version) -> Record:
    # A version names one value, so it is derived from it.
    return Record(key, version, f"{key}@{version}".encode(), deleted=version.counter % 3 == 0)


RECORDS = st.builds(_record_of, KEYS, VERSIONS)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Record], list[tuple[list[Record], int]]]:
    """A log, and one way it may arrive: in batches that jump back, overlap and repeat."""
    log = draw(st.lists(RECORDS, max_size=12))
    runs = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=8))
    batches = [(draw(st.permutations(log[first : first + size])), first + size) for first, size in runs]
    return log, [*batches, (draw(st.permutations(log)), len(log))]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@given(deliveries())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_duplication_and_replay_gives_the_same_table(
    kind: str, delivery: tuple[list[Record], list[tuple[list[Record], int]]]
) -> None:
    log, batches = delivery
    newest: dict[str, Record] = {}
    for row in sorted(log, key=lambda row: row.version):
        newest[row.key] = row

    async def check(folder: Path) -> None:
        reached = 0
        async with opened(kind, folder) as table, opened("memory", folder) as in_order:
            for rows, end in batches:
                await table.apply(rows, {AT: min(end, len(log))})
                reached = max(reached, min(end, len(log)))
                assert (await table.positions())[AT] == reached
                assert await table.count() == len(await table.scan())
            await in_order.apply(log, {AT: len(log)})
            assert {key: await table.get(key) for key in newest} == newest
            live = sorted((row for row in newest.values() if not row.deleted), key=lambda row: row.key)
            assert await table.scan() == live
            assert await table.count() == len(live)
            assert await table.digest() == await in_order.digest()
            latest = await table.latest()
            assert (latest and latest.version) == max((row.version for row in newest.values()), default=None)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


# --- on disk -------------------------------------------------------------------------------------------


async def test_a_table_is_what_it_was_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.db"
    table = await SqliteTable.open(path)
    await table.apply([record("a", 1), record("b", 2, deleted=True)], {AT: 2})
    before = await table.digest()
    await table.close()
    assert path.stat().st_mode & 0o777 == 0o600
    table = await SqliteTable.open(path)
    assert await table.digest() == before
    assert await table.get("b") == record("b", 2, deleted=True)
    assert list(await table.apply([record("b", 1)], {AT: 1})) == []
    await table.close()


async def test_neither_an_apply_nor_a_get_waits_for_a_sweep(tmp_path: Path) -> None:
    table = await SqliteTable.open(tmp_path / "table.db")
    await table.apply([record("a", 1)], {AT: 1})
    begun, let_go = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> list[str]:
        before = [key for (key,) in db.execute("SELECT key FROM rows")]
        begun.set()
        let_go.wait(30)
        assert before == [key for (key,) in db.execute("SELECT key FROM rows")]  # one snapshot
        return before

    sweep = asyncio.create_task(table._many.run(slow))
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        async with asyncio.timeout(20):
            await table.apply([record("b", 1)], {AT: 2})
            assert await table.get("b") == record("b", 1)
            assert await table.positions() == {AT: 2}
            assert await table.count() == 2
        assert not sweep.done()
    finally:
        let_go.set()
    assert await sweep == ["a"]
    assert [row.key for row in await table.scan()] == ["a", "b"]
    await table.close()


async def test_keys_that_share_a_place_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_table, "place_of", lambda key: 7)
    table = await SqliteTable.open(tmp_path / "table.db")
    await table.apply([record("a", 5), record("b", 1)], {AT: 2})
    assert list(await table.apply([record("a", 4), record("b", 2), record("c", 1)], {AT: 5})) == [
        record("b", 2),
        record("c", 1),
    ]
    assert await table.scan() == [record("a", 5), record("b", 2), record("c", 1)]
    assert [await table.get(key) for key in ("a", "b", "d")] == [record("a", 5), record("b", 2), None]
    await table.close()


async def test_nothing_that_is_asked_often_looks_at_every_row(tmp_path: Path) -> None:
    table = await SqliteTable.open(tmp_path / "table.db")

    def plans(db: sqlite3.Connection) -> list[str]:
        asked = {
            sqlite_table._FIND: (1, "a"),
            sqlite_table._HELD: ("[1]",),
            sqlite_table._BUCKET: (1, 2),
        }
        steps = [db.execute(f"EXPLAIN QUERY PLAN {query}", given) for query, given in asked.items()]
        return [str(row[3]) for step in steps for row in step]

    told = await table._many.run(plans)
    assert sum("SEARCH rows USING INDEX rows_by_place" in step for step in told) == 3
    assert not any(step.startswith("SCAN rows") for step in told)
    await table.close()


async def test_who_reads_cannot_write(tmp_path: Path) -> None:
    table = await SqliteTable.open(tmp_path / "table.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await table._many.run(lambda db: db.execute("DELETE FROM rows"))
    await table.close()


async def test_a_digest_is_taken_from_the_stored_bytes(tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    table = await SqliteTable.open(path)
    await table.apply([record("a", 1, "good"), record("b", 1)], {AT: 2})
    before = (await table.digest()).buckets
    with contextlib.closing(sqlite3.connect(path)) as behind_its_back:
        behind_its_back.execute("UPDATE rows SET value = ? WHERE key = 'a'", (b"goof",))
        behind_its_back.commit()
    assert differing(before, (await table.digest()).buckets) == [bucket_of("a")]
    await table.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from transom.logs.protocol import TopicPartition
from transom.model.records import Record
from transom.model.version import Version
from transom.tables.sqlite import SqliteTable

async def main():
    table = await SqliteTable.open(Path(sys.argv[1]))
    for number in range(1, 100):
        rows = [Record(key, Version(1, number, "hub"), b"%d" % number) for key in ("a", "b")]
        await table.apply(rows, {TopicPartition("desired", 0): number})
        print(number, flush=True)

asyncio.run(main())
"""


def written_until_killed(path: Path, point: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(path)],
        env={**os.environ, "TRANSOM_DIE_AT": point},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "point", ["table.applying:1", "table.applying:7", "table.applied:1", "table.applied:8"]
)
async def test_a_kill_keeps_rows_and_position_together(point: str, tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    done = written_until_killed(path, point)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    name, _, count = point.partition(":")
    expected = int(count) - (name == "table.applying")
    table = await SqliteTable.open(path)
    position = (await table.positions()).get(AT, 0)
    rows = {row.key: row.version.counter for row in await table.scan()}
    assert rows == (dict.fromkeys(("a", "b"), position) if position else {})
    # What was in a transaction that never committed is gone whole; what was acknowledged is there.
    assert position == expected
    acknowledged = done.stdout.split()
    assert int(acknowledged[-1] if acknowledged else 0) <= position
    await table.close()


async def test_a_newer_schema_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        db.execute("CREATE TABLE rows (something_else TEXT)")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(NewerDataError, match=f"schema {SCHEMA_VERSION + 1}"):
        await SqliteTable.open(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


async def test_a_table_of_before_the_first_release_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("CREATE TABLE rows (key TEXT PRIMARY KEY)")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(InvalidError, match=r"layout 1 .*move it away"):
        await SqliteTable.open(path)
    assert path.read_bytes() == before


def _other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x TEXT)")
        db.commit()


@pytest.mark.parametrize(
    "write", [_other_database, lambda path: path.write_text("a letter to grandmother\n" * 50)]
)
async def test_a_foreign_file_is_refused_and_left_untouched(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "table.db"
    write(path)
    before = path.read_bytes()
    with pytest.raises(InvalidError, match=r"table\.db"):
        await SqliteTable.open(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(1, tmp_path / "disk") as disk:
        yield disk


async def test_a_full_disk_refuses_the_write_and_the_table_goes_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500 << 10))
    table = await SqliteTable.open(small_disk / "table.db")
    await table.apply([record("a", 1)], {AT: 1})
    before = await table.digest()
    with pytest.raises(StorageFullError, match="full"):
        await table.apply([record("b", 1), record("big", 1, "x" * (800 << 10))], {AT: 3})
    assert await table.digest() == before
    assert await table.get("b") is None
    ballast.unlink()
    await table.apply([record("b", 1)], {AT: 2})
    assert [row.key for row in await table.scan()] == ["a", "b"]
    assert await table.positions() == {AT: 2}
    await table.close()


async def test_a_table_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(2 << 20))
    with pytest.raises((StorageFullError, OSError), match=r"full|No space"):
        await SqliteTable.open(small_disk / "table.db")
    ballast.unlink()
    table = await SqliteTable.open(small_disk / "table.db")
    await table.apply([record("a", 1)], {})
    await table.close()
