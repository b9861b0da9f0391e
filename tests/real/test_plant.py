"""A hub, a region and its gateway as processes, on Kafka and PostgreSQL, while engines go and come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from benchmarks.plant import DEPLOYMENT, deployment

from engines.kafka import Brokers
from engines.postgres import Postgres
from kafka_logs import empty
from plant_parts import REGION, World, world_on
from transom.model.api_keys import new_api_key
from transom.runtime.randomness import choose_secret


@pytest.fixture
async def world(brokers: Brokers, postgres: Postgres, database: str, tmp_path: Path) -> AsyncIterator[World]:
    try:
        async with world_on(f"kafka://{brokers.bootstrap}", database, tmp_path) as running:
            async with asyncio.timeout(100):
                yield running
    finally:
        await asyncio.to_thread(brokers.mend)
        await asyncio.to_thread(postgres.mend)
        await empty(brokers)


async def test_what_is_declared_arrives_and_what_is_revoked_is_refused(world: World) -> None:
    await world.hub.apply(DEPLOYMENT, deployment("web", [REGION]), "acme")
    key = await world.create_key("one")
    await world.becomes(key, 200)
    await world.ready("web")
    await world.revoke("one")
    await world.becomes(key, 401)
    await world.becomes(new_api_key(choose_secret), 401)  # once a sweep has found everything there
    assert not list(world.plant.folder.rglob("log.db")) + list(world.plant.folder.rglob("store.db"))


async def test_the_gateway_serves_while_every_broker_is_away_and_all_resume(
    world: World, brokers: Brokers
) -> None:
    key = await world.create_key("one")
    await world.becomes(key, 200)
    await asyncio.to_thread(brokers.kill)
    declared = asyncio.create_task(world.create_key("while-away"))
    for _ in range(20):
        assert await world.status(key) == 200
    gateway = world.plant.gateways[REGION]
    gateway.kill()
    gateway.start()
    await gateway.ready()
    # From its own disk, with nobody to ask.
    assert await world.status(key) == 200
    await asyncio.to_thread(brokers.start)
    await world.becomes(await declared, 200)
    await world.revoke("one")
    await world.becomes(key, 401)
    await world.hub.apply(DEPLOYMENT, deployment("web", [REGION]), "acme")
    await world.ready("web")


async def test_a_database_that_is_killed_and_started_again_loses_nothing(
    world: World, postgres: Postgres
) -> None:
    keys = [await world.create_key(f"before-{number}") for number in range(3)]
    await asyncio.to_thread(postgres.kill)
    declared = [asyncio.create_task(world.create_key(f"while-away-{number}")) for number in range(3)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.gather(*(asyncio.shield(each) for each in declared))
    await asyncio.to_thread(postgres.start)
    for key in [*keys, *await asyncio.gather(*declared)]:
        await world.becomes(key, 200)
