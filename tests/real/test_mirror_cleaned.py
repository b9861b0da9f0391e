"""Compacted topics through real mirrors: before the cleaner comes, while it is at work, after it was there;
delete markers that the source is about to forget, or has forgotten; and copies that are cleaned as well.

What a mirror made of it is judged by `mirror_compacted`, its own offset map included.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from engines.kafka import Brokers
from kafka_batches import CODECS, batches, newest_segment
from mirror_checker import Checked, DifferentError, check
from mirror_compacted import check_compacted
from mirror_compacted_loads import Compacted
from mirror_loads import make_topic
from mirror_reading import QUIET_SECONDS, Bytes, Partition, quietly, read
from mirror_world import PATIENCE_SECONDS, World, emptied
from transom.links.kafka.deletes import WHY
from transom.runtime.steps import POINTS

HOUR_MS = 3_600_000
CLEANED_LATER = "min.compaction.lag.ms"
"""Set on a copy alone, it keeps the target's cleaner away."""
CLEANINGS_MAX = 60
"""Each takes a load's time half a minute ahead, and brokers allow for an hour."""
LEAST_USED = 4
"""The key of a load with few keys that only its first records have."""


@pytest.fixture
def seed() -> random.Random:
    return random.Random(11)


@pytest.fixture
async def clusters(brokers: Brokers, far_brokers: Brokers) -> AsyncIterator[tuple[Brokers, Brokers]]:
    async with emptied(brokers, far_brokers):
        yield brokers, far_brokers


@pytest.fixture
def world(clusters: tuple[Brokers, Brokers], tmp_path: Path) -> World:
    return World(*clusters, tmp_path)


@pytest.mark.parametrize(
    "codecs", [("none", "zstd"), pytest.param(("gzip", "snappy", "lz4"), marks=pytest.mark.soak)]
)
async def test_whenever_a_mirror_passes_the_cleaner(
    clusters: tuple[Brokers, Brokers], tmp_path: Path, seed: random.Random, codecs: Sequence[str]
) -> None:
    source, target = clusters
    names = ("before", "while", "after")
    before, while_, after = worlds = [
        World(*clusters, tmp_path, name=name, names=(name, "us")) for name in names
    ]
    loads = [await made(source, codec, seed, codec=codec) for codec in codecs]
    for copy in (f"{name}.{codec}" for name in names for codec in codecs):
        await asyncio.to_thread(make_topic, target.bootstrap, copy, 2, {CLEANED_LATER: str(24 * HOUR_MS)})
    for load in loads:
        await asyncio.to_thread(load.write, 100)
    async with contextlib.AsyncExitStack() as running:
        await running.enter_async_context(before.running())
        await before.caught_up(*codecs)
        async with asyncio.TaskGroup() as group:
            for load in loads:
                group.create_task(asyncio.to_thread(write_and_clean, load, 2))
            await running.enter_async_context(while_.running())
        await running.enter_async_context(after.running())
        for load in loads:
            topic = load.load.topic
            _assert_cleaned(source, topic)
            for world in worlds:
                await check_cleaned(world, load, f"{world.name}.{topic}", cleaned=False)
            left = {number: len(one.records) for number, one in (await _read(source, topic)).items()}
            to_target = await after.translation()
            there = (source.bootstrap, target.bootstrap, topic, f"after.{topic}", left)
            exact = await check(*there, to_target=to_target)
            held = await _read(target, f"before.{topic}")
            assert sum(len(one.records) for one in held.values()) > exact.records, "it has read what is gone"
        for copy in (f"{name}.{codec}" for name in names for codec in codecs):
            await asyncio.to_thread(alter, target, copy, {CLEANED_LATER: None})
        for load in loads:
            await asyncio.to_thread(write_and_clean, load, 1)  # which begins new segments in the copies, too
        for world in worlds:
            for load in loads:
                copy = f"{world.name}.{load.load.topic}"
                await until_cleaned(target, copy)
                await check_cleaned(world, load, copy)


def _assert_cleaned(brokers: Brokers, topic: str) -> None:
    kept = [one for number in range(2) for one in batches(brokers, topic, number)]
    assert any(one.count == 0 for one in kept), "no batch that the cleaner emptied"
    assert any(one.delete_horizon for one in kept), "no delete marker with its horizon"
    assert any(0 < one.count <= one.last_offset - one.base_offset for one in kept), "no batch with gaps"


async def test_a_copy_that_is_cleaned_is_followed_from_its_end(world: World, seed: random.Random) -> None:
    load = await made(world.source, "table", seed, codec="lz4")
    await asyncio.to_thread(load.write, 100)
    for death in (True, False):
        async with world.running():
            await check_cleaned(world, load)  # before what is there twice is cleaned away
            await asyncio.to_thread(write_and_clean, load, 2)
            await world.caught_up("table")
            await until_cleaned(world.target, "eu.table")
            await check_cleaned(world, load)
            if death:
                world.kill()
                await asyncio.to_thread(load.write, 40)


async def test_a_marker_that_the_source_is_about_to_forget_has_its_own_time_in_the_copy(
    world: World, seed: random.Random
) -> None:
    """Its time is over at the source before it is mirrored, and the cleaner has not come by again."""
    load = await made(world.source, "table", seed, partitions=1, keys=3, delete_retention_ms=1)
    await asyncio.to_thread(load.delete, LEAST_USED)
    await asyncio.to_thread(load.clean)
    assert any(one.delete_horizon and one.count for one in batches(world.source, "table", 0))
    await asyncio.to_thread(alter, world.source, "table", {"delete.retention.ms": str(HOUR_MS)})
    async with world.running():
        await world.caught_up("table")
        await asyncio.to_thread(write_and_clean, load, 2)
        await check_cleaned(world, load)
        await until_cleaned(world.target, "eu.table")
        assert await values(world.source, "table", LEAST_USED) == []
        assert await values(world.target, "eu.table", LEAST_USED) == [None]


async def test_a_delete_that_the_source_forgot_before_it_was_read_is_told(
    world: World, seed: random.Random
) -> None:
    """A mirror that is away for longer than the source keeps delete markers cannot know what was deleted."""
    kept = await made(world.source, "kept", seed, partitions=1, keys=3)
    forgotten = await made(world.source, "forgotten", seed, partitions=1, keys=3, delete_retention_ms=1)
    for load in (kept, forgotten):
        await asyncio.to_thread(load.write, 40)
    async with world.running():
        for load in (kept, forgotten):
            await check_cleaned(world, load)
    await asyncio.to_thread(kept.delete, LEAST_USED)
    await asyncio.to_thread(kept.clean)
    await asyncio.to_thread(forgotten.delete, LEAST_USED)
    deleted = forgotten.load.history[0][-1].offset
    await asyncio.to_thread(forgotten.forget)
    async with world.running():
        await check_cleaned(world, kept)
        with pytest.raises(DifferentError, match="newest record of key b'key-4', and the copy ends with"):
            await check_cleaned(world, forgotten)
        told = {each.topic: each.gaps for each in await world.told(lambda parts: any(p.gaps for p in parts))}
        assert told["kept"] == ()
        (gap,) = told["forgotten"]
        assert gap.why == WHY
        assert gap.begin <= deleted < gap.end
    record = (await world.kept("forgotten", 0)).record
    assert record is not None
    assert record.gaps == (gap,)
    async with world.running():
        await asyncio.to_thread(remove, world.target, "eu.forgotten")
        await world.told(
            lambda parts: any(each.topic == "forgotten" and not (each.gaps or each.lag) for each in parts)
        )
        await check_cleaned(world, forgotten)


@pytest.mark.soak
async def test_soak_of_cleaning(clusters: tuple[Brokers, Brokers], tmp_path: Path) -> None:
    """Mirrors that die at random steps while both clusters clean, of every codec."""
    seed = int(os.environ.get("TRANSOM_SEED", "1000"))
    points = [point for point in POINTS if point.startswith("carry.")]
    for number in range(20):
        print(f"seed {seed + number}", flush=True)  # noqa: T201  # to go on from here
        randomness = random.Random(seed + number)
        codec, partitions = randomness.choice(CODECS), randomness.randint(1, 3)
        async with emptied(*clusters):
            world = World(*clusters, tmp_path / str(number))
            load = await made(world.source, "table", randomness, codec=codec, partitions=partitions)
            (part,) = world.parts
            cleanings = CLEANINGS_MAX
            for point in randomness.choices(points, k=5):
                part.start(die_at=f"{point}:{randomness.randint(1, 8)}")
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while part.running:
                        await asyncio.to_thread(load.write, randomness.choice((8, 80)))
                        if cleanings and randomness.random() < 0.3:
                            await asyncio.to_thread(load.clean)
                            cleanings -= 1
                        await asyncio.sleep(0.1)
            async with world.running():
                await asyncio.to_thread(write_and_clean, load, 2)
                await check_cleaned(world, load)
                await until_cleaned(world.target, "eu.table")
                await check_cleaned(world, load)


async def made(brokers: Brokers, topic: str, seed: random.Random, **more: int | str) -> Compacted:
    return await asyncio.to_thread(Compacted, brokers.bootstrap, topic, seed, **more)  # type: ignore[arg-type]


def write_and_clean(load: Compacted, times: int) -> None:
    for _ in range(times):
        load.write(100)
        load.clean()


async def check_cleaned(world: World, load: Compacted, copy: str = "", *, cleaned: bool = True) -> Checked:
    """Wait until the copy is whole, and compare it."""
    await world.caught_up(load.load.topic)
    return await check_compacted(
        world.source.bootstrap,
        world.target.bootstrap,
        load.load.topic,
        copy or f"eu.{load.load.topic}",
        load.load.history,
        cleaned=cleaned,
        to_target=await world.translation(),
        within_seconds=PATIENCE_SECONDS,
    )


async def until_cleaned(brokers: Brokers, topic: str) -> None:
    """Wait until a copy's own cleaner was there."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(
            _is_clean(partition, newest_segment(brokers, topic, number))
            for number, partition in (await _read(brokers, topic)).items()
        ):
            await asyncio.sleep(0.1)


def _is_clean(partition: Partition, newest: int) -> bool:
    """Whether there is something before the newest segment, and nothing that was replaced in there."""
    keys = [one.key for one in partition.records if one.offset < newest]
    return len(set(keys)) == len(keys) > 0


async def values(brokers: Brokers, topic: str, key: int) -> list[Bytes]:
    """What the topic's first partition holds of a key."""
    return [one.value for one in (await _read(brokers, topic))[0].records if one.key == b"key-%d" % key]


async def _read(brokers: Brokers, topic: str) -> dict[int, Partition]:
    return await asyncio.to_thread(read, brokers.bootstrap, topic, committed=True)


def alter(brokers: Brokers, topic: str, settings: Mapping[str, str | None]) -> None:
    """Change a topic's settings; None: back to the cluster's."""
    operations = {True: AlterConfigOpType.DELETE, False: AlterConfigOpType.SET}
    entries = [
        ConfigEntry(name, value or "", incremental_operation=operations[value is None])
        for name, value in settings.items()
    ]
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)]
    admin = AdminClient(quietly(brokers.bootstrap))  # held until it has answered
    for answer in admin.incremental_alter_configs(asked).values():
        answer.result(QUIET_SECONDS)


def remove(brokers: Brokers, topic: str) -> None:
    admin = AdminClient(quietly(brokers.bootstrap))
    admin.delete_topics([topic])[topic].result(QUIET_SECONDS)
