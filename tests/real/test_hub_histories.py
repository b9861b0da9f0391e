"""One hub of two processes on one PostgreSQL: whichever of them is asked, and when one of them is killed, who
reads and writes an object at once is answered as if one after another, and watchers are told all once.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from benchmarks.plant import Plant

from engines.kafka import Brokers
from history_parts import Histories, check_one_of_two_wins, check_read_everywhere, hub_of
from kafka_logs import empty
from transom.processes.up_files import Engines
from watcher_parts import Crowd

CLIENTS = 12
REQUESTS = 60
OBJECTS = 3


@pytest.fixture
async def plant(brokers: Brokers, database: str, tmp_path: Path) -> AsyncIterator[Plant]:
    engines = Engines(database, {"hub": f"kafka://{brokers.bootstrap}"})
    plant = Plant(tmp_path, [], {}, engines=engines, further_hubs=1)
    try:
        async with plant.running():
            yield plant
    finally:
        await empty(brokers)


async def test_what_clients_of_two_processes_are_told_of_an_object_is_linearizable(plant: Plant) -> None:
    hubs = [hub_of(plant, part) for part in plant.hubs]
    for seed in (1, 2):
        histories = Histories(hubs, seed, OBJECTS)
        await histories.made(CLIENTS, REQUESTS)
        histories.check()
    await check_one_of_two_wins(hubs, rounds=20)
    await check_read_everywhere(hubs, rounds=20)
    histories = Histories(hubs, 3, OBJECTS)
    async with asyncio.TaskGroup() as clients:
        clients.create_task(histories.made(CLIENTS, REQUESTS))
        await histories.until(CLIENTS * REQUESTS // 2)
        plant.hubs[0].kill()
    histories.check()


async def test_watchers_of_two_processes_are_told_of_every_change_once_and_in_order(plant: Plant) -> None:
    hubs = [hub_of(plant, part) for part in plant.hubs]
    crowd = Crowd(hubs, watchers=30, writers=20, changes=30, seconds=(1, 10))
    async with asyncio.TaskGroup() as running:
        running.create_task(crowd.run())
        await crowd.until(600)
        plant.hubs[0].kill()
