import asyncio
import contextlib
import threading
from collections import Counter
from pathlib import Path

import pytest

from hub_parts import CLOCK, put, tenant
from kafka_logs import emptied_log
from store_places import store_at
from transom.catalog.kinds import shipped
from transom.hub import store_duties
from transom.hub.contexts.store import ContextStore
from transom.hub.duties import StoreRegistry, keeping_its_fence
from transom.hub.store import Store
from transom.hub.store_sqlite import SqliteDatabase
from transom.hub.store_write import Job
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Log, TopicPartition
from transom.model.errors import FencedError, InvalidError, UnreachableError
from transom.region.registry import LogRegistry
from transom.runtime.clock import ManualClock
from transom.runtime.duties import Duties, Registry
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

pytestmark = pytest.mark.usefixtures("each_engine")

NAMES = [f"duty-{number}" for number in range(7)]
SILENT = 6
"""Looks until a process that does not beat is dead to the others."""


class SharedFile(SqliteDatabase):
    """A file that several stores of this process open, as several processes do with PostgreSQL."""

    is_shared = True


class Hall:
    """Processes of one hub: each has a store and duties of its own, and looks when it is told to."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack, log: Log | None = None) -> None:
        self.folder = folder
        self.log = log
        self.stack = stack
        self.clock = ManualClock()
        self.doing: dict[str, set[str]] = {name: set() for name in NAMES}
        self.done: Counter[str] = Counter()
        self.stores: dict[str, Store] = {}

    async def store(self) -> Store:
        place = store_at(self.folder / "store.db")
        where = SharedFile(place) if isinstance(place, Path) else place
        store = await Store.open(where, shipped(), self.clock, Randomness(7))
        self.stack.push_async_callback(store.close)
        return store

    async def process(
        self, name: str, predecessor: str = "", log: str = "the log", address: str = ""
    ) -> Duties:
        group = await self.stack.enter_async_context(workers(CLOCK, Randomness(1)))
        works = {duty: self._work(name, duty) for duty in NAMES}
        registry: Registry
        if self.log is None:
            self.stores[name] = store = await self.store()
            registry = StoreRegistry(store)
        else:
            registry = LogRegistry(self.log)
        place = address or f"http://{name}"
        duties = Duties(
            registry, group, self.clock, Randomness(2), name, predecessor, {"log": log, "key": "k"}, place
        )
        await duties.begin(works)
        return duties

    def _work(self, name, duty):
        @contextlib.asynccontextmanager
        async def work(lease):
            assert (lease.duty, lease.holder) == (duty, name)
            self.doing[duty].add(name)
            self.done[duty] += 1
            try:
                yield
            finally:
                self.doing[duty].discard(name)

        return work

    def shares(self) -> Counter[str]:
        """How many duties each process does now; every duty is done by exactly one."""
        assert all(len(names) == 1 for names in self.doing.values()), self.doing
        return Counter(name for names in self.doing.values() for name in names)

    async def settle(self, *processes: Duties) -> None:
        for _ in range(3):
            for each in processes:
                for began in await each.look():
                    await began.wait()
                assert all(len(names) <= 1 for names in self.doing.values()), self.doing


@pytest.fixture
async def hall(tmp_path):
    """Processes that share a store."""
    async with contextlib.AsyncExitStack() as stack:
        yield Hall(tmp_path, stack)


@pytest.fixture(params=["store", "log"])
async def any_hall(request, each_engine, tmp_path):
    """Processes that share a store, or a log."""
    async with contextlib.AsyncExitStack() as stack:
        log = None
        if request.param == "log" and each_engine == "real":
            log = await stack.enter_async_context(emptied_log(request.getfixturevalue("brokers")))
        elif request.param == "log":
            log = MemoryLog(CLOCK)
        yield Hall(tmp_path, stack, log)


async def test_alone_it_does_everything_at_once(any_hall):
    duties = await any_hall.process("a")
    assert any_hall.shares() == {"a": len(NAMES)}
    assert all(duties.holds(name) for name in NAMES)


async def test_processes_share_evenly_as_they_come_and_go(any_hall):
    first = await any_hall.process("a")
    second = await any_hall.process("b")
    assert any_hall.shares() == {"a": 7}
    await any_hall.settle(first, second)
    assert any_hall.shares() == {"a": 4, "b": 3}
    third = await any_hall.process("c")
    await any_hall.settle(first, second, third)
    assert any_hall.shares() == {"a": 3, "b": 3, "c": 1}
    before = any_hall.done.total()
    await any_hall.settle(first, second, third)
    assert any_hall.done.total() == before, "who has its share keeps it"
    await second.close()
    await any_hall.settle(first, third)
    assert any_hall.shares() == {"a": 4, "c": 3}
    assert first.roster.leases["duty-6"].holder in ("a", "c")


async def test_who_does_not_beat_any_more_loses_what_it_did(any_hall):
    first, second = await any_hall.process("a"), await any_hall.process("b")
    await any_hall.settle(first, second)
    for _ in range(SILENT - 2):  # two of its looks have seen the same beat already
        await second.look()
    doing = {duty for duty, names in any_hall.doing.items() if "b" in names}
    assert len(doing) == 3
    for began in await second.look():
        await began.wait()
    assert all("b" in names for names in any_hall.doing.values())
    assert [each["alive"] for each in second.describe()] == [False, True]
    # It wakes, and learns it at its first look.
    await first.look()
    assert any_hall.shares() == {"b": 7}
    await any_hall.settle(second, first)
    assert any_hall.shares() == {"a": 3, "b": 4}


async def test_who_stood_still_takes_nothing_from_those_who_beat(any_hall):
    first, second = await any_hall.process("a"), await any_hall.process("b")
    await any_hall.settle(first, second)
    for _ in range(4 * SILENT):
        await first.look()
        await first.look()
        await second.look()
        assert any_hall.shares() == {"a": 4, "b": 3}


async def test_a_holder_that_beats_in_time_is_not_robbed(hall):
    first, second = await hall.process("a"), await hall.process("b")
    lease = second.roster.leases["duty-0"]
    beat = second.roster.members["a"].beat
    await first.look()
    take = lambda db, last: store_duties.take(db, lease, last, "b")  # noqa: E731
    assert await hall.stores["b"].within(lambda db: take(db, beat)) is None
    assert first.holds("duty-0")
    taken = await hall.stores["b"].within(lambda db: take(db, beat + 1))
    assert taken is not None
    assert taken.token == lease.token + 1
    assert await hall.stores["b"].within(lambda db: take(db, beat + 1)) is None, "it was taken already"


async def test_a_restarted_process_takes_its_own_place_at_once(any_hall):
    first, second = await any_hall.process("a"), await any_hall.process("b")
    await any_hall.settle(first, second)
    # What SIGKILL does.
    any_hall.doing = {duty: names - {"a"} for duty, names in any_hall.doing.items()}
    again = await any_hall.process("a2", predecessor="a")
    assert {duty for duty in NAMES if again.holds(duty)} == {duty for duty in NAMES if first.holds(duty)}
    assert "a" not in again.roster.members


async def test_the_long_dead_are_forgotten(any_hall):
    await any_hall.process("a")
    second = await any_hall.process("b")
    for _ in range(62):
        await second.look()
    assert list(second.roster.members) == ["b"]


async def test_a_former_holder_writes_nothing(hall):
    first, second = await hall.process("a"), await hall.store()
    lease = first.roster.leases["duty-0"]._replace(holder="a", token=1)
    held = hall.stores["a"].under(lease)
    await held.confirm()
    contexts = ContextStore(held)
    hall.stack.push_async_callback(contexts.close)
    await held.write_all([put(tenant("acme"))], reader="r", offsets={TopicPartition("t", 0): 5})
    await contexts.remember("x", b"1")
    await second.within(lambda db: store_duties.take(db, lease, None, "b"))
    before = await second.standing()
    for attempt in (
        held.confirm,
        lambda: held.write(put(tenant("b"))),
        lambda: held.write_all([], reader="r", offsets={TopicPartition("t", 0): 9}),
        lambda: contexts.remember("x", b"2"),
        lambda: contexts.write([], upto=9, unseen=[]),
        lambda: held.begin_epoch(before[0]),
        lambda: held.forget_outbox(9),
    ):
        with pytest.raises(FencedError, match="has taken over 'duty-0'"):
            await attempt()
    assert await second.standing() == before
    assert await second.positions_of("r") == {TopicPartition("t", 0): 5}
    assert await contexts.remembered("x") == b"1"
    assert await hall.stores["a"].outbox(0, 9)


async def test_who_shares_a_commit_with_a_former_holder_is_not_refused(hall):
    first = await hall.process("a")
    stale = hall.stores["a"].under(first.roster.leases["duty-0"]._replace(holder="a", token=0))
    fresh = hall.stores["a"].under(first.roster.leases["duty-1"]._replace(holder="a", token=1))
    jobs = []

    def job(store, name):
        jobs.append(Job((put(tenant(name)),), "", {}, store.leases))

    job(stale, "one")
    job(fresh, "two")
    job(hall.stores["a"], "three")
    came_of = hall.stores["a"]._commits._work(jobs)
    assert [type(each).__name__ for each in came_of] == ["FencedError", "Committed", "Committed"]
    assert sorted(each.metadata.name for each in await hall.stores["a"].all_of("Tenant")) == ["three", "two"]


async def test_what_cannot_begin_is_begun_again(tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        hall = Hall(tmp_path, stack)
        tries = []

        @contextlib.asynccontextmanager
        async def work(_lease):
            tries.append(1)
            if len(tries) == 1:
                raise UnreachableError("away")
            hall.clock.advance(1)
            yield

        group = await stack.enter_async_context(workers(CLOCK, Randomness(1)))
        duties = Duties(StoreRegistry(await hall.store()), group, CLOCK, Randomness(2), "a")
        await duties.begin({"it": work})
        while len(tries) < 2:
            await hall.store()
        assert duties.holds("it")
        await duties.close()


async def test_a_fence_taken_in_passing_is_taken_back_and_a_rival_is_not_fought(hall):
    first = await hall.process("a")
    store = hall.stores["a"].under(first.roster.leases["duty-0"]._replace(holder="a", token=1))
    runs = []

    async def worker():
        runs.append(hall.clock.monotonic())
        if len(runs) == 2:
            hall.clock.advance(60)
        raise FencedError("somebody took it")

    with pytest.raises(FencedError, match="somebody took it"):
        await keeping_its_fence(store, worker, hall.clock)
    assert len(runs) == 3, "the second time came a minute after the first, the third at once"
    await hall.stores["a"].within(lambda db: store_duties.take(db, next(iter(store.leases)), None, "b"))
    with pytest.raises(FencedError, match="has taken over"):
        await keeping_its_fence(store, worker, hall.clock)
    assert len(runs) == 4


async def test_a_lease_is_not_taken_in_the_middle_of_a_write(hall):
    """Who takes over reads all that the former holder has written; nothing of it comes later."""
    first, second = await hall.process("a"), await hall.store()
    lease = first.roster.leases["duty-0"]._replace(holder="a", token=1)
    order = []

    def take(db):
        assert store_duties.take(db, lease, None, "b")
        order.append("taken")

    taker = threading.Thread(target=lambda: second._writer_db.run(take))

    def write(_db):
        taker.start()
        taker.join(0.3)  # it has all the time it needs, if nothing holds it
        order.append("written")

    await hall.stores["a"].under(lease).within(write)
    await asyncio.to_thread(taker.join)
    assert order == ["written", "taken"]


@pytest.mark.parametrize(
    ("unlike", "why"),
    [
        ({"log": "another"}, "log: is not that of the process at http://a"),
        ({"log": "another", "predecessor": "a"}, "log: is not that of the process at http://a"),
        ({"address": "http://a"}, "address: is that of the process at http://a"),
    ],
)
async def test_a_process_that_does_not_fit_is_refused_while_the_others_live(any_hall, unlike, why):
    first = await any_hall.process("a")
    began = asyncio.create_task(any_hall.process("b", **unlike))
    while not any_hall.clock.sleeping:
        await asyncio.sleep(0)
    await first.look()
    any_hall.clock.advance(10)
    with pytest.raises(InvalidError, match=why):
        await began
    assert any_hall.shares() == {"a": 7}
    # The others are gone: what they had may have changed.
    began = asyncio.create_task(any_hall.process("b", **unlike))
    while not began.done():
        any_hall.clock.advance(1)
        await asyncio.sleep(0)
    assert "b" in (await began).roster.members
