"""A whole system on Kafka and PostgreSQL: hub, region and gateway as processes, and people at work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import psycopg
from benchmarks.plant import DEPLOYMENT, Plant, manifest

from transom.catalog.api_key.kind import API_KEY
from transom.client.hub import ApiError, HubClient
from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.records import from_entry
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

    async def told(self, *words: str) -> dict[str, str]:
        """Wait until `transom regions` names a problem with all of these words; returns all problems."""
        while True:
            problems = (await self.hub.regions())[0]["problems"]
            if any(all(word in f"{part}: {why}" for word in words) for part, why in problems.items()):
                return problems
            await asyncio.sleep(0.05)

    async def well(self) -> None:
        """Wait until there is no problem any more, and nothing waits."""
        while True:
            road = (await self.hub.regions())[0]
            if not road["problems"] and road["down_lag"] == road["up_lag"] == 0:
                return
            await asyncio.sleep(0.1)

    async def metric(self, begin: str) -> float:
        """The value of the hub's metric whose line begins so; 0 when there is none."""
        key = (self.plant.hub.folder / "data" / "admin.key").read_text().strip()
        url, headers = f"{self.plant.hub.address}/metrics", {"authorization": f"Bearer {key}"}
        async with self.http.get(url, headers=headers, ssl=self.plant.tls) as answer:
            lines = (await answer.text()).splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(begin)), 0.0)


async def insist(ask: Callable):
    """Ask again while the hub cannot."""
    while True:
        try:
            return await ask()
        except (TransomError, ApiError, aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def world_on(log: str, database: str, folder: Path) -> AsyncIterator[World]:
    """One Kafka is the log of both: a region may host the hub."""
    engines = Engines(database, {"hub": log, REGION: log})
    plant = Plant(folder, [REGION], {"a": "null"}, gateways="", engines=engines)
    async with plant.running() as hub, aiohttp.ClientSession() as http:
        yield World(plant, hub, http)


class Writer:
    """Makes API keys one after the other, for as long as its block lasts; `keys` are those acknowledged."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.keys: list[str] = []
        self._more = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.keys.append(await self._world.create_key(f"written-{len(self.keys)}"))
            self._more.set()

    async def writes(self, more: int) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.keys) + more
        while len(self.keys) < wanted:
            self._more.clear()
            await self._more.wait()


@contextlib.asynccontextmanager
async def writing(world: World) -> AsyncIterator[Writer]:
    """People at work inside the block; behind it, every key that was acknowledged opens the gateway."""
    writer = Writer(world)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    for key in writer.keys:
        await world.becomes(key, 200)


async def nothing_lost_nothing_twice(log: Log, database: str) -> None:
    """Every revision of the history stands in `changes` once and in order, no version twice in `desired`."""
    with psycopg.connect(database) as db:
        history = [row[0] for row in db.execute("SELECT revision FROM history ORDER BY revision")]
    changes = [msgspec.json.decode(entry.value or b"")["revision"] for entry in await entries(log, "changes")]
    while changes and len(changes) < len(history):  # the last of it is on its way
        await asyncio.sleep(0.05)
        changes = [msgspec.json.decode(e.value or b"")["revision"] for e in await entries(log, "changes")]
    assert changes[: len(history)] == history
    assert len(set(changes)) == len(changes)
    desired = [(r.key, r.version) for r in map(from_entry, await entries(log, "desired"))]
    assert len(set(desired)) == len(desired)


async def entries(log: Log, topic: str) -> list[Entry]:
    found: list[Entry] = []
    offset = (await log.bounds(topic))[0].start
    while some := await log.read({TopicPartition(topic, 0): offset}):
        found += some
        offset = some[-1].offset + 1
    return found
