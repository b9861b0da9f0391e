"""A full disk of Kafka or of PostgreSQL under a whole system: it is said, nothing is lost, all goes on."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.plant import DEPLOYMENT, deployment

from disk_parts import disk_of
from engines.kafka import Brokers
from engines.postgres import Postgres
from engines_fixtures import started
from kafka_logs import empty, kafka_log
from plant_parts import REGION, World, nothing_lost_nothing_twice, world_on, writing
from transom.catalog.api_key.kind import API_KEY
from transom.client.hub import ApiError
from transom.model.resources import JsonObject

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def disk() -> Iterator[Path]:
    """160 MiB where other users may go as well: PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="transom-disk-"))
    try:
        folder.chmod(0o755)
        with disk_of(160, folder / "disk") as small:
            yield small
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path) -> Path:
    """Take all the room there is; returns what to remove to make some."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return filler


async def test_a_broker_without_room_ends_and_is_named_and_all_goes_on_when_it_has_some(
    disk: Path, database: str, tmp_path: Path
) -> None:
    with started(Brokers(folder=disk)) as brokers:
        log = kafka_log(brokers)
        try:
            async with (
                world_on(f"kafka://{brokers.bootstrap}", database, tmp_path) as world,
                writing(world) as writer,
            ):
                await writer.writes(3)
                key = writer.keys[0]
                await world.becomes(key, 200)
                filler = fill(disk)
                while brokers.processes[0].is_running():
                    await asyncio.sleep(0.1)
                await world.told("log of the region", f"{brokers.bootstrap}: connection refused")
                assert await world.status(key) == 200
                await writer.writes(3)
                filler.unlink()
                await asyncio.to_thread(brokers.start)
                await world.becomes(writer.keys[-1], 200)
                await world.well()
            await nothing_lost_nothing_twice(log, database)
        finally:
            await log.close()


def big(name: str) -> JsonObject:
    """A Deployment of 200 kB that makes nothing run."""
    env = {f"V{number}": "x" * 2000 for number in range(100)}
    return deployment(name, [REGION], env=env, instances=0)


async def refused_for_room(world: World) -> ApiError:
    """Write until there is no room: what the server had in reserve is used up first."""
    number = 0
    while True:
        number += 1
        try:
            await world.hub.create(DEPLOYMENT, big(f"big-{number}"), "acme")
        except ApiError as refused:
            return refused


async def test_a_postgresql_without_room_refuses_writes_and_goes_on_when_it_has_some(
    disk: Path, brokers: Brokers, tmp_path: Path
) -> None:
    with started(Postgres(folder=disk / "postgres", settings={"max_wal_size": "32MB"})) as postgres:
        log = kafka_log(brokers)
        try:
            with postgres.database() as database:
                async with world_on(f"kafka://{brokers.bootstrap}", database, tmp_path) as world:
                    key = await world.create_key("one")
                    await world.becomes(key, 200)
                    filler = fill(disk)
                    refused = await refused_for_room(world)
                    assert refused.code == 507, refused
                    assert "the disk of store postgresql://" in str(refused)
                    assert await world.status(key) == 200
                    assert world.plant.hub.running
                    assert await world.hub.find(API_KEY, "one", "acme") is not None
                    filler.unlink()
                    await world.becomes(await world.create_key("two"), 200)
                    await world.revoke("one")
                    await world.becomes(key, 401)
                    await world.well()
                await nothing_lost_nothing_twice(log, database)
        finally:
            await log.close()
            await empty(brokers)
