"""Copies are exact: record by record, offset by offset, whatever was done to a topic."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import mirror_loads as loads
from engines.kafka import Brokers
from mirror_checker import check_with_aiokafka, check_with_console
from mirror_reading import bounds
from mirror_world import World, emptied

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.fixture
def seed() -> random.Random:
    return random.Random(7)


@pytest.fixture
async def world(brokers: Brokers, far_brokers: Brokers, tmp_path: Path) -> AsyncIterator[World]:
    async with emptied(brokers, far_brokers):
        made = World(brokers, far_brokers, tmp_path)
        yield made
        made.kill()


async def test_every_codec_and_kind_of_producer(world: World, seed: random.Random) -> None:
    made = [
        await asyncio.to_thread(
            loads.plain,
            world.source.bootstrap,
            f"plain-{codec}",
            seed,
            codec=codec,
            idempotent=number % 2 == 1,
        )
        for number, codec in enumerate(CODECS)
    ]
    async with world.running():
        for load in made:
            assert (await world.check(load)).records == 300
        for load, plainly in ((made[1], check_with_aiokafka), (made[2], check_with_console)):
            here, there = world.source.bootstrap, world.target.bootstrap
            await plainly(here, there, load.topic, f"eu.{load.topic}", load.expected)


async def test_transactions_with_aborts_and_one_that_ends_late(world: World, seed: random.Random) -> None:
    load, opened = await asyncio.to_thread(loads.transactional, world.source.bootstrap, "transactional", seed)
    async with world.running():
        for number, transaction in enumerate(opened):
            await asyncio.to_thread(transaction.abort if number == 1 else transaction.commit)
        checked = await world.check(load)
        assert checked.records > 150
        assert checked.offsets > checked.records, "the map is asked where there is no record, too"


async def test_times_that_the_broker_gave(world: World, seed: random.Random) -> None:
    config = {"message.timestamp.type": "LogAppendTime"}
    load = await asyncio.to_thread(
        loads.plain, world.source.bootstrap, "appended", seed, codec="lz4", config=config
    )
    async with world.running():
        await world.check(load)


async def test_records_of_a_mebibyte(world: World, seed: random.Random) -> None:
    load = await asyncio.to_thread(loads.large, world.source.bootstrap, "large", seed)
    async with world.running():
        await world.check(load)


async def test_partitions_that_begin_above_zero_and_an_empty_topic(world: World, seed: random.Random) -> None:
    load = await asyncio.to_thread(loads.behind_deleted, world.source.bootstrap, "deleted", seed)
    empty = await asyncio.to_thread(loads.make_topic, world.source.bootstrap, "empty", 2)
    async with world.running():
        await world.check(load)
        await world.check(empty)


async def test_hundreds_of_partitions(world: World, seed: random.Random) -> None:
    load = await asyncio.to_thread(loads.many_partitions, world.source.bootstrap, "many", seed)
    async with world.running():
        await world.check(load)
        assert len(await asyncio.to_thread(bounds, world.target.bootstrap, "eu.many")) == 300
