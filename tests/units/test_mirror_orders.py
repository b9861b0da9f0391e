"""Orders and what processes tell, over a log."""

import pytest

from mirror_batches import batch_bytes, record
from transom.links.kafka.lane import Lane, Stopped
from transom.links.kafka.ledger import Gap
from transom.links.kafka.offset_map import OffsetMap
from transom.links.kafka.orders import ORDERS, Orders
from transom.links.kafka.resuming import Skip
from transom.links.kafka.shard import shard_of
from transom.links.kafka.status import (
    STATUS,
    PartitionStatus,
    ProcessStatus,
    gone_message,
    partition_status,
    read_status,
    status_message,
)
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Message, TopicPartition
from transom.processes.mirror_orders import newest_words
from transom.runtime.clock import ManualClock

AT = TopicPartition("orders.v1", 2)


@pytest.fixture
async def log():
    opened = MemoryLog(ManualClock())
    await opened.create([ORDERS, STATUS])
    yield opened
    await opened.close()


async def test_orders_are_heard_by_every_process_of_the_mirror_alone(log):
    ours, late, others = Orders(log, "ours"), Orders(log, "ours"), Orders(log, "others")
    await ours.pause("orders.v1")
    await ours.pause("payments")
    await ours.skip(AT, Skip("first", 5))
    await others.skip(AT, Skip("theirs", 6))
    assert await ours.read()
    assert ours.paused == {"orders.v1", "payments"}
    assert ours.skips == {AT: Skip("first", 5)}
    await ours.resume("payments")
    await ours.skip(AT, Skip("second", 9))
    for heard in (ours, late):
        assert await heard.read()
        assert heard.paused == {"orders.v1"}
        assert heard.skips == {AT: Skip("second", 9)}
        assert not await heard.read()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"ours/skip/orders/0", b"no JSON"),
        (b"ours/skip/orders/x", b'{"id":"a","to":1}'),
        (b"ours/skip/orders", b'{"id":"a","to":1}'),
        (b"ours/skip/orders/0", b'{"id":"a"}'),
        (b"ours", b"paused"),
        (b"\xff\xfe", b"paused"),
    ],
)
async def test_an_order_that_cannot_be_understood_keeps_no_other_from_being_heard(log, key, value):
    orders = Orders(log, "ours")
    await log.append([Message(ORDERS.name, key, value)])
    await orders.pause("payments")
    assert await orders.read()
    assert (orders.paused, orders.skips) == ({"payments"}, {})


async def test_the_newest_words_of_each_process_are_read(log):
    one, two = ProcessStatus("one", 1.0, (0, 1)), ProcessStatus("two", 2.0, troubles=("a broker is away",))
    for said in (one, two, ProcessStatus("three", 1.0), ProcessStatus("one", 3.0)):
        await log.append([status_message("ours", said)])
    await log.append([status_message("ours-2", two), gone_message("ours", "three")])
    await log.append([Message(STATUS.name, b"ours/four", b'{"of": "another release"}')])
    assert await read_status(log, "ours") == [ProcessStatus("one", 3.0), two]


def carries(process: str, at: float, *numbers: int) -> ProcessStatus:
    """A process with these partitions of one topic, and their shards."""
    shards = {shard_of(TopicPartition("orders", number)) for number in numbers}
    parts = [PartitionStatus("orders", number, "eu.orders", 1, 1, 0, 0.0, "mirroring") for number in numbers]
    return ProcessStatus(process, at, tuple(sorted(shards)), partitions=tuple(parts))


def test_what_a_dead_process_said_is_not_shown_once_others_have_its_shards():
    assert len({shard_of(TopicPartition("orders", number)) for number in range(3)}) == 3
    killed, idle = carries("a", 100.0, 0, 1), ProcessStatus("b", 100.0)
    assert newest_words([killed, idle]) == [killed, idle]
    assert newest_words([killed, idle, carries("c", 120.0, 0, 1)]) == [carries("c", 120.0, 0, 1)]
    for at in (105.0, 120.0):  # the other shard nobody has taken yet
        told = newest_words([killed, carries("c", at, 0, 2)])
        found = [(each.process, [one.partition for one in each.partitions]) for each in told]
        assert found == [("a", [1]), ("c", [0, 2])]


def lane() -> Lane:
    made = Lane(AT, TopicPartition("eu.orders.v1", 2), "a", OffsetMap(), 10, 0)
    made.high, made.newest_ms = 25, 90_000
    return made


def test_a_partition_tells_how_far_it_is_and_how_late():
    told = partition_status(lane(), (), 100.5)
    assert (told.topic, told.partition, told.target) == (*AT, "eu.orders.v1")
    assert (told.end, told.done, told.lag, told.lag_seconds) == (25, 10, 15, 10.5)
    assert (told.state, told.why) == ("mirroring", "")
    done = lane()
    done.fetch_at = 25
    done.fetched(memoryview(b""), [])
    assert (partition_status(done, (), 100.5).lag, partition_status(done, (), 100.5).lag_seconds) == (0, 0.0)


@pytest.mark.parametrize(
    ("about", "state", "why"),
    [
        ({"paused": True}, "paused", ""),
        ({"trouble": "it has no leader"}, "waiting", "it has no leader"),
        ({"lost": "fenced", "trouble": "slow"}, "waiting", "fenced"),
        ({"stopped": Stopped(7, "is damaged"), "paused": True}, "stopped", "at offset 7: is damaged"),
        ({"strangers": 3}, "mirroring", "3 records in the copy were written by somebody else"),
        ({"trouble": "slow", "strangers": 3}, "waiting", "slow; 3 records"),
    ],
)
def test_a_partition_tells_what_is_wrong(about, state, why):
    made = lane()
    for name, value in about.items():
        setattr(made, name, value)
    gaps = (Gap(1, 2, "was lost", 0.0),)
    told = partition_status(made, gaps, 0.0)
    assert (told.state, told.gaps) == (state, gaps)
    assert told.why.startswith(why)
    assert bool(told.why) == bool(why)


def test_what_waits_is_not_done():
    made = lane()
    made.fetched(memoryview(bytearray(batch_bytes([record(10), record(11)]))), [])
    assert partition_status(made, (), 0.0).done == 10
