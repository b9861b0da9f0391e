"""Following a log into a table: what cannot be read is left out alone, what is gone is passed over aloud."""

import asyncio

import pytest
from link_parts import CLOCK, running

from transom.logs.memory import MemoryLog
from transom.logs.protocol import Message, Topic, TopicPartition
from transom.logs.records import to_message
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
