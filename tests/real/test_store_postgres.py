"""The hub's store in a real PostgreSQL: order whoever writes, and nothing lost or doubled whatever breaks."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from commit_cutter import AFTER, BEFORE, commit_cutter
from engines.postgres import Postgres
from hub_parts import CLOCK, deployment, hub_log, put, region, tenant
from transom.catalog.kinds import shipped
from transom.hub import store_postgres
from transom.hub.changes import Change, Held
from transom.hub.relay import CHANGES, Relay, check_incarnation
from transom.hub.store import Store
from transom.hub.store_postgres_setup import postgres_database
from transom.logs.protocol import TopicPartition
from transom.model.errors import RewoundError, TransomError, UnreachableError
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

ALL = 10_000
COMMITTING = "store.committing"


async def opened(url: str, seed: int = 7) -> Store:
    return await Store.open(postgres_database(url, None, None), shipped(), CLOCK, Randomness(seed))


@contextlib.asynccontextmanager
async def stores(url: str, count: int) -> AsyncIterator[list[Store]]:
    """As many processes as that would have: connections and threads of their own."""
    async with contextlib.AsyncExitStack() as stack:
        made: list[Store] = []
        for seed in range(count):
            made.append(await opened(url, seed))
            stack.push_async_callback(made[-1].close)
        await made[0].write_all([put(tenant("acme")), *(put(region(name)) for name in ("ap", "eu", "us"))])
        yield made


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with stores(database, 1) as (made,):
        yield made


def at_step(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """Have `act` done the next time that a writer comes to a step, on the writer's thread."""
    left = [act]

    def step(passed: str) -> None:
        if passed == name and left:
            left.pop()()

    monkeypatch.setattr("transom.hub.store_write.step", step)


def meanwhile(act: Callable[[], object], times: int = 1) -> Change:
    """A change, before which `act` is done in the middle of its transaction, on the writer's thread."""
    left = [act] * times
    wanted = put(deployment("web"))

    def acting(held: Held) -> Held:
        if left:
            left.pop()()
        return wanted.wanted(held)

    return replace(wanted, wanted=acting)


async def revisions(store: Store) -> list[int]:
    """What is in the history; the outbox must have the same."""
    history = [event.revision for event in await store.events(0, ALL)]
    assert [row.revision for row in await store.outbox(0, ALL)] == history
    return history


def waits_for_the_counter(postgres: Postgres) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return postgres.execute(waiting) != [(0,)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


# --- one order, whoever writes -------------------------------------------------------------------------


async def test_two_processes_write_and_the_relay_skips_and_reorders_nothing(database: str) -> None:
    log = await hub_log()
    async with stores(database, 3) as (first, second, relaying), workers(CLOCK, Randomness(1)) as group:
        group.start("relay", Relay(relaying, log).run)

        async def write(store: Store, name: str) -> None:
            for number in range(40):
                # The same keys, from both sides.
                await store.write(put(deployment(f"app-{number % 3}", version=f"{name}-{number}")))

        async with asyncio.TaskGroup() as both:
            for name, store in (("a", first), ("b", second)):
                for part in range(3):
                    both.create_task(write(store, f"{name}{part}"))
        newest = max(first.changed.value, second.changed.value)
        assert await revisions(first) == list(range(1, newest + 1))
        told: list[str] = []
        at = {TopicPartition(CHANGES.name, 0): 0}
        async with asyncio.timeout(30):
            while len(told) < newest:
                entries = await log.read(at, wait_seconds=5)
                told += [dict(entry.headers)["ce_id"].decode() for entry in entries]
                at = {entry.position: entry.offset + 1 for entry in entries} or at
        assert told == [row.id for row in await first.outbox(0, ALL)]


async def test_who_accepts_first_commits_first_and_is_read_first(
    database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores(database, 3) as (slow, quick, reader):
        before = slow.changed.value
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            assert go_on.wait(8)

        at_step(monkeypatch, COMMITTING, hold)
        first = asyncio.create_task(slow.write(put(deployment("slow"))))
        await until(held.is_set)
        second = asyncio.create_task(quick.write(put(deployment("quick"))))
        await until(lambda: waits_for_the_counter(postgres))
        # Nothing of either is there: a relay that reads now must not go past the first.
        assert await reader.outbox(before, ALL) == []
        go_on.set()
        await asyncio.gather(first, second)
        rows = await reader.outbox(before, ALL)
        assert [(row.revision, row.aggregateid) for row in rows] == [
            (before + 1, "Deployment/acme/slow"),
            (before + 2, "Deployment/acme/quick"),
        ]


async def test_somebodys_long_transaction_stops_and_hides_nothing(database: str) -> None:
    async with stores(database, 2) as (store, reader):
        with psycopg.connect(database) as somebody:
            somebody.execute("SELECT pg_current_xact_id(), count(*) FROM resources")
            before = store.changed.value
            await store.write(put(deployment("meanwhile")))
            assert [row.revision for row in await reader.outbox(before, ALL)] == [before + 1]
            await reader.changed.above(before)
            await store.forget_outbox(before)


# --- connections that break ----------------------------------------------------------------------------


def end_sessions(postgres: Postgres, state: str = "%") -> None:
    query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
        WHERE application_name = 'transom hub' AND state LIKE %s"
    postgres.execute(query, state)


async def test_a_session_ended_in_the_middle_of_a_write_is_begun_again(
    store: Store, postgres: Postgres
) -> None:
    before = store.changed.value
    made = await store.write(meanwhile(lambda: end_sessions(postgres, "idle in transaction")))
    assert made is not None
    assert made.metadata.resource_version == str(before + 1)
    assert await revisions(store) == list(range(1, before + 2))


async def test_sessions_that_break_again_and_again_are_told_of(store: Store, postgres: Postgres) -> None:
    before = await revisions(store)
    change = meanwhile(lambda: end_sessions(postgres, "idle in transaction"), times=9)
    with pytest.raises(UnreachableError, match="terminating connection"):
        await store.write(change)
    assert await revisions(store) == before


@pytest.mark.parametrize("cut", [BEFORE, AFTER])
async def test_a_commit_whose_answer_is_lost_is_neither_done_nor_refused(
    cut: str, database: str, postgres: Postgres
) -> None:
    async with commit_cutter(postgres.port) as cutter, stores(database, 1) as (reader,):
        store = await opened(database.replace(f":{postgres.port}/", f":{cutter.port}/"))
        before = store.changed.value
        cutter.cut = cut
        at = TopicPartition("status", 0)
        changes = [put(deployment("web")), put(deployment("shop"))]
        with pytest.raises(UnreachableError, match="may or may not have happened"):
            await store.write_all(changes, reader="archive", offsets={at: 5})
        assert cutter.cuts == 1
        # All of it or nothing, and whoever writes it again gets what was wanted, once.
        done = 2 if cut is AFTER else 0
        assert await revisions(reader) == list(range(1, before + done + 1))
        assert await reader.positions_of("archive") == ({at: 5} if done else {})
        await store.write_all(changes, reader="archive", offsets={at: 5})
        assert await revisions(reader) == list(range(1, before + 3))
        assert await store.positions_of("archive") == {at: 5}
        (made, _) = sorted(
            await store.all_of("Deployment"), key=lambda each: each.metadata.name, reverse=True
        )
        assert made.metadata.resource_version == str(before + 1)
        # Whoever waits at this process learns of it as well.
        async with asyncio.timeout(30):
            await store.changed.above(before + 1)
        await store.close()


async def test_a_restarted_server_is_noticed_by_nobody(database: str, postgres: Postgres) -> None:
    async with stores(database, 2) as (first, second):
        await first.write(put(deployment("before")))
        postgres.restart()
        assert len(await first.all_of("Deployment")) == 1
        (made,) = await first.write_all([put(deployment("after"))])
        assert not isinstance(made, TransomError)
        async with asyncio.timeout(30):
            await second.changed.above(first.changed.value - 1)
        # Also hears again, not only looks.
        assert await revisions(second) == list(range(1, first.changed.value + 1))


async def test_a_server_that_is_away_is_told_of_and_comes_back(store: Store, postgres: Postgres) -> None:
    before = await revisions(store)
    postgres.kill()
    with pytest.raises(UnreachableError, match="cannot be used now"):
        await store.write(put(deployment("web")))
    with pytest.raises(UnreachableError, match="cannot be used now"):
        await store.outbox(0, ALL)
    postgres.start()
    assert await revisions(store) == before
    await store.write(put(deployment("web")))
    assert await revisions(store) == [*before, len(before) + 1]


async def test_a_server_that_answers_nothing_is_given_up(
    store: Store, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await revisions(store)
    monkeypatch.setattr(store_postgres.Link, "patience_seconds", 0.3)
    postgres.freeze()
    with pytest.raises(UnreachableError, match="no answer within"):
        await store.outbox(0, ALL)
    postgres.thaw()
    assert await revisions(store) == before


# --- others who do not go on ---------------------------------------------------------------------------


async def test_a_lock_that_is_never_let_go_is_told_of(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store_postgres._SESSION, "lock_timeout", "200ms")
    async with stores(database, 1) as (store,):
        with psycopg.connect(database) as somebody:
            somebody.execute("SELECT * FROM counter FOR UPDATE")
            with pytest.raises(UnreachableError, match="another session holds a lock"):
                await store.write(put(deployment("web")))
            # Reading never waits for it.
            assert await store.all_of("Deployment") == []
        await store.write(put(deployment("web")))


async def test_a_process_that_freezes_lets_go_of_the_counter_and_does_not_write_twice(
    database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store_postgres._SESSION, "idle_in_transaction_session_timeout", "200ms")
    async with stores(database, 2) as (frozen, other):
        before = frozen.changed.value
        stopped, go_on = threading.Event(), threading.Event()

        def freeze() -> None:
            stopped.set()
            assert go_on.wait(30)

        at_step(monkeypatch, COMMITTING, freeze)
        writing = asyncio.create_task(frozen.write(put(deployment("frozen"))))
        await until(stopped.is_set)
        await other.write(put(deployment("other")))
        go_on.set()
        made = await writing
        assert made is not None
        assert made.metadata.resource_version == str(before + 2)
        assert await revisions(other) == list(range(1, before + 3))


# --- storage that went back ----------------------------------------------------------------------------


async def test_a_restored_dump_begins_a_new_epoch_at_the_next_start_and_ends_what_runs(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    log = await hub_log()
    dump = tmp_path / "dump"
    async with stores(database, 1) as (store,):
        dump.write_bytes(postgres.tool("pg_dump", "--format=custom", database))
        await store.write(put(deployment("later")))
        async with workers(CLOCK, Randomness(1)) as group:
            group.start("relay", Relay(store, log).run)
            at = {TopicPartition(CHANGES.name, 0): 0}
            async with asyncio.timeout(30):
                while store.changed.value not in [
                    entry.offset + 1 for entry in await log.read(at, wait_seconds=5)
                ]:
                    await asyncio.sleep(0)
        postgres.tool("pg_restore", "--clean", f"--dbname={database}", str(dump))
        with pytest.raises(RewoundError, match="start the hub again"):
            await store.write(put(deployment("last")))
        # Also a process that only reads must not go on with what it believes.
        async with asyncio.timeout(30):
            while store.levels.rewound is None:
                await asyncio.sleep(0.01)
        with pytest.raises(RewoundError, match="start the hub again"):
            await store.outbox(0, ALL)
        with pytest.raises(RewoundError, match="start the hub again"):
            await store.get(tenant("acme").key)
    again = await opened(database)
    epoch = again.epoch
    await check_incarnation(again, log)
    assert again.epoch > epoch
    assert [item.metadata.name for item in await again.all_of("Deployment")] == []
    await again.close()


# --- kills ---------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from hub_parts import deployment, put
from test_store_postgres import opened
from transom.logs.protocol import TopicPartition

async def main():
    store = await opened(sys.argv[1])
    for number in range(1, 40):
        batch = [put(deployment(name, version=str(number))) for name in ("a", "b")]
        await store.write_all(batch, reader="archive", offsets={TopicPartition("status", 0): number})
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["store.committing:1", "store.committed:1", "store.committing:5"])
async def test_a_kill_loses_nothing_acknowledged_and_leaves_nothing_half(point: str, database: str) -> None:
    tests = Path(__file__).parents[1]
    async with stores(database, 1) as (store,):
        before = store.changed.value
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", WRITER, database, str(tests), str(tests / "real"), str(tests.parent)],
            env={**os.environ, "TRANSOM_DIE_AT": point},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        name, _, count = point.partition(":")
        committed = int(count) - (name == COMMITTING)
        assert len(done.stdout.split()) in (committed, committed - 1)
        last = before + 2 * committed
        # Its lock went with it, and what it committed without telling is learned of.
        (made,) = await store.write_all([put(deployment("after"))])
        assert not isinstance(made, TransomError)
        assert made is not None
        assert made.metadata.resource_version == str(last + 1)
        assert await revisions(store) == list(range(1, last + 2))
        held = {item.metadata.name: item.spec["version"] for item in await store.all_of("Deployment")}
        assert held == {**(dict.fromkeys("ab", str(committed)) if committed else {}), "after": "1"}
        assert await store.positions_of("archive") == (
            {TopicPartition("status", 0): committed} if committed else {}
        )
