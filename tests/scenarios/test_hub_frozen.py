"""A hub that is frozen, wherever it stands, holds nothing that a region needs: regions notice nothing.

Frozen at its durable steps: in the middle of a transaction of its own store, and between reading and
appending to a region's log, with the connection open.
"""

import asyncio
import os
import signal
import sys

import psutil
import pytest
from benchmarks.plant import DEPLOYMENT, deployment

from scenario_engines import each_engine, real_in_soak
from transom.logs.protocol import Message, Topic, TopicPartition
from transom.model.errors import UnreachableError

SERVE = (
    "import os, socket as s; t = s.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "while True: t.accept()"
)
HEARTBEATS = TopicPartition("heartbeats", 0)


async def until_frozen(part):
    while not part.frozen:
        await asyncio.sleep(0.01)  # another process's state


def held_by(part, folder):
    """The files below `folder` that a process has open: a lock on them is held through nothing else."""
    opened = psutil.Process(part.process.pid).open_files()
    return [file.path for file in opened if file.path.startswith(f"{folder}/")]


async def healed(plant, gone):
    """Wait until exactly one workload runs that is none of `gone`; returns its process id."""
    while True:
        running = {process.pid for process in plant.workloads()} - gone
        if len(running) == 1:
            return running.pop()
        await asyncio.sleep(0.02)


async def regions_live_on(plant, log, kills):
    """Kill what the region runs again and again, and see it healed, and its log written and read."""
    gone = set()
    for number in range(kills):
        pid = await healed(plant, gone)
        os.kill(pid, signal.SIGKILL)
        gone.add(pid)
        await log.append([Message("notes", None, str(number).encode())])
    await healed(plant, gone)
    end = (await log.bounds("heartbeats"))[0].end
    assert await log.read({HEARTBEATS: end}, wait_seconds=30), "the region's heart stopped"


@each_engine
async def test_regions_notice_nothing_of_a_hub_that_is_frozen_while_it_writes(engine, tmp_path):
    await _frozen_at("store.committing", engine, tmp_path)


@real_in_soak
@pytest.mark.parametrize("step", ["publish.read", "mirror.fetched", "log.appending"])
async def test_regions_notice_nothing_of_a_frozen_hub(engine, tmp_path, step):
    if step in engine.points:
        await _frozen_at(step, engine, tmp_path)


async def _frozen_at(step, engine, folder):
    plant = engine.plant(folder, ["eu"], {"a": "process"}, 'log_level = "warning"')
    part = plant.regions["eu"]
    app = {"command": [sys.executable, "-c", SERVE], "env": {"PLANT": str(folder)}}
    app["healthCheck"] = {"kind": "tcp", "intervalSeconds": 0.1}
    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"], **app), "acme")
        await healed(plant, set())
        plant.hub.kill()
        plant.hub.start(freeze_at=f"{step}:1")
        frozen = asyncio.create_task(until_frozen(plant.hub))
        number = 0
        while not frozen.done():  # give it something to freeze in
            number += 1
            write = asyncio.create_task(_write(hub, number))
            await asyncio.wait({write, frozen}, return_when=asyncio.FIRST_COMPLETED)
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
        async with engine.log(part.folder / "data", "eu") as log:
            await log.create([Topic("notes")])
            kills = int(os.environ.get("TRANSOM_SOAK_KILLS", "3"))
            await regions_live_on(plant, log, min(kills, 10))
            assert plant.hub.frozen
            assert held_by(plant.hub, plant.hub.folder), "this can be seen"
            assert not held_by(plant.hub, part.folder), "a hub must not open a region's files"
            plant.hub.signal(signal.SIGCONT)
            await plant.hub.ready()
            await hub.apply(DEPLOYMENT, deployment("after", ["eu"], **app), "acme")
            async for event in hub.watch(DEPLOYMENT, "acme"):
                condition = event.object.condition("Ready")
                if event.object.metadata.name == "after" and condition and condition.status == "True":
                    break


async def _write(hub, number):
    try:
        await hub.apply(
            DEPLOYMENT, deployment(f"idle{number % 5}", ["eu"], instances=0, version=str(number)), "acme"
        )
    except UnreachableError:
        await asyncio.sleep(0.05)
