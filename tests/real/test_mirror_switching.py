"""A plain consumer that changes sides goes on with exactly the next record, and back again.

(MirrorMaker 2 reads again up to what its samples leave open: KAFKA-12635, KAFKA-14666.)
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

import mirror_loads as loads
from engines.kafka import Brokers
from mirror_world import World, emptied
from transom.processes.mirror_orders import mirror_orders

GROUP = "app"


@pytest.fixture
async def world(brokers: Brokers, far_brokers: Brokers, tmp_path: Path) -> AsyncIterator[World]:
    async with emptied(brokers, far_brokers):
        yield World(brokers, far_brokers, tmp_path)


async def read(brokers: Brokers, topic: str, count: int) -> list[ConsumerRecord]:
    """The next `count` records that the group reads there; it commits each of them, and leaves."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=brokers.bootstrap,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    async with consumer, asyncio.timeout(60):
        found = []
        while len(found) < count:
            record = await consumer.getone()
            found.append(record)
            await consumer.commit({TopicPartition(record.topic, record.partition): record.offset + 1})
        return found


async def committed(brokers: Brokers, topic: str) -> dict[int, int]:
    """Where the group is."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers.bootstrap, group_id=GROUP, enable_auto_commit=False)
    async with consumer:
        found = {}
        for number in range(2):
            offset = await consumer.committed(TopicPartition(topic, number))
            if offset is not None:
                found[number] = offset
        return found


async def carried(
    there: Brokers,
    topic: str,
    expected: dict[int, int],
    seen_as: Callable[[int, int], int] = lambda _number, offset: offset,
) -> None:
    """Wait until the group is there where it is expected, its places `seen_as` the other side's; or behind
    it, where no records are.
    """
    found: dict[int, int] = {}
    try:
        async with asyncio.timeout(60):
            while not all(found.get(number, -1) >= offset for number, offset in expected.items()):
                await asyncio.sleep(0.2)
                held = await committed(there, topic)
                found = {number: seen_as(number, offset) for number, offset in held.items()}
    except TimeoutError:
        raise AssertionError(f"{found} and not {expected}") from None


def identity(record: ConsumerRecord) -> tuple[object, ...]:
    return record.partition, record.key, record.value, record.timestamp, record.headers


@pytest.mark.parametrize("transactions", [False, True])
async def test_a_consumer_goes_on_there_and_back_without_a_record_lost_or_read_twice(
    world: World,
    transactions: bool,  # noqa: FBT001
) -> None:
    seed = random.Random(3)
    if transactions:
        load, opened = await asyncio.to_thread(
            loads.transactional, world.source.bootstrap, "orders", seed, count=200, partitions=2
        )
        for transaction in opened:
            await asyncio.to_thread(transaction.commit)
    else:
        load = await asyncio.to_thread(
            loads.plain, world.source.bootstrap, "orders", seed, count=150, partitions=2
        )
    total = sum(load.expected.values())
    async with world.running():
        seen = await read(world.source, "orders", 40)
        await world.caught_up("orders")
        to_target = await world.translation()
        here = await committed(world.source, "orders")
        await carried(world.target, "eu.orders", {p: to_target("orders", p, o) for p, o in here.items()})
        seen += await read(world.target, "eu.orders", 30)
        # Back: the group has read there by itself, so its place at the source follows.
        there = await committed(world.target, "eu.orders")
        async with mirror_orders(world.config) as orders:
            back = {
                number: (await orders.translate(TopicPartition("orders", number), offset, back=True))[1]
                for number, offset in there.items()
            }
        to_target = await world.translation()
        place = partial(to_target, "orders")
        assert all(place(number, offset) >= there[number] for number, offset in back.items())
        # Where it has read nothing there it stays here, perhaps before the end of a transaction, which is no
        # record and stands for the same place.
        await carried(world.source, "orders", there, place)
        seen += await read(world.source, "orders", total - 70)
    assert len({identity(record) for record in seen}) == total
    assert len(seen) == total


async def test_a_group_is_moved_back_only_when_somebody_says_so(world: World) -> None:
    load = await asyncio.to_thread(
        loads.plain, world.source.bootstrap, "orders", random.Random(4), count=60, partitions=2
    )
    async with world.running():
        await world.check(load)
        await read(world.source, "orders", 60)
        ends = await committed(world.source, "orders")
        to_target = await world.translation()
        await carried(world.target, "eu.orders", {p: to_target("orders", p, o) for p, o in ends.items()})
        consumer = AIOKafkaConsumer(
            bootstrap_servers=world.source.bootstrap, group_id=GROUP, enable_auto_commit=False
        )
        async with consumer:
            consumer.assign([TopicPartition("orders", number) for number in range(2)])
            await consumer.commit({TopicPartition("orders", 0): 3, TopicPartition("orders", 1): 0})
        before = await committed(world.target, "eu.orders")
        async with mirror_orders(world.config) as orders:
            assert before == await committed(world.target, "eu.orders")
            moved = await orders.rewind(GROUP)
        assert {at.partition: offset for at, offset in moved.items()} == {
            0: to_target("orders", 0, 3),
            1: to_target("orders", 1, 0),
        }
        assert await committed(world.target, "eu.orders") == {
            p: to_target("orders", p, o) for p, o in ((0, 3), (1, 0))
        }
