"""A mirror while brokers die, roads are cut and somebody else writes where it does: copies stay exact, or it
says what is wrong.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import mirror_loads as loads
from engines.kafka import Brokers
from engines.proxy import FETCH, PRODUCE, before, kafka_request
from mirror_copying import raw, write
from mirror_reading import read
from mirror_world import PATIENCE_SECONDS, World, emptied
from mirror_writers import Writer
from transom.links.kafka.status import ProcessStatus
from transom.model.errors import NotFoundError
from transom.processes.mirror_orders import MirrorOrders, mirror_orders


@contextlib.asynccontextmanager
async def writing(world: World, topic: str) -> AsyncIterator[Writer]:
    """Producers write inside the block, while the mirror runs; afterwards the copy is exact."""
    writer = await asyncio.to_thread(Writer, world.source.bootstrap, topic, 5)
    await writer.times(3)
    async with world.running():
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.until(done.is_set))
            try:
                yield writer
            finally:
                done.set()
        await writer.times(3)
        assert (await world.check(writer.load)).records > 100


@pytest.mark.soak
async def test_brokers_of_either_side_die_and_come_back(
    brokers: Brokers, far_brokers: Brokers, tmp_path: Path
) -> None:
    async with emptied(brokers, far_brokers):
        world = World(brokers, far_brokers, tmp_path)
        async with writing(world, "struck") as writer:
            for side in (far_brokers, brokers):
                await writer.grown(200)
                await asyncio.to_thread(side.kill)
                await asyncio.to_thread(side.start)
            await writer.grown(200)


async def test_produces_and_fetches_are_cut_in_the_middle_on_a_slow_road(
    brokers: Brokers, far_brokers: Brokers, tmp_path: Path
) -> None:
    async with emptied(brokers, far_brokers), before(brokers) as (here,), before(far_brokers) as (there,):
        here.delay_seconds = there.delay_seconds = 0.02
        world = World(brokers, far_brokers, tmp_path, ways=(here.address, there.address))
        async with writing(world, "cut"):
            await world.told(lambda parts: any(each.done for each in parts))
            for in_answer in (False, True):
                for proxy, key in ((there, PRODUCE), (here, FETCH)):
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await proxy.cut_at(kafka_request(key), 2, in_answer=in_answer).wait()


async def test_a_long_road_parts_nobody_from_what_is_carried(
    brokers: Brokers, far_brokers: Brokers, tmp_path: Path
) -> None:
    """Taking all shards takes longer on this road than the group waits for a member to be heard of."""
    async with emptied(brokers, far_brokers), before(far_brokers) as (there,):
        world = World(brokers, far_brokers, tmp_path, ways=(brokers.bootstrap, there.address))
        await asyncio.to_thread(loads.make_topic, brokers.bootstrap, "distant")
        there.delay_seconds = 0.1
        async with world.running():
            for number in range(3):
                await asyncio.to_thread(write, brokers.bootstrap, "distant", [{"value": b"%d" % number}])
                await world.caught_up("distant")
        assert "goes to another process" not in world.parts[0].output()


@pytest.mark.soak
async def test_leaders_move_and_brokers_die_in_turn(
    brokers3: Brokers, far_brokers: Brokers, tmp_path: Path
) -> None:
    async with emptied(brokers3, far_brokers):
        world = World(far_brokers, brokers3, tmp_path, topics="replication_factor = 3")
        async with writing(world, "moved") as writer:
            for number in (1, 2, 1, 2):
                await writer.grown(200)
                await asyncio.to_thread(brokers3.kill, number)
                await writer.grown(200)
                await asyncio.to_thread(brokers3.start, number)


async def test_a_second_mirror_into_the_same_copies_is_refused(
    brokers: Brokers, far_brokers: Brokers, tmp_path: Path
) -> None:
    async with emptied(brokers, far_brokers):
        world = World(brokers, far_brokers, tmp_path)
        other = World(brokers, far_brokers, tmp_path, name="other")
        async with writing(world, "wanted"):
            await world.told(lambda parts: any(each.done for each in parts))
            async with other.running(), mirror_orders(other.config) as orders:
                said = (
                    "wanted: mirror 'test' makes it from its 'wanted'; give one of the sources another name"
                )
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not any(said in each.troubles for each in await _told(orders)):
                        await asyncio.sleep(0.1)


async def test_what_somebody_else_writes_into_a_copy_is_noticed_and_leaves_offsets_exact(
    brokers: Brokers, far_brokers: Brokers, tmp_path: Path
) -> None:
    async with emptied(brokers, far_brokers):
        world = World(brokers, far_brokers, tmp_path)
        load = await asyncio.to_thread(loads.make_topic, brokers.bootstrap, "shared")
        async with world.running():
            for number in range(3):
                await asyncio.to_thread(write, brokers.bootstrap, "shared", [{"value": b"%d" % number}] * 5)
                await world.caught_up("shared")
                await asyncio.to_thread(write, far_brokers.bootstrap, "eu.shared", [{"value": b"strange"}])
            await asyncio.to_thread(write, brokers.bootstrap, "shared", [{"value": b"last"}])
            await world.caught_up("shared")
            told = "3 records in the copy were written by somebody else"
            await world.told(lambda parts: any(each.why == told for each in parts))
        here = (await asyncio.to_thread(read, brokers.bootstrap, "shared", committed=True))[0].records
        there = await asyncio.to_thread(raw, far_brokers.bootstrap, "eu.shared")
        held = {one.offset(): one.value() for one in there}
        to_target = await world.translation()
        mirrored = [to_target(load.topic, 0, one.offset) for one in here]
        assert [held[at] for at in mirrored] == [one.value for one in here]
        assert [value for at, value in held.items() if at not in mirrored] == [b"strange"] * 3


async def _told(orders: MirrorOrders) -> list[ProcessStatus]:
    with contextlib.suppress(NotFoundError):  # while it has said nothing yet
        return await orders.status()
    return []
