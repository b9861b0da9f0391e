"""One hub of two processes on one PostgreSQL and Kafka: they share the work, and one that is killed or stands
still is replaced; what it had begun is neither lost nor done twice, and when it wakes it changes nothing.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from benchmarks.plant import DEPLOYMENT, Part, Plant, deployment

from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.process import free_ports
from kafka_logs import empty, kafka_log
from transom.client.hub import ApiError, HubClient
from transom.logs.protocol import Entry, Log, TopicPartition
from transom.logs.records import from_entry
from transom.model.errors import TransomError
from transom.processes.up_files import Engines
from transom.runtime.signing import ensure_signing_key

REGION = "eu"
DUTIES = 12
# Where a holder is frozen: between what it has read and what it would write, on each road and in the store.
OFTEN = ["store.committing"]
SELDOM = ["publish.read", "relay.read", "relay.appended", "publish.appended", "mirror.fetched",
          "mirror.appended", "archive.stored", "contexts.planned", "store.committed"]  # fmt: skip


class World(NamedTuple):
    plant: Plant
    log: Log
    clients: list[HubClient]

    @property
    def parts(self) -> list[Part]:
        return self.plant.hubs

    async def until_shared(self, asked: int = 0) -> None:
        """Wait until both processes are known to live, and have their share of the duties."""
        while True:
            found = await insist(self.clients[asked].processes)
            alive = [each["duties"] for each in found if each["alive"]]
            if len(alive) == len(self.parts) and sorted(map(len, alive)) == [DUTIES // 2, -(-DUTIES // 2)]:
                return
            await asyncio.sleep(0.1)

    async def declare(self, name: str, at: int, version: str = "1") -> None:
        made = deployment(name, [REGION], version=version)
        await insist(lambda: self.clients[at].apply(DEPLOYMENT, made, "acme"))

    async def ready(self, name: str, at: int, version: str = "1") -> None:
        """Wait until it runs in that version, as far as the process `at` knows."""
        while True:
            found = await insist(lambda: self.clients[at].find(DEPLOYMENT, name, "acme"))
            if found is not None and found.spec["version"] == version:
                condition = found.condition("Ready")
                current = found.status.get("observedGeneration") == found.metadata.generation
                if condition is not None and condition.status == "True" and current:
                    return
            await asyncio.sleep(0.1)

    async def check(self) -> None:
        """Every event once, in order; every record newer than those of its key before it."""
        events = await entries(self.log, "changes")
        revisions = [msgspec.json.decode(entry.value or b"")["revision"] for entry in events]
        assert revisions == sorted(set(revisions))
        ids = Counter(dict(entry.headers)["ce_id"] for entry in events)
        assert set(ids.values()) == {1}
        for topic in ("desired", "contexts", "contexts-bulk"):
            versions: dict[str, list] = {}
            for entry in await entries(self.log, topic):
                record = from_entry(entry)
                versions.setdefault(record.key, []).append(record.version)
            assert versions
            for key, told in versions.items():
                assert told == sorted(set(told)), key
        said = [entry.value for entry in await entries(self.log, "status")]
        heard = [entry.value for entry in await entries(self.log, f"status.production-{REGION}")]
        assert heard == said[: len(heard)]


async def entries(log: Log, topic: str) -> list[Entry]:
    found: list[Entry] = []
    (bounds,) = (await log.bounds(topic)).values()
    at = bounds.start
    while at < bounds.end and (some := await log.read({TopicPartition(topic, 0): at}, wait_seconds=5)):
        found += some
        at = some[-1].offset + 1
    return found


async def insist(ask):
    """Ask again while the hub cannot."""
    while True:
        try:
            return await ask()
        except (TransomError, ApiError, TimeoutError):
            await asyncio.sleep(0.2)


@pytest.fixture
async def world(brokers: Brokers, postgres: Postgres, database: str, tmp_path: Path) -> AsyncIterator[World]:
    log = f"kafka://{brokers.bootstrap}"
    engines = Engines(database, {"hub": log, REGION: log})
    plant = Plant(tmp_path, [REGION], {"a": "null"}, engines=engines, further_hubs=1)
    kafka = kafka_log(brokers)
    try:
        async with plant.running(), plant.client(plant.hubs[0]) as one, plant.client(plant.hubs[1]) as two:
            world = World(plant, kafka, [one, two])
            async with asyncio.timeout(110):
                await world.until_shared()
                yield world
    finally:
        await kafka.close()
        await asyncio.to_thread(postgres.mend)
        await empty(brokers)


async def has(world: World, duty: str) -> int:
    """Which process does `duty`."""
    for number, client in enumerate(world.clients):
        if any(each["here"] and duty in each["duties"] for each in await client.processes()):
            return number
    raise AssertionError(f"nobody does {duty}")


async def test_two_processes_share_a_hub_and_answer_alike(world: World) -> None:
    names = [f"web-{number}" for number in range(12)]
    for number, name in enumerate(names):
        await world.declare(name, at=number % 2)
    for number, name in enumerate(names):
        await world.ready(name, at=(number + 1) % 2)
    told = [await client.regions() for client in world.clients]
    assert [[region["region"] for region in regions] for regions in told] == [[REGION], [REGION]]
    assert told[0][0]["reachable"]
    assert told[1][0]["reachable"]
    held = [await client.contexts() for client in world.clients]
    assert held[0]["items"][0]["region"] == held[1]["items"][0]["region"] == REGION
    with pytest.raises(ApiError, match="nowhere"):
        await world.clients[1 - await has(world, "roads")].contexts_diff("nowhere")
    await world.check()


async def test_a_process_that_was_given_other_keys_is_refused(world: World) -> None:
    part = Part("hub 3", world.plant.folder / "hub-3", free_ports(1), world.parts[0].entry)
    part.folder.mkdir()
    config = (world.parts[0].folder / "config.toml").read_text()
    own = {f"port = {world.parts[0].port}": f"port = {part.port}", "hub/signing.key": "hub-3/signing.key"}
    for what, instead in own.items():
        assert what in config
        config = config.replace(what, instead)
    (part.folder / "config.toml").write_text(config)
    ensure_signing_key(part.folder / "signing.key")
    part.start()
    assert await asyncio.to_thread(part.process.wait, 60) != 0
    for wrong in ("admin.key: is not that of", "signing_key: is not that of"):
        assert wrong in part.output()
    await world.until_shared()


async def test_a_killed_process_is_replaced_and_comes_back(world: World) -> None:
    first = await has(world, "roads")
    other = 1 - first
    await world.declare("before", at=first)
    declared = asyncio.create_task(many(world, other))
    await world.ready("web-1", at=other)
    world.parts[first].kill()
    for name in await declared:
        await world.ready(name, at=other)
    world.parts[first].start()
    await world.parts[first].ready()
    await world.until_shared(other)
    await world.declare("after", at=first)
    await world.ready("after", at=first)
    await world.check()


async def many(world: World, at: int, count: int = 40) -> list[str]:
    names = [f"web-{number}" for number in range(count)]
    for name in names:
        await world.declare(name, at=at)
        await asyncio.sleep(0.02)
    return names


@pytest.mark.parametrize("step", [*OFTEN, *(pytest.param(name, marks=pytest.mark.soak) for name in SELDOM)])
async def test_a_holder_that_stood_still_changes_nothing_when_it_wakes(world: World, step: str) -> None:
    first = await has(world, "roads")
    other = 1 - first
    # It takes its own place at once, the duties included that it had.
    world.parts[first].kill()
    world.parts[first].start(freeze_at=f"{step}:3")
    number = 0
    while not world.parts[first].frozen:
        number += 1
        asked = asyncio.create_task(world.declare("steady", at=other, version=str(number)))
        while not asked.done() and not world.parts[first].frozen:
            await asyncio.sleep(0.02)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    await world.declare("meanwhile", at=other)
    await world.ready("meanwhile", at=other)
    await world.declare("steady", at=other, version="last")
    await world.ready("steady", at=other, version="last")
    world.parts[first].signal(signal.SIGCONT)
    await world.until_shared(first)
    await world.until_shared(other)
    await world.ready("steady", at=first, version="last")
    await world.declare("after", at=first)
    await world.ready("after", at=other)
    await world.check()
