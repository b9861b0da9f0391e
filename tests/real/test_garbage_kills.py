"""A deletion with all that follows from it, killed around every commit, on either engine.

Who comes after sees only what is stored. In the end everything is as after a deletion that nobody disturbed,
and so is what the history and the outbox say of it: each thing once.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hub_parts import CLOCK, put, tenant
from store_places import ENGINES
from transom.catalog.kinds import shipped
from transom.hub.ownership import BACKGROUND, FOREGROUND, ORPHAN
from transom.hub.store import Store
from transom.hub.store_engine import named_database
from transom.model.names import Key
from transom.model.resources import Metadata, OwnerReference, Resource
from transom.runtime.randomness import Randomness

PROGRAM = """
import asyncio, pathlib, sys
from transom.catalog.kinds import shipped
from transom.hub import garbage
from transom.hub.changes import Actor, Change, deleting
from transom.hub.store import Store
from transom.hub.store_engine import named_database
from transom.model.errors import NotFoundError
from transom.model.names import Key
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

url, path, policy = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
garbage._AT_ONCE = 2  # so that there are many commits between which to die
key = Key("KafkaCluster", "acme", "owner")

async def main():
    store = await Store.open(named_database(url, path, None, None), shipped(), SystemClock(), Randomness(5))
    held = next((each for each in await store.all_of("KafkaCluster") if each.key == key), None)
    if held is not None and not held.deleting:
        await store.write(Change(key, deleting(key), Actor("api", "ada"), propagation=policy))
    await garbage.GarbageCollector(store, SystemClock(), Randomness(1)).collect(0)
    await store.close()

asyncio.run(main())
"""
"""A hub that is asked to delete the owner, and collects what follows."""
DEATHS = ("store.committed:1", "store.committing:2")
"""Each lets one commit happen: it dies behind it, or before the next."""
CHILDREN = 2
EVENTS = 10_000


class Place(NamedTuple):
    """Where a store is: a file, or, with a `url`, a database."""

    url: str
    path: Path

    async def open(self) -> Store:
        return await Store.open(
            named_database(self.url, self.path, None, None), shipped(), CLOCK, Randomness(7)
        )

    def run(self, policy: str, die_at: str) -> int:
        command = [sys.executable, "-c", PROGRAM, self.url, str(self.path), policy]
        environment = {**os.environ, "TRANSOM_DIE_AT": die_at}
        return subprocess.run(command, check=False, env=environment, timeout=100).returncode


def _cluster(name: str, *owners: Resource, blocks: bool = False) -> Resource:
    references = [
        OwnerReference(
            "transom.dev/v1",
            "KafkaCluster",
            owner.metadata.name,
            owner.metadata.uid,
            block_owner_deletion=blocks,
        )
        for owner in owners
    ]
    meta = Metadata(name, "acme", owner_references=references)
    return Resource("KafkaCluster", meta, spec={"bootstrapServers": ["kafka.example:9092"]})


async def _made(store: Store, resource: Resource) -> Resource:
    held = await store.write(put(resource))
    assert held is not None
    return held


async def _declared(place: Place) -> None:
    store = await place.open()
    await store.write(put(tenant("acme")))
    owner, other = [await _made(store, _cluster(name)) for name in ("owner", "other")]
    for number in range(CHILDREN):
        child = await _made(store, _cluster(f"its-{number}", owner, blocks=True))
        await _made(store, _cluster(f"below-{number}", child))
    await _made(store, _cluster("shared", owner, other))
    await _made(store, _cluster("stranger"))
    await store.close()


async def _left(place: Place) -> tuple[dict[str, list[str]], dict[Key, list[Any]], int]:
    """What is there, for whom; what the history says of each; and how much the outbox has to tell."""
    store = await place.open()
    there = {
        each.metadata.name: [owner.name for owner in each.metadata.owner_references]
        for each in await store.all_of("KafkaCluster")
    }
    told: dict[Key, list[Any]] = {}
    for event in await store.events(0, EVENTS):
        told.setdefault(event.resource.key, []).append((event.event, event.who, event.why))
    outbox = len(await store.outbox(0, EVENTS))
    await store.close()
    return there, told, outbox


@pytest.mark.parametrize("policy", [BACKGROUND, FOREGROUND, ORPHAN])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_deletion_killed_around_every_commit_ends_as_one_undisturbed(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str, policy: str
) -> None:
    url = request.getfixturevalue("database") if engine == "real" else ""
    place, calm = Place(url, tmp_path / "killed.db"), Place("", tmp_path / "calm.db")
    for each in (place, calm):
        asyncio.run(_declared(each))
    assert calm.run(policy, "") == 0

    deaths = 0
    while code := place.run(policy, DEATHS[deaths % 2]):
        assert code == -signal.SIGKILL
        deaths += 1
    assert deaths >= 3, "around the deletion, and more than once in what follows from it"

    there, told, outbox = asyncio.run(_left(place))
    assert (there, told, outbox) == asyncio.run(_left(calm))
    below = {f"below-{n}": [f"its-{n}"] for n in range(CHILDREN)}
    its: dict[str, list[str]] = {f"its-{n}": [] for n in range(CHILDREN)}
    stays: dict[str, list[str]] = {"other": [], "shared": ["other"], "stranger": []}
    assert there == (stays | its | below if policy == ORPHAN else stays)
    ended = [key.name for key, events in told.items() if events[-1][0] == "DELETED"]
    assert len(ended) == (1 if policy == ORPHAN else 1 + 2 * CHILDREN)
    assert all([event for event, *_ in events].count("DELETED") <= 1 for events in told.values())
