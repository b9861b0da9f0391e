"""What was refused stays in doubt over restarts, until the log was read again by a door that lets it in."""

import asyncio
import contextlib

import msgspec
import pytest
from tests.context_parts import ROWS_MAX, a_key, canaries, key_name, key_record

from transom.catalog.contexts import shipped_contexts
from transom.logs.memory import MemoryLog
from transom.logs.records import to_message
from transom.model.roads import CONTEXTS, CONTEXTS_BULK
from transom.region.contexts.door import Door
from transom.region.contexts.doubts import DOUBTS_MAX, Doubts
from transom.region.contexts.table import ContextTable
from transom.region.gateway.decider import KeyDecider
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.signing import Trust, new_signer
from transom.tables.keeper import keep
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
    """One life of a gateway over a log and what its disk holds."""

    def __init__(self, log: MemoryLog, inner, *trusted) -> None:
        self.log, self.inner = log, inner
        self.door = Door(Seals("eu", Trust([each.public_text for each in trusted])), shipped_contexts())

    @contextlib.asynccontextmanager
    async def lived(self, upto: int = 0):
        """It lives inside the block, which begins when it has read the log up to an offset of each topic."""
        self.table = await ContextTable.open(self.inner, self.door, ManualClock(), ROWS_MAX)
        async with KeyDecider(self.table, self.door, ManualClock(), Randomness(1)) as self.decider:
            if not upto:
                yield self
                return
            task = asyncio.create_task(
                keep(self.table, self.log, (CONTEXTS, CONTEXTS_BULK), self.door.read)
            )
            async with asyncio.timeout(20):
                while self.door.doubted.changes < upto:
                    await asyncio.sleep(0)
            yield self
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def status(self, key: bytes) -> int:
        return (await self.decider.decide(key, "", "GET")).status

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not await condition():
                await self.table.changed.above(self.table.changed.value, 1)


async def say(log: MemoryLog, signer, *records, topic: str = CONTEXTS) -> None:
    headers = seal(records, "eu", signer)
    await log.append([to_message(topic, *pair) for pair in zip(records, headers, strict=True)])
