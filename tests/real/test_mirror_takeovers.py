"""Two processes of a mirror: they share the work, one takes over what another had, and whoever wakes up too
late writes nothing any more.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from benchmarks.plant import Part

from engines.kafka import Brokers
from mirror_world import PATIENCE_SECONDS, World, emptied
from mirror_writers import Writer
from transom.links.kafka.ledger import SHARDS
from transom.links.kafka.status import ProcessStatus
from transom.processes.mirror_orders import mirror_orders
from transom.runtime.steps import POINTS

CARRY_POINTS = [point for point in POINTS if point.startswith("carry.")]
PARTITIONS = 8
"""Of each topic, so that every shard has one."""


@pytest.fixture
async def world(brokers: Brokers, far_brokers: Brokers, tmp_path: Path) -> AsyncIterator[World]:
    async with emptied(brokers, far_brokers):
        made = World(brokers, far_brokers, tmp_path, processes=2)
        yield made
        made.kill()


@pytest.fixture
async def writer(world: World) -> Writer:
    made = await asyncio.to_thread(Writer, world.source.bootstrap, "shared", 3, PARTITIONS)
    await made.times(5)
    return made


async def test_work_is_shared_and_goes_to_the_other_when_one_dies(world: World, writer: Writer) -> None:
    first, _ = world.parts
    async with world.running():
        await _writing_until(writer, _divided(world))
        await world.caught_up("shared")
        first.kill()
        await writer.times(10)
        assert (await world.check(writer.load)).records > 300


@pytest.mark.parametrize(
    ("first_at", "second_at"),
    [
        ("carry.fetched:8", "carry.taken:8"),  # wakes up when all is taken from it and nothing written yet
        ("carry.marked:4", ""),  # wakes up when the other, which took the shard later, is writing
    ],
)
async def test_who_was_frozen_while_another_took_over_writes_nothing(
    world: World, writer: Writer, first_at: str, second_at: str
) -> None:
    await _freeze_and_thaw(world, writer, first_at, second_at)


@pytest.mark.soak
@pytest.mark.parametrize("point", CARRY_POINTS)
async def test_soak_of_frozen_processes(world: World, writer: Writer, point: str) -> None:
    seed = int(os.environ.get("TRANSOM_SEED", "1000"))
    randomness = random.Random(f"{seed}{point}")
    for number in range(20):
        second_at = randomness.choice(["", *(f"{each}:{randomness.randint(1, 8)}" for each in CARRY_POINTS)])
        print(f"{point}, {number}: {second_at}", flush=True)  # noqa: T201
        await _freeze_and_thaw(world, writer, f"{point}:{randomness.randint(1, 8)}", second_at)
        world.kill()


async def _freeze_and_thaw(world: World, writer: Writer, first_at: str, second_at: str) -> None:
    """Freeze the first process, have the second take over and wake up the first; the second is frozen too,
    at its own point, until the first has taken over again.
    """
    first, second = world.parts
    first.start(freeze_at=first_at)
    await _writing_until(writer, _frozen(first))
    second.start(freeze_at=second_at)
    if second_at:
        await _writing_until(writer, _frozen(second))
    else:
        await world.caught_up("shared")
    first.signal(signal.SIGCONT)
    if second_at:
        await writer.times(5)
        await world.caught_up("shared")
        second.signal(signal.SIGCONT)
    await _writing_until(writer, _divided(world))
    for part in world.parts:
        assert part.running, part.output()[-3000:]
    await writer.times(5)
    assert (await world.check(writer.load)).records > 300


Look = Callable[[], Awaitable[bool]]


def _frozen(part: Part) -> Look:
    """Whether a process is stopped."""

    async def frozen() -> bool:
        assert part.running, part.output()[-3000:]
        return part.frozen

    return frozen


def _divided(world: World) -> Look:
    """Whether two processes say that they have all shards between them, and each has some."""

    async def divided() -> bool:
        async with mirror_orders(world.config) as orders:
            told: list[ProcessStatus] = await orders.status()
        newest = sorted(told, key=lambda each: each.at)[-2:]
        return all(each.shards for each in newest) and sorted(
            shard for each in newest for shard in each.shards
        ) == list(range(SHARDS))

    return divided


async def _writing_until(writer: Writer, done: Look) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await done():
            await asyncio.to_thread(writer.write)
            await asyncio.sleep(0.1)
