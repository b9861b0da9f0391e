"""One hub, its store in a file: who reads and writes an object at once is answered as if one after another.

Across a kill, too: what was answered stays, what was not may have happened or not.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from benchmarks.plant import Plant

from history_parts import Histories, check_one_of_two_wins, hub_of

CLIENTS = 12
REQUESTS = 60
OBJECTS = 3


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    plant = Plant(tmp_path, [], {})
    async with plant.running():
        yield plant


async def test_what_clients_are_told_of_an_object_is_linearizable(plant: Plant) -> None:
    for seed in (1, 2, 3):
        histories = Histories([hub_of(plant, plant.hub)], seed, OBJECTS)
        await histories.made(CLIENTS, REQUESTS)
        histories.check()
    await check_one_of_two_wins([hub_of(plant, plant.hub)], rounds=20)


async def test_what_was_answered_outlives_a_kill(plant: Plant) -> None:
    histories = Histories([hub_of(plant, plant.hub)], 4, OBJECTS)
    async with asyncio.TaskGroup() as clients:
        clients.create_task(histories.made(CLIENTS, REQUESTS))
        await histories.until(CLIENTS * REQUESTS // 2)
        plant.hub.kill()
        plant.hub.start()
    histories.check()
