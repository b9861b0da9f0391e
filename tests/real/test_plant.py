"""A hub, a region and its gateway as processes, on Kafka and PostgreSQL, while engines go and come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from benchmarks.plant import DEPLOYMENT, Plant, deployment, manifest

from engines.kafka import Brokers
from engines.postgres import Postgres
from kafka_logs import empty
from transom.catalog.api_key.kind import API_KEY
from transom.client.hub import ApiError, HubClient
from transom.model.api_keys import hash_of, new_api_key
from transom.model.errors import TransomError
from transom.processes.up_files import Engines
from transom.runtime.randomness import choose_secret

REGION = "eu"


class World(NamedTuple):
    plant: Plant
    hub: HubClient
    http: aiohttp.ClientSession

    async def status(self, key: str) -> int:
        """How the gateway answers for `key`."""
        url = f"http://127.0.0.1:{self.plant.gateways[REGION].port}/decide"
        async with self.http.get(url, headers={"x-api-key": key}) as answer:
            return answer.status

    async def becomes(self, key: str, status: int) -> None:
        while await self.status(key) != status:
            await asyncio.sleep(0.05)

    async def create_key(self, name: str) -> str:
        """Declared at the hub, however long that takes to answer."""
        key = new_api_key(choose_secret)
        made = manifest(
            "ApiKey",
            {"name": name, "namespace": "acme"},
            {"hash": hash_of(key.encode()).hex(), "scopes": ["*"]},
        )
        await insist(lambda: self.hub.apply(API_KEY, made, "acme"))
        return key

    async def revoke(self, name: str) -> None:
        await insist(lambda: self.hub.patch(API_KEY, name, {"spec": {"revoked": True}}, "acme"))

    async def ready(self, name: str) -> None:
        while True:
            found = await insist(lambda: self.hub.find(DEPLOYMENT, name, "acme"))
            condition = found.condition("Ready") if found else None
            if condition is not None and condition.status == "True":
                return
            await asyncio.sleep(0.1)


async def insist(ask: Callable):
    """Ask again while the hub cannot."""
    while True:
        try:
            return await ask()
        except (TransomError, ApiError, aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(0.2)


@pytest.fixture
async def world(brokers: Brokers, postgres: Postgres, database: str, tmp_path: Path) -> AsyncIterator[World]:
    """One Kafka is the log of both: a region may host the hub."""
    log = f"kafka://{brokers.bootstrap}"
    plant = Plant(
        tmp_path, [REGION], {"a": "null"}, gateways="", engines=Engines(database, {"hub": log, REGION: log})
    )
    try:
        async with plant.running() as hub, aiohttp.ClientSession() as http:
            async with asyncio.timeout(100):
                yield World(plant, hub, http)
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
