"""A mirror that dies at each of its durable steps while producers write: started again, it goes on exactly
where the copy ends.

The checker reads both clusters by clients that know nothing of it: every committed record once, in order, and
every offset translated exactly. `TRANSOM_SOAK_KILLS` and `TRANSOM_SEED` choose how many and which (`make
soak`).
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from engines.kafka import Brokers
from mirror_deaths import ANY_MOMENT, die_and_go_on
from mirror_world import World, emptied
from transom.runtime.steps import POINTS

CARRY_POINTS = [point for point in POINTS if point.startswith("carry.")]
_MOST_TIMES = {
    "carry.marked": 8,
    "carry.fenced": 8,
    "carry.taken": 8,
    "carry.kept": 5,
    "carry.fetched": 10,
    "carry.produced": 20,
}
"""How often a mirror comes past a point in any case: every process takes eight shards."""
_MOMENT_SECONDS_MAX = 3.0


@pytest.fixture
async def clusters(brokers: Brokers, far_brokers: Brokers) -> AsyncIterator[tuple[Brokers, Brokers]]:
    async with emptied(brokers, far_brokers):
        yield brokers, far_brokers


async def test_a_death_at_any_step_loses_and_doubles_nothing(
    clusters: tuple[Brokers, Brokers], tmp_path: Path
) -> None:
    randomness = random.Random(int(os.environ.get("TRANSOM_SEED", "1")))
    await _survive(clusters, tmp_path, [[point] for point in CARRY_POINTS], randomness)


async def test_deaths_with_the_oldest_kafka_on_either_side(
    brokers: Brokers, broker39: Brokers, tmp_path: Path
) -> None:
    async with emptied(brokers, broker39), asyncio.TaskGroup() as group:
        for source, target, name in ((brokers, broker39, "new-to-old"), (broker39, brokers, "old-to-new")):
            deaths = [["carry.kept"], ["carry.produced"]]
            group.create_task(_survive((source, target), tmp_path, deaths, random.Random(39), name))


@pytest.mark.soak
async def test_soak_of_deaths(clusters: tuple[Brokers, Brokers], tmp_path: Path) -> None:
    kills = int(os.environ.get("TRANSOM_SOAK_KILLS", "500"))
    seed = int(os.environ.get("TRANSOM_SEED", "1000"))
    for number in range(0, kills, 25):
        print(f"seed {seed + number}", flush=True)  # noqa: T201  # to go on from here
        randomness = random.Random(seed + number)
        points = [*CARRY_POINTS, ANY_MOMENT]
        chosen = [randomness.choices(points, k=5) for _ in range(min(5, -(-(kills - number) // 5)))]
        async with emptied(*clusters):
            await _survive(clusters, tmp_path / str(number), chosen, randomness)


async def _survive(
    clusters: tuple[Brokers, Brokers],
    folder: Path,
    deaths: Sequence[Sequence[str]],
    randomness: random.Random,
    name: str = "mirror",
) -> None:
    """As many mirrors as there are rows, all at the same time, each of which dies at its row's points."""
    worlds: list[World] = []
    try:
        async with asyncio.TaskGroup() as group:
            for number, points in enumerate(deaths):
                topic = f"{name}-{number}"
                worlds.append(World(*clusters, folder, include=[topic], name=topic))
                die_at = [_when(point, randomness) for point in points]
                seed = randomness.randrange(1 << 30)
                group.create_task(die_and_go_on(worlds[-1], topic, die_at, seed))
    finally:
        for world in worlds:
            world.kill()


def _when(point: str, randomness: random.Random) -> str:
    if point == ANY_MOMENT:
        return f"{point}:{randomness.uniform(0, _MOMENT_SECONDS_MAX)}"
    return f"{point}:{randomness.randint(1, _MOST_TIMES[point])}"
