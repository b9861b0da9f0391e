"""A whole system whose Kafka is slow, loses a leader, or dies while people write: all is there, and once."""

import asyncio
from pathlib import Path

import pytest

from engines.kafka import Brokers
from engines.proxy import before
from kafka_logs import empty, kafka_log
from plant_parts import nothing_lost_nothing_twice, world_on, writing
from transom.logs.kafka import KafkaLog

pytestmark = pytest.mark.timeout(200)


async def leaders(log: KafkaLog, *topics: str) -> set[int]:
    """The brokers that lead these topics, by their numbers here."""
    layouts = await log._cluster.layouts(topics)
    return {leader - 1 for topic in topics for leader in layouts[topic].leaders.values()}


async def test_a_slow_broker_is_named_and_nothing_is_lost(
    brokers: Brokers, database: str, tmp_path: Path
) -> None:
    log = kafka_log(brokers)
    try:
        async with (
            before(brokers) as (proxy,),
            world_on(f"kafka://{proxy.address}", database, tmp_path) as world,
            writing(world) as writer,
        ):
            await writer.writes(3)
            key = writer.keys[0]
            await world.becomes(key, 200)
            proxy.delay_seconds = 0.8
            problems = await world.told("log of the region", "does not answer within 1 s")
            assert "log of the hub" not in problems, "it is slow, and nothing fails"
            assert await world.status(key) == 200
            await writer.writes(3)
            bucket = f'transom_kafka_request_seconds_bucket{{broker="{proxy.address}"'
            # Some take longer than a second.
            while await world.metric(bucket + ',le="1.0"}') >= await world.metric(bucket + ',le="+Inf"}'):
                await asyncio.sleep(0.1)
            proxy.delay_seconds = 0.0
            await world.becomes(writer.keys[-1], 200)
            await world.well()
        await nothing_lost_nothing_twice(log, database)
    finally:
        await log.close()
        await empty(brokers)


@pytest.mark.soak
async def test_a_broker_that_is_killed_and_started_again_is_named_and_nothing_is_lost(
    brokers: Brokers, database: str, tmp_path: Path
) -> None:
    log = kafka_log(brokers)
    try:
        async with (
            world_on(f"kafka://{brokers.bootstrap}", database, tmp_path) as world,
            writing(world) as writer,
        ):
            await writer.writes(3)
            key = writer.keys[0]
            await world.becomes(key, 200)
            await asyncio.to_thread(brokers.kill)
            problems = await world.told("log of the region", f"{brokers.bootstrap}: connection refused")
            assert "connection refused" in problems["log of the hub"]
            refused = (
                f'transom_kafka_failed_tries_total{{broker="{brokers.bootstrap}",error="connection refused"}}'
            )
            assert await world.metric(refused) > 0
            assert await world.metric(f'transom_kafka_waiting_calls{{kafka="{brokers.bootstrap}"}}') > 0
            await writer.writes(3)  # PostgreSQL takes what people write
            # Away until workers have lost their patience: they must begin again by themselves.
            for worker in ("publish to eu", "mirror from eu", "contexts to eu"):
                while f'"worker": "{worker}", "advice": "retry"' not in world.plant.hub.output():
                    await asyncio.sleep(0.1)
            assert await world.status(key) == 200
            await asyncio.to_thread(brokers.start)
            await world.becomes(writer.keys[-1], 200)
            await world.well()
        await nothing_lost_nothing_twice(log, database)
    finally:
        await log.close()
        await asyncio.to_thread(brokers.mend)
        await empty(brokers)


@pytest.mark.soak
async def test_a_leader_that_moves_with_records_in_flight_is_followed_and_nothing_is_lost(
    brokers3: Brokers, database: str, tmp_path: Path
) -> None:
    log = kafka_log(brokers3)
    try:
        async with (
            world_on(f"kafka://{brokers3.bootstrap}", database, tmp_path) as world,
            writing(world) as writer,
        ):
            await writer.writes(5)
            key = writer.keys[0]
            await world.becomes(key, 200)
            # The first broker is the controller, without which nobody is elected.
            followed = ("changes", "desired", "contexts", "link-positions", "status")
            lost = next(iter(await leaders(log, *followed) - {0}))
            await asyncio.to_thread(brokers3.kill, lost)
            await writer.writes(5)
            await world.becomes(writer.keys[-1], 200)
            assert await world.status(key) == 200
            assert lost not in await leaders(log, *followed)
            await asyncio.to_thread(brokers3.start, lost)
            await writer.writes(5)
            await world.becomes(writer.keys[-1], 200)
            await world.well()
        await nothing_lost_nothing_twice(log, database)
    finally:
        await log.close()
        await asyncio.to_thread(brokers3.mend)
        await empty(brokers3)
