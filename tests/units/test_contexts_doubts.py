"""What was refused stays in doubt over restarts, until the log was read again by a door that lets it in."""

import asyncio
import contextlib

import pytest
from tests.context_parts import ROWS_MAX, a_key, canaries, key_name, key_record

from transom.catalog.contexts import shipped_contexts
from transom.logs.memory import MemoryLog
from transom.logs.records import to_message
from transom.model.roads import CANARY_FAST, CONTEXTS, CONTEXTS_BULK
from transom.region.contexts.door import Door
from transom.region.contexts.doubts import DOUBTS_MAX, Doubts
from transom.region.contexts.table import ContextTable
from transom.region.gateway.decider import KeyDecider
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.signals import wait_any
from transom.runtime.signing import Trust, new_signer
from transom.tables.keeper import TOPIC_MARKS, keep
from transom.tables.memory import MemoryTable
from transom.tables.seals import Seals, seal
from transom.tables.sqlite import SqliteTable

OLD, NEXT = new_signer(), new_signer()


def test_a_key_is_in_doubt_until_a_good_record_of_it_comes() -> None:
    doubts = Doubts()
    assert not doubts
    doubts.add("a")
    before = doubts.changes
    doubts.add("a")
    doubts.settle("b")
    assert doubts.changes == before, "nothing that must be written"
    assert ("a" in doubts, "b" in doubts) == (True, False)
    doubts.settle("a")
    assert not doubts
    assert doubts.changes > before


def test_what_was_in_doubt_in_a_life_before_is_so_until_all_was_read_again() -> None:
    before, doubts = Doubts(), Doubts()
    for key in ("a", "b", "c"):
        before.add(key)
    doubts.recall(before.written())
    doubts.settle("a")
    doubts.add("c")
    assert [key in doubts for key in "abc"] == [False, True, True]
    third = Doubts()
    third.recall(doubts.written())
    assert [key in third for key in "abc"] == [False, True, True], "also when it ends before that"
    doubts.read_again()
    assert [key in doubts for key in "abc"] == [False, False, True]


def test_more_than_can_be_told_apart_leave_everything_in_doubt_over_a_restart_too() -> None:
    doubts, again = Doubts(), Doubts()
    for number in range(DOUBTS_MAX + 1):
        doubts.add(str(number))
    assert "another" in doubts
    assert len(doubts.written()) < 100
    again.recall(doubts.written())
    assert "another" in again
    again.read_again()
    assert not again


def test_doubts_that_cannot_be_read_leave_everything_in_doubt() -> None:
    doubts = Doubts()
    doubts.recall(b"rot")
    assert "anything" in doubts


class Life:
    """One life of a gateway, on what its disk holds."""

    def __init__(self, inner, *trusted) -> None:
        self.inner = inner
        self.door = Door(Seals("eu", Trust([each.public_text for each in trusted])), shipped_contexts())

    @contextlib.asynccontextmanager
    async def lived(self, log: MemoryLog | None = None):
        """It lives inside the block, and follows the log if there is one."""
        self.table = await ContextTable.open(self.inner, self.door, ManualClock(), ROWS_MAX)
        async with KeyDecider(self.table, self.door, ManualClock(), Randomness(1)) as self.decider:
            topics = (CONTEXTS, CONTEXTS_BULK)
            work = keep(self.table, log, topics, self.door.read) if log else asyncio.sleep(0)
            task = asyncio.create_task(work)
            try:
                yield self
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def status(self, key: bytes) -> int:
        return (await self.decider.decide(key, "", "GET")).status

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                levels = (self.table.changed, self.table.moved)
                await wait_any([(level, level.value) for level in levels])


async def say(log: MemoryLog, signer, *records, topic: str = CONTEXTS) -> None:
    headers = seal(records, "eu", signer)
    await log.append([to_message(topic, *pair) for pair in zip(records, headers, strict=True)])


@pytest.fixture(params=["memory", "sqlite"])
async def disk(request, tmp_path):
    inner = MemoryTable() if request.param == "memory" else await SqliteTable.open(tmp_path / "contexts.db")
    yield inner
    await inner.close()


@pytest.fixture
async def log():
    made = MemoryLog(SystemClock())
    await made.create(TOPICS)
    return made


def complete(revision: int):
    return canaries(revision, 1.0, count=revision)


async def test_a_revocation_that_was_refused_is_taken_in_before_its_position_is_reported(disk, log) -> None:
    key = a_key()
    await say(log, OLD, key_record(key, 1), complete(1)[0])
    await say(log, OLD, complete(1)[1], topic=CONTEXTS_BULK)
    async with Life(disk, OLD).lived(log) as life:
        await life.until(lambda: life.table.knows.complete)
        await say(log, NEXT, key_record(key, 5, revoked=True), complete(5)[0])
        await life.until(lambda: life.door.doubts(CANARY_FAST))
        assert life.table.knows.revision == 1
        assert await life.status(key) == 200, "the last good one stays"
    await say(log, NEXT, complete(6)[0])
    async with Life(disk, OLD, NEXT).lived(log) as life:
        assert life.door.doubts(key_name(key))
        await life.until(lambda: life.table.knows.revision == 6)
        assert await life.status(key) == 401
        await say(log, NEXT, complete(7)[0])  # with the next batch, it is also written that all is well
        await life.until(lambda: life.table.knows.revision == 7 and not life.door.doubted)
        await say(log, NEXT, complete(8)[0])
        await life.until(lambda: life.table.knows.revision == 8)
    async with Life(disk, OLD, NEXT).lived() as life:
        assert not life.door.doubted
        assert (await life.table.get(f"{TOPIC_MARKS}{CONTEXTS}")).value, "and nothing is read again"


async def test_a_key_whose_record_was_refused_is_not_unknown_after_a_restart_either(disk, log) -> None:
    key, unknown = a_key(), a_key()
    await say(log, OLD, key_record(key, 1))
    await say(log, NEXT, complete(1)[0])
    await say(log, NEXT, complete(1)[1], topic=CONTEXTS_BULK)
    async with Life(disk, NEXT).lived(log) as life:
        await life.until(lambda: life.table.knows.complete)
        assert (await life.status(key), await life.status(unknown)) == (503, 401)
    for feed in (None, log, log, None):
        async with Life(disk, NEXT).lived(feed) as life:
            assert (await life.status(key), await life.status(unknown)) == (503, 401)
            if feed:
                await life.until(lambda: key_name(key) in life.door.refused)
    await say(log, NEXT, key_record(key, 1), complete(2)[0])
    async with Life(disk, NEXT).lived(log) as life:
        await life.until(lambda: life.table.knows.revision == 2)
        assert (await life.status(key), await life.status(unknown)) == (200, 401)


async def test_what_is_in_the_log_no_more_is_in_doubt_no_more_once_that_was_read_again(disk, log) -> None:
    key = a_key()
    await log.append([to_message(CONTEXTS, key_record(key, 1))])  # sealed by nobody
    await say(log, OLD, complete(1)[0])
    await say(log, OLD, complete(1)[1], topic=CONTEXTS_BULK)
    async with Life(disk, OLD).lived(log) as life:
        await life.until(lambda: life.table.knows.complete)
        assert await life.status(key) == 503
    await log.truncate(CONTEXTS, 0, 1)
    async with Life(disk, OLD).lived(log) as life:
        await life.until(lambda: not life.door.doubted)
    async with Life(disk, OLD).lived() as life:
        assert await life.status(key) == 503, "it was not written yet"
    async with Life(disk, OLD).lived(log) as life:
        await life.until(lambda: not life.door.doubted)
        await say(log, OLD, complete(2)[0])
        await life.until(lambda: life.table.knows.revision == 2)
    async with Life(disk, OLD).lived() as life:
        assert await life.status(key) == 401
