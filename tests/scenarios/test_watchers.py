"""Watchers of a hub that is killed: each is told of every change exactly once and in order."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from benchmarks.plant import Plant

from history_parts import hub_of
from watcher_parts import Crowd


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    plant = Plant(tmp_path, [], {})
    async with plant.running():
        yield plant


@pytest.mark.parametrize(("watchers", "changes"), [(50, 30), pytest.param(200, 500, marks=pytest.mark.soak)])
async def test_every_watcher_is_told_of_every_change_once_and_in_order(
    plant: Plant, watchers: int, changes: int
) -> None:
    writers = 20
    hubs = [hub_of(plant, plant.hub)]
    crowd = Crowd(hubs, watchers=watchers, writers=writers, changes=changes, seconds=(1, 10))
    async with asyncio.TaskGroup() as running:
        running.create_task(crowd.run())
        await crowd.until(writers * changes // 2)
        plant.hub.kill()
        plant.hub.start()
