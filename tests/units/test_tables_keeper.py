"""Following a log into a table: what cannot be read is left out alone, what is gone is passed over aloud."""

import asyncio

import pytest
from link_parts import CLOCK, running

from transom.logs.memory import MemoryLog
from transom.logs.protocol import Message, Topic, TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model.errors import InvalidError, Problem
from transom.model.records import Record
from transom.model.version import Version
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable

TOPIC = "desired"
AT = TopicPartition(TOPIC, 0)


def record(key, counter):
    return Record(key, Version(1, counter, "hub"), b"%d" % counter)


@pytest.fixture
async def log():
    log = MemoryLog(CLOCK)
    await log.create([Topic(TOPIC, compact=True)])
    return log


async def read_upto(table, offset):
    async with asyncio.timeout(20):
        while True:
            seen = table.changed.value
            if (await table.positions()).get(AT, 0) == offset:
                return
            await table.changed.above(seen)


async def test_a_record_that_cannot_be_read_is_left_out_alone_and_the_last_good_one_stays(log):
    table = MemoryTable()
    await log.append([to_message(TOPIC, record("a", 1))])
    async with running(keep(table, log, [TOPIC])):
        await read_upto(table, 1)
        await log.append([Message(TOPIC, b"a", b"a record without a version"), Message(TOPIC, b"b", None)])
        await log.append([to_message(TOPIC, record("c", 2))])
        await read_upto(table, 4)
    assert await table.scan() == [record("a", 1), record("c", 2)]


async def test_what_was_removed_below_the_start_is_passed_over(log):
    table = MemoryTable()
    await log.append([to_message(TOPIC, record("a", number)) for number in range(1, 6)])
    await table.apply([record("a", 1)], {AT: 1})
    await log.truncate(TOPIC, 0, 4)
    async with running(keep(table, log, [TOPIC])):
        await read_upto(table, 5)
    assert await table.scan() == [record("a", 5)]


async def test_what_the_door_refuses_is_left_out_alone_and_told(log):
    table = MemoryTable()
    refused = []

    def door(entry):
        found = from_entry(entry)
        if found.value == b"2":
            refused.append(entry.offset)
            raise InvalidError("record", [Problem("", "not today")])
        return found

    await log.append([to_message(TOPIC, record("a", number)) for number in (1, 2)])
    await log.append([to_message(TOPIC, record("b", 3))])
    async with running(keep(table, log, [TOPIC], read=door)):
        await read_upto(table, 3)
    assert await table.scan() == [record("a", 1), record("b", 3)]
    assert refused == [1]


async def test_others_have_their_turn_while_a_large_batch_is_read(log):
    table = MemoryTable()
    turns = 0

    async def other():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    await log.append([to_message(TOPIC, record(f"k{number}", 1)) for number in range(1000)])
    async with running(other()), running(keep(table, log, [TOPIC])):
        before = turns
        await read_upto(table, 1000)
    assert turns - before >= 8
    assert await table.count() == 1000


async def test_it_takes_more_at_once_while_it_is_in_a_hurry(log):
    asked = []
    hurry = True

    class Asked:
        def __getattr__(self, name):
            return getattr(log, name)

        async def read(self, positions, *, most, wait_seconds):
            asked.append(most)
            return await log.read(positions, most=most, wait_seconds=wait_seconds)

    await log.append([to_message(TOPIC, record(f"k{number}", 1)) for number in range(10_000)])
    table = MemoryTable()
    async with running(keep(table, Asked(), [TOPIC], hurry=lambda: hurry)):
        await read_upto(table, 10_000)
        hurry = False
        await log.append([to_message(TOPIC, record("more", 2))])
        await read_upto(table, 10_001)
        await log.append([to_message(TOPIC, record("more", 3))])
        await read_upto(table, 10_002)
    assert asked[0] == 8000
    assert asked[-1] == 1000


async def test_a_topic_made_anew_is_read_from_its_start(log):
    """What a region kept outlives its log: the offsets it held mean nothing in the next one."""
    table = MemoryTable()
    await log.append([to_message(TOPIC, record(f"k{number}", number)) for number in range(1, 6)])
    async with running(keep(table, log, [TOPIC])):
        await read_upto(table, 5)
    anew = MemoryLog(CLOCK)
    await anew.create([Topic(TOPIC, compact=True)])
    await anew.append([to_message(TOPIC, record(f"k{number}", number + 10)) for number in range(1, 9)])
    async with running(keep(table, anew, [TOPIC])):
        await read_upto(table, 8)
    assert [row.version.counter for row in await table.scan()] == [11, 12, 13, 14, 15, 16, 17, 18]
