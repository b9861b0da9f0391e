"""Following a log into a table: what cannot be read is left out alone, what is gone is passed over aloud."""

import asyncio

import pytest
from link_parts import CLOCK, running
from structlog.testing import capture_logs

from transom.logs.memory import MemoryLog
from transom.logs.protocol import Message, Topic, TopicInfo, TopicPartition
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


class Named(MemoryLog):
    """A log whose topic is known by one name through every loss: as a copy that is put back has it."""

    async def topics(self, names=None):
        found = await super().topics(names)
        return {name: TopicInfo(info.topic, "the same") for name, info in found.items()}


async def a_log_with(*counters):
    log = Named(CLOCK)
    await log.create([Topic(TOPIC, compact=True)])
    await log.append([to_message(TOPIC, record(f"k{counter % 10}", counter)) for counter in counters])
    return log


async def followed(table, log, upto):
    """Follow `log` until all of it is read; the offsets that were asked for."""
    asked = []
    read = log.read

    async def noted(positions, **how):
        if how.get("wait_seconds"):
            asked.append(positions[AT])
        return await read(positions, **how)

    log.read = noted
    async with running(keep(table, log, [TOPIC])), asyncio.timeout(20):
        while not asked or asked[-1] < upto:
            await asyncio.sleep(0)
    return asked


async def test_a_topic_put_back_to_an_earlier_copy_that_has_grown_since_is_read_from_its_start():
    table = MemoryTable()
    await followed(table, await a_log_with(*range(1, 9)), 8)
    # The copy had four; what was lost came again, but for what was superseded, and more than that.
    put_back = await a_log_with(1, 2, 3, 4, 6, 7, 8, 15, 16, 20, 29)
    assert await followed(table, put_back, 11) == [0, 11]
    assert [row.version.counter for row in await table.scan()] == [20, 1, 2, 3, 4, 15, 16, 7, 8, 29]
    assert await followed(table, put_back, 11) == [11], "once"


async def test_a_topic_put_back_that_is_shorter_than_what_was_read_is_read_from_its_start():
    table = MemoryTable()
    await followed(table, await a_log_with(*range(1, 9)), 8)
    assert (await followed(table, await a_log_with(1, 2, 3, 14), 4))[0] == 0
    assert (await table.get("k4")).version.counter == 14


async def test_a_topic_that_is_the_same_is_read_on_also_when_it_was_compacted_or_holds_what_was_refused():
    table = MemoryTable()
    log = await a_log_with(*range(1, 9), 11)
    await log.append([Message(TOPIC, b"k2", b"a record without a version")])
    await followed(table, log, 10)
    await log.clean(CLOCK)
    assert await followed(table, log, 10) == [10]
    await log.append([to_message(TOPIC, record("k2", 12))])
    assert await followed(table, log, 11) == [10, 11]


async def test_refused_records_without_end_are_some_lines_and_not_a_flood(log):
    table = MemoryTable()
    await log.append([Message(TOPIC, b"a", b"no version") for _ in range(1500)])
    with capture_logs() as lines:
        async with running(keep(table, log, [TOPIC])):
            await read_upto(table, 1500)
    told = [line["count"] for line in lines if line["event"] == "record refused"]
    assert told == [*range(1, 21), 1000]


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
