"""Processes that share a store wake each other, and whoever is not told looks by itself."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event
from test_store_postgres import stores

from engines.postgres import Postgres
from hub_parts import deployment, hub_log, put, region
from transom.hub import store_postgres_watch
from transom.hub.contexts.row import BULK, FAST, Row
from transom.hub.contexts.store import ContextStore
from transom.hub.relay import Relay
from transom.hub.store import Store
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

NEVER_SECONDS = 3600.0


@pytest.fixture
def told_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks unasked, so that whoever is woken was told."""
    monkeypatch.setattr(store_postgres_watch, "_LOOK_SECONDS", NEVER_SECONDS)


@pytest.fixture
def looking_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells, as when whoever committed died before it could."""
    monkeypatch.setattr(store_postgres_watch.PostgresWatch, "ring", lambda _watch: None)


@pytest.fixture(params=["told_only", "looking_only"])
def either_way(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(request.param)


@pytest.fixture
async def pair(either_way: None, database: str) -> AsyncIterator[list[Store]]:
    async with stores(database, 2) as made, asyncio.timeout(60):
        for store in made:
            while store.levels.known < made[0].changed.value:
                await store.changed.above(store.changed.value)
        yield made


async def test_another_process_is_woken_for_what_was_described(pair: list[Store]) -> None:
    writing, waiting = pair
    seen = waiting.changed.value
    levels = [waiting.changed, waiting.described("Region"), waiting.changed_for("ap")]
    untouched = [waiting.described("Tenant"), waiting.changed_for("eu")]
    await writing.write(put(region("mars")))
    await asyncio.gather(*(level.above(seen) for level in levels[:2]))
    assert [level.value for level in levels] == [seen + 1, seen + 1, seen]
    assert [level.value for level in untouched] == [seen, seen]


async def test_another_process_is_woken_for_contexts_by_lane(pair: list[Store]) -> None:
    writing, waiting = pair
    here, there = ContextStore(writing), ContextStore(waiting)
    for each in (here, there):
        await each.open()
    news = there.news.value
    row = Row("a", "k", "", "s", 1, 0, 0, BULK, "*", "", "", False, False, b"{}")
    written = await here.write([row, row._replace(key="b")], upto=0, unseen=[])
    await there.changed[BULK].above(0)
    assert there.changed[BULK].value == written.revision
    assert (there.changed[FAST].value, there.news.value) == (0, news)
    written = await here.write([row._replace(key="c", lane=FAST)], upto=0, unseen=[])
    await there.news.above(news)
    assert there.changed[FAST].value == written.revision
    for each in (here, there):
        await each.close()


async def test_a_new_epoch_is_heard_of(pair: list[Store]) -> None:
    writing, other = pair
    await writing.begin_epoch(writing.epoch)
    await writing.write(put(deployment()))
    await other.changed.above(other.changed.value)
    assert other.epoch == writing.epoch


async def test_what_this_process_writes_is_known_without_asking(told_only: None, database: str) -> None:
    async with stores(database, 1) as (store,):
        for number in range(5):
            await store.write(put(deployment(f"d{number}")))
            assert store.levels.known == store.changed.value


async def test_both_write_and_each_is_told_of_the_others(told_only: None, database: str) -> None:
    async with stores(database, 2) as (first, second), asyncio.timeout(60):
        levels = [store.described("Deployment") for store in (first, second)]

        async def write(store: Store, name: str) -> None:
            for number in range(30):
                await store.write(put(deployment(f"{name}{number}")))

        await asyncio.gather(write(first, "a"), write(second, "b"))
        newest = max(level.value for level in levels)
        for level in levels:
            await level.above(newest - 1)


async def test_the_relay_of_one_process_wakes_on_a_write_of_another(told_only: None, database: str) -> None:
    log = await hub_log()
    async with stores(database, 2) as (writing, relaying), workers(SystemClock(), Randomness(1)) as group:
        group.start("relay", Relay(relaying, log).run)
        for number in range(3):
            await writing.write(put(deployment(f"d{number}")))
            async with asyncio.timeout(30):
                while (await log.bounds("changes"))[0].end < writing.changed.value:
                    await asyncio.sleep(0.01)


async def test_a_watch_whose_session_ends_listens_again(
    told_only: None, database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_postgres_watch, "_AWAY_SECONDS", 0.01)
    async with stores(database, 2) as (writing, waiting), asyncio.timeout(60):
        for number in range(3):
            seen = writing.changed.value
            postgres.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                    WHERE application_name = 'transom hub'"
            )
            await writing.write(put(deployment(f"d{number}")))
            await waiting.changed.above(seen)


async def test_looking_costs_one_small_query(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_postgres_watch, "_LOOK_SECONDS", 0.01)
    async with stores(database, 1) as (store,):
        (watch,) = [store.levels._watch]
        assert isinstance(watch, store_postgres_watch.PostgresWatch)
        asked: list[str] = []
        event.listen(watch._engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
        async with asyncio.timeout(60):
            while len(asked) < 20:
                await asyncio.sleep(0.01)
        # At first it may still begin, and tell of the writes above.
        assert {" ".join(query.split()) for query in asked[10:]} == {
            "SELECT counter.epoch, counter.revision FROM counter"
        }
