"""One region of two processes, on Kafka: the zone has one agent at a time, whatever happens to them."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from benchmarks.plant import DEPLOYMENT, Part, Plant, deployment

from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.process import free_ports
from kafka_logs import empty, kafka_log
from transom.client.hub import HubClient
from transom.logs.protocol import Log, TopicPartition
from transom.logs.records import from_entry
from transom.processes.up_files import Engines

REGION = "eu"
COUNT = 3
STATUS = TopicPartition("status", 0)
SERVE = (
    "import os, socket as s; t = s.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "while True: t.accept()"
)
APP = {
    "command": [sys.executable, "-c", SERVE],
    "instances": COUNT,
    "healthCheck": {"kind": "tcp", "intervalSeconds": 0.1},
}
OFTEN = ["driver.spawned"]
SELDOM = ["driver.intended", "driver.recorded", "driver.stopping", "agent.reported", "agent.remembered"]


class World(NamedTuple):
    plant: Plant
    parts: list[Part]
    hub: HubClient
    log: Log

    async def declare(self, version: str, name: str = "web") -> None:
        made = deployment(name, [REGION], **APP, version=version, env={"PLANT": str(self.plant.folder)})
        await self.hub.apply(DEPLOYMENT, made, "acme")

    async def ready(self, version: str, name: str = "web", others: int = 0) -> set[int]:
        """Wait until it runs in that version and in no other; the processes that run, `others` included."""
        while True:
            found = await self.hub.get(DEPLOYMENT, name, "acme")
            condition = found.condition("Ready")
            current = found.status.get("observedGeneration") == found.metadata.generation
            running = self.plant.workloads()
            if (
                found.spec["version"] == version
                and current
                and condition is not None
                and condition.status == "True"
                and found.status["updated"] == COUNT
                and len(running) == COUNT + others
            ):
                return {process.pid for process in running}
            await asyncio.sleep(0.1)

    async def reported(self) -> list:
        """What was reported, in order; of each key, newer versions only."""
        bounds = (await self.log.bounds(STATUS.topic))[0]
        offset, records, newest = bounds.start, [], {}
        while offset < bounds.end and (entries := await self.log.read({STATUS: offset}, wait_seconds=5)):
            records += [from_entry(entry) for entry in entries]
            offset = entries[-1].offset + 1
        for record in records:
            assert record.version > newest.get(record.key, record.version._replace(counter=0, epoch=0))
            newest[record.key] = record.version
        return records


@pytest.fixture
async def world(brokers: Brokers, postgres: Postgres, database: str, tmp_path: Path) -> AsyncIterator[World]:
    """The first of the two has the zone."""
    log = f"kafka://{brokers.bootstrap}"
    engines = Engines(database, {"hub": log, REGION: log})
    plant = Plant(tmp_path, [REGION], {"a": "process"}, engines=engines)
    first = plant.regions[REGION]
    second = Part("eu 2", tmp_path / "eu-2", free_ports(1), first.entry)
    config = (first.folder / "config.toml").read_text()
    shared = f'workloads = "{tmp_path / "workloads"}"\n'
    second.folder.mkdir()
    (first.folder / "config.toml").write_text(shared + config)
    (second.folder / "config.toml").write_text(shared + config.replace(str(first.port), str(second.port)))
    kafka = kafka_log(brokers)
    try:
        async with plant.running() as hub, asyncio.timeout(150):
            second.start()
            await second.ready()
            yield World(plant, [first, second], hub, kafka)
    finally:
        second.kill()
        plant.end_workloads()
        await kafka.close()
        await asyncio.to_thread(postgres.mend)
        await empty(brokers)


async def test_a_killed_agent_is_replaced_and_what_runs_runs_on(world: World) -> None:
    await world.declare("1")
    running = await world.ready("1")
    before = len(await world.reported())
    world.parts[0].kill()
    await world.declare("2")
    updated = await world.ready("2")
    assert not running & updated
    world.parts[0].start()
    await world.parts[0].ready()
    world.parts[1].signal(signal.SIGTERM)
    assert await asyncio.to_thread(world.parts[1].process.wait, 30) == 0
    await world.declare("3")
    assert not updated & await world.ready("3")
    assert len(await world.reported()) > before


async def test_a_process_with_another_folder_for_what_runs_is_refused(world: World) -> None:
    """It would start everything a second time when it takes over."""
    third = Part("eu 3", world.plant.folder / "eu-3", free_ports(1), world.parts[0].entry)
    third.folder.mkdir()
    config = (world.parts[0].folder / "config.toml").read_text()
    _, _, own = config.partition("\n")  # without `workloads`
    (third.folder / "config.toml").write_text(own.replace(str(world.parts[0].port), str(third.port)))
    third.start()
    assert await asyncio.to_thread(third.process.wait, 60) != 0
    assert "workloads of zone a: is not that of the process at" in third.output()


async def test_who_takes_over_adopts_what_runs(world: World) -> None:
    await world.declare("1")
    running = await world.ready("1")
    world.parts[0].kill()
    # Who makes what is new has looked at what runs.
    await world.declare("1", "other")
    assert await world.ready("1", "other", others=COUNT) > running


@pytest.mark.parametrize("step", [*OFTEN, *(pytest.param(name, marks=pytest.mark.soak) for name in SELDOM)])
async def test_an_agent_that_stood_still_changes_nothing_when_it_wakes(world: World, step: str) -> None:
    # In the middle of its first orders: more are waiting for it when it wakes. It has the zone, being first.
    for part in world.parts:
        part.kill()
    world.parts[0].start(freeze_at=f"{step}:2")
    await world.parts[0].ready()
    world.parts[1].start()
    await world.parts[1].ready()
    await world.declare("1")
    version = 1
    while not world.parts[0].frozen:
        await asyncio.sleep(0.5)
        version += 1
        await world.declare(str(version))
    await world.declare("last")
    running = await world.ready("last")
    told = len(await world.reported())
    world.parts[0].signal(signal.SIGCONT)
    beats = (await world.log.bounds("processes"))[0].end
    while (await world.log.bounds("processes"))[0].end < beats + 6:  # both have looked again since
        await asyncio.sleep(0.1)
    assert await world.ready("last") == running
    assert len(await world.reported()) == told
    world.parts[1].signal(signal.SIGTERM)
    await world.declare("next")
    assert not running & await world.ready("next")
    await world.reported()
