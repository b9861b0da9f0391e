"""Real processes on one log file: together, waiting for each other, killed anywhere, out of disk.

Run as a script, this module is the other process (`main` below).
Embedded only: Kafka has processes of its own, and `real/test_kafka_faults` kills those.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from transom.logs.protocol import Message, Topic, TopicPartition
from transom.logs.remote import RemoteLog
from transom.logs.server import Rights, log_server
from transom.logs.sqlite import SqliteLog
from transom.logs.sqlite_schema import waiters_folder
from transom.model.errors import StorageFullError
from transom.runtime.clock import SystemClock
from transom.runtime.http import serve
from transom.runtime.secret_files import hash_secret

TOPICS = [Topic("one", partitions=2), Topic("two"), Topic("table", compact=True)]
KEY = "a-key-for-tests"


# --- the other process


async def main(role: str, target: str, name: str, count: int) -> None:
    if role == "stall":
        await stall(target)
        return
    log = await SqliteLog.open(Path(target), SystemClock())
    await log.create(TOPICS)
    if role.startswith("append"):
        await append(log, name, count, tasks=1 if role == "append-alone" else 4)
    else:
        await follow(log, count)
    await log.close()


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def batch_of(name: str, n: int) -> list[Message]:
    value = f"{name}.{n}".encode()
    return [
        Message("one", value, value),
        Message("two", value, value),
        Message("table", f"{name}.{n % 5}".encode(), str(n).encode()),
    ]


async def append(log: SqliteLog, name: str, count: int, tasks: int) -> None:
    """Append `count` batches from so many tasks, cleaning now and then; say each that is acknowledged."""
    numbers = iter(range(count))

    async def work() -> None:
        for n in numbers:
            await log.append(batch_of(name, n))
            say(n)
            if n % 20 == 0:
                await log.clean(SystemClock())

    say("ready")
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())


async def follow(log: SqliteLog, count: int) -> None:
    """Read `count` entries one by one, waiting for each as long as it takes; say what came."""
    for offset in range(count):
        (entry,) = await log.read({TopicPartition("two", 0): offset}, wait_seconds=600)
        say((entry.value or b"").decode())


async def stall(url: str) -> None:
    """Keep a server busy in every way there is, for ever."""
    log = RemoteLog(url, KEY)
    where = {TopicPartition("two", 0): 0}

    async def again_and_again(what: str) -> None:
        while True:
            if what == "read":
                await log.read(where)
            elif what == "wait":
                end = (await log.bounds("two"))[0].end
                await log.read({TopicPartition("two", 0): end}, wait_seconds=60)
            else:
                await log.append([Message("one", b"k", b"x" * 100_000) for _ in range(20)])
            say(what)

    async with asyncio.TaskGroup() as group:
        for what in ("read", "wait", "append", "read", "append"):
            group.create_task(again_and_again(what))


# --- the tests


@contextlib.contextmanager
def process(
    role: str, target: Path | str, name: str = "a", count: int = 0, die_at: str = ""
) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "TRANSOM_DIE_AT": die_at}
    command = [sys.executable, __file__, role, str(target), name, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def lines(child: subprocess.Popen[str]) -> list[str]:
    """What it says until it ends, but for a line that was cut off."""
    assert child.stdout is not None
    return [line.strip() for line in child.stdout if line.endswith("\n")]


async def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(60):
        return (await asyncio.to_thread(child.stdout.readline)).strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "region.log"


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path, SystemClock())
    try:
        await log.create(TOPICS)
        yield log
    finally:
        await log.close()


async def everything(log: SqliteLog, topic: str) -> list[str]:
    """The values of a topic; each partition's offsets are dense."""
    values: list[str] = []
    for partition, (start, end) in (await log.bounds(topic)).items():
        offset = start
        while offset < end:
            for entry in await log.read({TopicPartition(topic, partition): offset}):
                assert entry.offset == offset
                values.append((entry.value or b"").decode())
                offset += 1
    return values


async def check(path: Path, acknowledged: dict[str, set[int]]) -> dict[str, set[int]]:
    """What is in the log: whole batches, each once, with all that were acknowledged. Returns them by name."""
    async with opened(path) as log:
        one, two = await everything(log, "one"), await everything(log, "two")
        assert max(Counter(one).values(), default=1) == 1
        assert sorted(one) == sorted(two)
        there: dict[str, set[int]] = {}
        for value in one:
            name, _, n = value.partition(".")
            there.setdefault(name, set()).add(int(n))
        for name, numbers in acknowledged.items():
            assert numbers <= there.get(name, set())
        await log.clean(SystemClock())
        table = await log.read({TopicPartition("table", 0): 0})
        kept = {(entry.key or b"").decode(): int(entry.value or b"") for entry in table}
        assert len(kept) == len(table)
        assert set(kept) == {f"{name}.{n % 5}" for name, numbers in there.items() for n in numbers}
        for key, n in kept.items():
            assert n in there[key.partition(".")[0]]
        return there


async def test_processes_that_append_together_lose_nothing(path: Path):
    with process("append", path, "a", 150) as first, process("append", path, "b", 150) as second:
        said_first, said_second = await asyncio.gather(
            asyncio.to_thread(lines, first), asyncio.to_thread(lines, second)
        )
        assert (first.wait(), second.wait()) == (0, 0)
    assert len(said_first) == len(said_second) == 151
    assert await check(path, {}) == {"a": set(range(150)), "b": set(range(150))}


async def test_a_reader_is_woken_by_an_append_in_another_process(path: Path):
    async with opened(path) as log:
        with process("follow", path, count=30) as reader:
            for n in range(30):
                await log.append([Message("two", b"k", str(n).encode())])
                assert await said(reader) == str(n)
            assert reader.wait() == 0
    assert list(waiters_folder(path).iterdir()) == []


async def test_a_killed_readers_pipe_is_cleared_away(path: Path):
    async with opened(path) as log:
        with process("follow", path, count=2) as reader:
            await log.append([Message("two", b"k", b"v")])
            assert await said(reader) == "v"
            reader.kill()
            reader.wait()
        assert len(list(waiters_folder(path).iterdir())) == 1
        await log.append([Message("two", b"k", b"v")])
        assert list(waiters_folder(path).iterdir()) == []


@pytest.mark.parametrize("point", ["log.appending", "log.appended"])
async def test_killed_around_a_commit_all_that_was_acknowledged_is_there_once(path: Path, point: str):
    total: dict[str, set[int]] = {}
    for nth in (1, 2, 7, 20):
        name = f"killed-{nth}"
        with process("append-alone", path, name, 1000, die_at=f"{point}:{nth}") as child:
            told = {int(line) for line in (await asyncio.to_thread(lines, child))[1:]}
            assert child.wait() == -signal.SIGKILL
        assert told == set(range(nth - 1))
        total[name] = told
        there = await check(path, total)
        # Before its commit nothing of it is there; after it, it is there though nobody was told.
        assert there.get(name, set()) - told == ({nth - 1} if point == "log.appended" else set())


async def test_killed_at_any_time_all_that_was_acknowledged_is_there_once(path: Path):
    seeded = random.Random(20)  # repeatable kills
    total: dict[str, set[int]] = {}
    for round_number in range(5):
        names = [f"{round_number}{letter}" for letter in "ab"]
        with (
            process("append", path, names[0], 10**6) as first,
            process("append", path, names[1], 10**6) as second,
        ):
            assert (await said(first), await said(second)) == ("ready", "ready")
            for _ in range(seeded.randrange(1, 150)):
                total.setdefault(names[0], set()).add(int(await said(first)))
            first.kill()
            total[names[0]] |= {int(line) for line in await asyncio.to_thread(lines, first)}
            # The other one goes on: what the dead one held is let go.
            for _ in range(seeded.randrange(1, 20)):
                total.setdefault(names[1], set()).add(int(await said(second)))
            second.kill()
            total[names[1]] |= {int(line) for line in await asyncio.to_thread(lines, second)}
        await check(path, total)


async def test_a_frozen_client_holds_nothing_that_others_need(path: Path):
    app = log_server(
        served := await SqliteLog.open(path, SystemClock()),
        {"test": hash_secret(KEY)},
        {"test": Rights(frozenset("*"), frozenset("*"), links=True)},
    )
    await served.create(TOPICS)
    for _ in range(2):
        await served.append([Message("two", b"k", b"x" * 900_000) for _ in range(5)])
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(serve(app, "127.0.0.1", 0, ready=port.set_result))
    url = f"http://127.0.0.1:{await port}"
    other = RemoteLog(url, KEY)
    with process("stall", url) as child:
        try:
            for _ in range(3):
                seen: set[str] = set()
                while seen != {"read", "append"}:
                    seen.add(await said(child))
                os.kill(child.pid, signal.SIGSTOP)
                end = (await other.bounds("two"))[0].end
                async with asyncio.timeout(20):
                    for _ in range(20):
                        await other.append([Message("one", b"k", b"from another")])
                        await served.append([Message("one", b"k", b"from beside it")])
                        assert await other.read({TopicPartition("two", 0): end - 1})
                os.kill(child.pid, signal.SIGCONT)
        finally:
            os.kill(child.pid, signal.SIGKILL)
    await other.close()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await served.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("FULL DISK NOT TESTED: mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_refuses_the_write_and_nothing_else(small_disk: Path):
    path, ballast = small_disk / "region.log", small_disk / "ballast"
    async with opened(path) as log:
        await asyncio.to_thread(ballast.write_bytes, b"x" * 2_000_000)
        kept: list[str] = []

        async def fill() -> None:
            for n in range(len(kept), 10_000):
                await log.append([Message("two", b"k", f"{n}".encode().ljust(9000))])
                kept.append(f"{n}".ljust(9000))

        for _ in range(2):
            with pytest.raises(StorageFullError, match="free some"):
                await fill()
            with pytest.raises(StorageFullError):  # refused again, and still alive
                await log.append([Message("one", b"k", os.urandom(900_000))])
            assert await everything(log, "two") == kept
        assert kept
        before = len(kept)
        ballast.unlink()
        await log.append([Message("two", b"k", b"there is room again")])
        kept.append("there is room again")
        await asyncio.to_thread(ballast.write_bytes, b"x" * 1_000_000)
        with pytest.raises(StorageFullError):
            await fill()
        assert len(kept) > before + 20
        assert await everything(log, "two") == kept
    ballast.unlink()
    async with opened(path) as log:
        assert await everything(log, "two") == kept


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
