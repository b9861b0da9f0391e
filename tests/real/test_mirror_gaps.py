"""What a source has lost is never passed over in silence: the partition stops there, alone, and says so, or
goes on and keeps a record of the gap. (MirrorMaker 2 goes on without a word.)
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

import mirror_loads as loads
from engines.kafka import Brokers
from mirror_checker import DifferentError, check
from mirror_copying import write as append
from mirror_reading import bounds, quietly, read
from mirror_world import World, emptied
from transom.links.kafka.status import PartitionStatus
from transom.logs.protocol import TopicPartition
from transom.processes.mirror_orders import mirror_orders

CONTINUE = 'when_lost = "continue"\nwhen_recreated = "continue"\n'


@pytest.fixture
async def empty_clusters(brokers: Brokers, far_brokers: Brokers) -> AsyncIterator[None]:
    async with emptied(brokers, far_brokers):
        yield


@pytest.fixture
def world(brokers: Brokers, far_brokers: Brokers, tmp_path: Path, empty_clusters: None) -> World:
    return World(brokers, far_brokers, tmp_path)


def write(world: World, topic: str, number: int, *, partitions: int = 2) -> loads.Load:
    return loads.plain(world.source.bootstrap, topic, random.Random(number), count=60, partitions=partitions)


def remove(world: World, befores: dict[Place, int]) -> None:
    admin = AdminClient(quietly(world.source.bootstrap))
    asked = [Place(at.topic, at.partition, before) for at, before in befores.items()]
    for answer in admin.delete_records(asked).values():
        answer.result(20)


async def stopped(world: World, topic: str, partition: int) -> PartitionStatus:
    told = await world.told(
        lambda parts: any(
            each.state == "stopped" and (each.topic, each.partition) == (topic, partition) for each in parts
        )
    )
    return next(each for each in told if (each.topic, each.partition) == (topic, partition))


async def more(world: World, topic: str, number: int) -> None:
    """More records of the same topic."""
    load = loads.Load(world.source.bootstrap, topic, {0: [], 1: []})
    writing = loads.Writing(load, {})
    randomness = random.Random(number)
    for each in range(40):
        writing.send(loads.random_record(randomness, 1000 + each, each % 2))
    await asyncio.to_thread(writing.flush)


async def lost(world: World) -> tuple[int, int]:
    """Mirror some, then have the source lose, while no mirror runs, what was not mirrored of partition 0."""
    await asyncio.to_thread(write, world, "orders", 1)
    async with world.running():
        await world.caught_up("orders")
    done = (await world.kept("orders", 0)).record
    assert done is not None
    end = (await asyncio.to_thread(bounds, world.source.bootstrap, "orders"))[0][1]
    await more(world, "orders", 2)
    await asyncio.to_thread(remove, world, {Place("orders", 0): end + 7})
    return end, end + 7


async def test_records_that_expired_before_they_were_mirrored_stop_their_partition_alone(
    world: World,
) -> None:
    begin, end = await lost(world)
    async with world.running():
        status = await stopped(world, "orders", 0)
        assert f"lost offsets {begin} to {end - 1}" in status.why
        await world.told(lambda parts: all(each.lag == 0 for each in parts if each.partition == 1))
        async with mirror_orders(world.config) as orders:
            await orders.skip(TopicPartition("orders", 0), end)
        await world.caught_up("orders")
    record = (await world.kept("orders", 0)).record
    assert record is not None
    assert [(gap.begin, gap.end) for gap in record.gaps] == [(begin, end), (begin, end)]
    to_target = await world.translation()
    copy = (await asyncio.to_thread(read, world.target.bootstrap, "eu.orders", committed=False))[0]
    between = range(to_target("orders", 0, begin), to_target("orders", 0, end))
    assert not [each for each in copy.records if each.offset in between], "nothing stands for what is lost"


async def test_by_configuration_it_goes_on_and_keeps_a_record_of_the_gap(
    brokers: Brokers, far_brokers: Brokers, tmp_path: Path, empty_clusters: None
) -> None:
    world = World(brokers, far_brokers, tmp_path, topics=CONTINUE)
    begin, end = await lost(world)
    async with world.running():
        await world.caught_up("orders")
        told = await world.told(lambda parts: any(each.gaps for each in parts))
        (gap,) = next(each.gaps for each in told if each.partition == 0)
        assert (gap.begin, gap.end) == (begin, end)


async def recreate(world: World) -> loads.Load:
    """Another topic of the same name, with more records than the one before had."""
    admin = AdminClient(quietly(world.source.bootstrap))
    for answer in admin.delete_topics(["orders"]).values():
        answer.result(20)
    while "orders" in admin.list_topics(timeout=20).topics:
        await asyncio.sleep(0.1)
    return await asyncio.to_thread(
        loads.plain, world.source.bootstrap, "orders", random.Random(5), count=400, partitions=2
    )


async def test_a_topic_made_anew_while_it_is_mirrored_is_noticed_and_never_mixed_in(world: World) -> None:
    first = await asyncio.to_thread(write, world, "orders", 1)
    async with world.running():
        await world.check(first)
        second = await recreate(world)
        status = await stopped(world, "orders", 0)
        assert "made anew" in status.why
        await stopped(world, "orders", 1)
        async with mirror_orders(world.config) as orders:
            for partition in range(2):
                await orders.skip(TopicPartition("orders", partition), 0)
        await world.caught_up("orders")
    with pytest.raises(DifferentError, match="400 records at the source, 460 in the copy"):
        await check(brokers_of(world)[0], brokers_of(world)[1], "orders", "eu.orders", second.expected)


def brokers_of(world: World) -> tuple[str, str]:
    return world.source.bootstrap, world.target.bootstrap


async def test_a_damaged_batch_stops_its_partition_alone_and_can_be_skipped(world: World) -> None:
    load = await asyncio.to_thread(write, world, "orders", 3)
    await asyncio.to_thread(damage, world, "orders", 0)
    async with world.running():
        status = await stopped(world, "orders", 0)
        assert "does not match its checksum" in status.why
        assert status.done < status.end
        await world.told(lambda parts: all(each.lag == 0 for each in parts if each.partition == 1))
        async with mirror_orders(world.config) as orders:
            await orders.skip(TopicPartition("orders", 0), load.expected[0])
        await world.told(lambda parts: all(each.lag == 0 for each in parts))


def damage(world: World, topic: str, partition: int) -> None:
    """Turn a byte in the last record on the broker's disk."""
    world.source.stop()
    segment = world.source.data(0) / f"{topic}-{partition}" / f"{0:020d}.log"
    held = bytearray(segment.read_bytes())
    held[-3] ^= 0xFF
    segment.write_bytes(held)
    world.source.start()


async def test_a_record_without_a_key_stops_a_copy_that_is_compacted_by_now(world: World) -> None:
    """A broker takes none there, though the source holds one from before it was compacted."""
    bootstrap = world.source.bootstrap
    await asyncio.to_thread(loads.make_topic, bootstrap, "keyless")
    await asyncio.to_thread(append, bootstrap, "keyless", [{"key": b"k", "value": b"1"}])
    await asyncio.to_thread(append, bootstrap, "keyless", [{"value": b"2"}])
    await asyncio.to_thread(compact, bootstrap, "keyless")
    async with world.running():
        status = await stopped(world, "keyless", 0)
        assert (status.done, status.end) == (1, 2)
        assert status.why.endswith("INVALID_RECORD; a compacted topic takes no record without a key")


def compact(bootstrap: str, topic: str) -> None:
    set_policy = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[set_policy])
    admin = AdminClient(quietly(bootstrap))
    for answer in admin.incremental_alter_configs([asked]).values():
        answer.result(20)


async def test_a_paused_topic_waits_and_the_others_do_not(world: World) -> None:
    for topic in ("orders", "payments"):
        await asyncio.to_thread(write, world, topic, 1)
    async with world.running():
        await world.caught_up("orders", "payments")
        async with mirror_orders(world.config) as orders:
            await orders.pause("orders")
            await world.told(
                lambda parts: all(each.state == "paused" for each in parts if each.topic == "orders")
            )
            await more(world, "orders", 2)
            await more(world, "payments", 2)
            await world.caught_up("payments")
            told = await world.told(lambda parts: True)
            assert {each.state for each in told if each.topic == "orders"} == {"paused"}
            ends = await asyncio.to_thread(bounds, world.source.bootstrap, "orders")
            await world.told(
                lambda parts: all(
                    each.lag and each.end == ends[each.partition][1]
                    for each in parts
                    if each.topic == "orders"
                )
            )
            await orders.resume("orders")
        await world.caught_up("orders")
