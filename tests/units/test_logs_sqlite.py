"""The SQLite log's own promises: its file, its layout's version, its way of waking, its size."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from transom.logs.protocol import Message, Topic, TopicPartition
from transom.logs.sqlite import SqliteLog
from transom.logs.sqlite_schema import APPLICATION_ID, SCHEMA_VERSION, waiters_folder
from transom.model.errors import InvalidError, NewerDataError, UnreachableError
from transom.runtime.clock import ManualClock, SystemClock

WHERE = TopicPartition("t", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "region.log"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path, SystemClock())
    await log.create([Topic("t")])
    yield log
    await log.close()


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def open_files() -> list[str]:
    return sorted(file.name for file in Path("/proc/self/fd").iterdir())


async def test_only_its_owner_can_read_it(log: SqliteLog, path: Path):
    await log.append([Message("t", b"k", b"v")])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir() if file.is_file()}
    assert modes[path.name] == 0o600
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(waiters_folder(path).stat().st_mode) == 0o700


async def test_what_was_appended_is_there_after_opening_again(log: SqliteLog, path: Path):
    await log.append([Message("t", b"k", b"v")])
    await log.close()
    again = await SqliteLog.open(path, SystemClock())
    assert [entry.value for entry in await again.read({WHERE: 0})] == [b"v"]
    await again.close()
    assert not path.with_name(f"{path.name}-wal").exists()


async def test_an_entry_whose_headers_the_disk_has_spoiled_stops_no_reader(log: SqliteLog, path: Path):
    await log.append([Message("t", b"k", bytes([number]), (("name", b"v"),)) for number in range(3)])
    with sqlite3.connect(path) as connection:
        # The second one's name is no UTF-8 any more; the third one's ends before it is complete.
        spoil = "UPDATE entries SET headers = ? WHERE value = ?"
        connection.executemany(spoil, [(b"\x91\x92\xa1\xff\xc4\x01v", b"\x01"), (b"\x91\x92\xa4na", b"\x02")])
    connection.close()
    entries = await log.read({WHERE: 0})
    assert [entry.value for entry in entries] == [b"\x00", b"\x01", b"\x02"]
    assert [entry.headers for entry in entries] == [(("name", b"v"),), (), ()]


async def test_a_file_of_a_newer_release_is_refused_and_left_untouched(log: SqliteLog, path: Path):
    await log.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = listing(path.parent)
    with pytest.raises(NewerDataError, match="newer release"):
        await SqliteLog.open(path, SystemClock())
    assert listing(path.parent) == before


async def test_the_layouts_version_stands_in_the_file_itself_from_the_first_moment(
    log: SqliteLog, path: Path
):
    (header,) = (content[:100] for name, content in listing(path.parent).items() if name == path.name)
    assert int.from_bytes(header[60:64], "big") == SCHEMA_VERSION
    assert int.from_bytes(header[68:72], "big") == APPLICATION_ID


@pytest.mark.parametrize("content", [b"notes\n", b"x" * 5000, None])
async def test_a_file_that_is_something_else_is_refused_and_left_untouched(
    tmp_path: Path, content: bytes | None
):
    path = tmp_path / "other"
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE theirs (a)")
        connection.close()
    else:
        path.write_bytes(content)
    before = listing(tmp_path)
    with pytest.raises(InvalidError, match="not a transom log"):
        await SqliteLog.open(path, SystemClock())
    assert listing(tmp_path) == before


async def test_many_may_open_a_new_file_at_once(path: Path):
    logs = await asyncio.gather(*(SqliteLog.open(path, SystemClock()) for _ in range(8)))
    await asyncio.gather(*(log.create([Topic("t")]) for log in logs))
    given = await asyncio.gather(*(log.append([Message("t", b"k", b"v")] * 2) for log in logs))
    assert sorted(offset for offsets in given for offset in offsets) == list(range(16))
    await asyncio.gather(*(log.close() for log in logs))


async def test_a_database_locked_for_too_long_is_told_and_nothing_changes(
    log: SqliteLog, path: Path, monkeypatch: pytest.MonkeyPatch
):
    log._write.execute("PRAGMA busy_timeout = 20")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnreachableError, match="locked by another process"):
        await log.append([Message("t", b"k", b"v")])
    assert list(await log.read({WHERE: 0})) == []  # reading goes on
    holder.execute("ROLLBACK")
    holder.close()
    assert list(await log.append([Message("t", b"k", b"v")])) == [0]


async def test_a_dead_waiters_pipe_is_removed_and_a_full_one_does_no_harm(log: SqliteLog, path: Path):
    folder = waiters_folder(path)
    os.mkfifo(folder / "dead")
    os.mkfifo(folder / "full")
    full = os.open(folder / "full", os.O_RDWR | os.O_NONBLOCK)
    try:
        assert os.write(full, b"\0" * (1 << 20)) < 1 << 20
        await log.append([Message("t", b"k", b"v")])
        assert [pipe.name for pipe in folder.iterdir()] == ["full"]
    finally:
        os.close(full)


async def test_a_handle_is_woken_by_an_append_through_another(log: SqliteLog, path: Path):
    other = await SqliteLog.open(path, SystemClock())
    for n in range(20):
        waiting = asyncio.create_task(log.read({WHERE: n}, wait_seconds=60))
        await asyncio.sleep(0)
        await log.bounds("t")  # served after the waiting read's first look
        await other.append([Message("t", b"k", str(n).encode())])
        async with asyncio.timeout(20):
            assert [entry.value for entry in await waiting] == [str(n).encode()]
    await other.close()


async def test_an_append_right_after_the_look_still_wakes_the_reader(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
):
    look = log._look
    looks = 0

    async def look_then_append(*asked: Any) -> Any:
        nonlocal looks
        looks += 1
        found = await look(*asked)
        if looks == 1:
            await log.append([Message("t", b"k", b"v")])
        return found

    monkeypatch.setattr(log, "_look", look_then_append)
    async with asyncio.timeout(20):
        assert [entry.value for entry in await log.read({WHERE: 0}, wait_seconds=60)] == [b"v"]


async def test_truncation_forgets_what_the_cleaner_remembered(log: SqliteLog):
    await log.create([Topic("table", compact=True)])
    await log.append([Message("table", str(n).encode(), b"v") for n in range(10)])
    await log.clean(SystemClock())
    await log.truncate("table", 0, 7)
    assert log._write.execute("SELECT count(*) FROM newest").fetchone() == (3,)


async def test_closing_leaves_no_pipe_thread_or_file_open(path: Path):
    log = await SqliteLog.open(path, SystemClock())
    await log.create([Topic("t")])
    await log.close()  # what the event loop opens for itself is open now
    before = open_files()
    log = await SqliteLog.open(path, SystemClock())
    await log.append([Message("t", b"k", b"v")])
    await log.read({WHERE: 1}, wait_seconds=0.001)
    assert len(list(waiters_folder(path).iterdir())) == 1
    await log.close()
    await log.close()
    assert open_files() == before
    assert list(waiters_folder(path).iterdir()) == []


async def test_reads_do_not_wait_behind_a_write(log: SqliteLog, path: Path):
    holder = sqlite3.connect(path, isolation_level=None)
    await log.append([Message("t", b"k", b"v")])
    holder.execute("BEGIN IMMEDIATE")
    appending = asyncio.create_task(log.append([Message("t", b"k", b"w")]))
    await asyncio.sleep(0)  # it is in line, and waits for the holder
    async with asyncio.timeout(5):
        assert [entry.value for entry in await log.read({WHERE: 0})] == [b"v"]
    assert not appending.done()
    holder.execute("ROLLBACK")
    holder.close()
    assert list(await appending) == [1]


async def test_the_file_shrinks_when_entries_went(path: Path):
    clock = ManualClock()
    log = await SqliteLog.open(path, clock)
    await log.create([Topic("t", retention_seconds=1)])
    for _ in range(20):
        await log.append([Message("t", b"k", os.urandom(10_000)) for _ in range(100)])
    clock.advance(2)
    assert await log.clean(clock) == 2000
    (pages,) = log._write.execute("PRAGMA page_count").fetchone()
    await log.close()
    assert pages < 1500
    assert len(listing(path.parent)[path.name]) < 1500 * 4096


async def test_a_truncation_that_was_killed_halfway_is_finished_by_the_next_clean(log: SqliteLog, path: Path):
    await log.append([Message("t", b"k", b"v")] * 1200)
    log._write.execute("UPDATE partitions SET start = 1100")  # as far as the first of its transactions came
    assert await log.clean(SystemClock()) == 0
    (left,) = log._write.execute("SELECT count(*) FROM entries").fetchone()
    assert left == 100
    assert len(await log.read({WHERE: 1100})) == 100


async def test_batches_that_wait_together_share_commits_and_fail_alone(log: SqliteLog):
    commits: list[str] = []
    log._write.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    batches = [[Message("t", b"k", str(n).encode())] for n in range(200)]
    wrong = [[Message("missing", b"k", b"v")] for _ in range(10)]
    outcomes = await asyncio.gather(
        *(log.append(batch) for batch in [*batches, *wrong]), return_exceptions=True
    )
    log._write.set_trace_callback(None)
    assert outcomes[:200] == [[n] for n in range(200)]
    assert all(isinstance(outcome, Exception) for outcome in outcomes[200:])
    assert len(commits) < 20
