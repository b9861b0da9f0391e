"""Two processes of a mirror: they share the work, one takes over what another had, and whoever wakes up too
late writes nothing any more.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.plant import Part

from engines.kafka import Brokers
from kafka_logs import emptied_log
from mirror_reading import bounds
from mirror_world import PATIENCE_SECONDS, World, emptied
from mirror_writers import Writer
from transom.links.kafka import shard
from transom.links.kafka.ledger import SHARDS
from transom.links.kafka.mirroring import MAP
from transom.links.kafka.resuming import Policy
from transom.links.kafka.shard import Ends, Shard, shard_of, take_shard
from transom.links.kafka.status import ProcessStatus
from transom.links.kafka.topic_plan import Copy
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_produce import ProducerLostError
from transom.logs.kafka_transactions import end_transaction
from transom.logs.protocol import TopicPartition
from transom.processes.mirror_orders import mirror_orders
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.steps import POINTS

CARRY_POINTS = [point for point in POINTS if point.startswith("carry.")]
PARTITIONS = 8
"""Of each topic, so that every shard has one."""
FIRST = next(number for number in range(PARTITIONS) if not shard_of(TopicPartition("shared", number)))
"""The partition of the first shard."""
Bounds = dict[int, tuple[int, int]]


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
        await _until(_divided(world))
        await world.caught_up("shared")
        first.kill()
        await writer.times(10)
        assert (await world.check(writer.load)).records > 300


async def test_who_wakes_up_when_its_shards_are_taken_writes_nothing(world: World, writer: Writer) -> None:
    """The first wakes up with a batch in its hands whose break is kept, when the second knows where the
    partition goes on, and has not written there yet.
    """
    first, second = world.parts
    first.start(freeze_at="carry.kept")
    await _until(_frozen(first))
    second.start(freeze_at="carry.taken")  # of the first shard
    await _until(_frozen(second))
    before = await asyncio.to_thread(bounds, world.target.bootstrap, "eu.shared")
    first.signal(signal.SIGCONT)
    await _until(_grown(world, before))
    second.signal(signal.SIGCONT)
    await _settled(world, writer)


async def test_who_is_overtaken_while_it_takes_a_shard_gives_up(
    far_brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another takes the shard between its mark and its next epoch, and may write from then on."""
    cluster = KafkaCluster(parse_address(f"kafka://{far_brokers.bootstrap}"), SystemClock(), Randomness())
    ends = Ends("overtaken", cluster, cluster, SystemClock())
    taken: list[Shard] = []

    async def take() -> Shard:
        return await take_shard(3, ends, [], Policy(), {})

    async def ended(*args: Any, **more: Any) -> None:
        await end_transaction(*args, **more)
        monkeypatch.undo()
        taken.append(await take())

    async with emptied_log(far_brokers) as log:
        await log.create([MAP])
        monkeypatch.setattr(shard, "end_transaction", ended)
        with pytest.raises(ProducerLostError, match="another process"):
            await take()
        await taken[0].keep_copies({"copy": Copy("overtaken", "original")})
        await cluster.close()


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
    async with asyncio.TaskGroup() as group:
        done = asyncio.Event()
        group.create_task(writer.until(done.is_set))
        first.start(freeze_at=first_at)
        await _until(_frozen(first))
        second.start(freeze_at=second_at)
        if second_at:
            await _until(_frozen(second))
        else:
            await world.caught_up("shared")
        first.signal(signal.SIGCONT)
        if second_at:
            await world.caught_up("shared")
            second.signal(signal.SIGCONT)
        await _until(_divided(world))
        done.set()
    await _settled(world, writer)


async def _settled(world: World, writer: Writer) -> None:
    """Both go on, and the copy is exact."""
    await _until(_divided(world))
    for part in world.parts:
        assert part.running, part.output()[-3000:]
    await writer.times(5)
    assert (await world.check(writer.load)).records > 100


Look = Callable[[], Awaitable[bool]]


def _frozen(part: Part) -> Look:
    """Whether a process is stopped."""

    async def frozen() -> bool:
        assert part.running, part.output()[-3000:]
        return part.frozen

    return frozen


def _grown(world: World, before: Bounds) -> Look:
    """Whether the copy has more in the partition of the first shard than a mark."""

    async def grown() -> bool:
        held = await asyncio.to_thread(bounds, world.target.bootstrap, "eu.shared")
        return held[FIRST][1] > before[FIRST][1] + 1

    return grown


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


async def _until(done: Look) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await done():
            await asyncio.sleep(0.1)
