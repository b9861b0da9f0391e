"""Small hubs for tests: a store in a temporary folder, a log in memory, and resources to put in."""

import contextlib
from pathlib import Path

import msgspec

from store_places import store_at
from transom.catalog.kinds import shipped
from transom.hub.changes import Actor, Change, Held, Wanted, applying, deleting, merge, updating
from transom.hub.relay import CHANGES
from transom.hub.store import Store
from transom.links.positions import POSITIONS
from transom.logs.memory import MemoryLog
from transom.model.errors import NotFoundError
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import JsonObject, Metadata, Resource
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

PERSON = Actor(PEOPLE, "ada")
REGIONS = ("ap", "eu", "us")
CLOCK = SystemClock()


@contextlib.asynccontextmanager
async def open_store(folder: Path, *, declared: bool = True):
    """A store, with tenant acme and three regions declared."""
    store = await Store.open(store_at(folder / "store.db"), shipped(), CLOCK, Randomness(7))
    try:
        if declared:
            await store.write_all([put(tenant("acme")), *(put(region(name)) for name in REGIONS)])
        yield store
    finally:
        await store.close()


async def hub_log() -> MemoryLog:
    log = MemoryLog(CLOCK)
    await log.create([POSITIONS, CHANGES])
    return log


def put(resource: Resource, actor: Actor = PERSON) -> Change:
    return Change(resource.key, applying(resource), actor)


def remove(key: Key, actor: Actor = PERSON) -> Change:
    return Change(key, deleting(key), actor)


def merge_patching(key: Key, patch: JsonObject) -> Wanted:
    """The change that a merge patch means, as the API makes it."""

    def wanted(held: Held) -> Held:
        if held is None:
            raise NotFoundError(f"{key} does not exist")
        return updating(msgspec.convert(merge(msgspec.to_builtins(held), patch), Resource))(held)

    return wanted


def tenant(name: str) -> Resource:
    return Resource("Tenant", Metadata(name))


def region(name: str, zones: tuple[str, ...] = ("a",)) -> Resource:
    spec = {"log": "http://127.0.0.1:1", "zones": [{"name": zone} for zone in zones]}
    return Resource("Region", Metadata(name), spec=spec)


def deployment(name: str = "shop", **spec) -> Resource:
    given = {"app": "shop", "version": "1", "command": ["serve"], "regions": list(REGIONS), **spec}
    return Resource("Deployment", Metadata(name, namespace="acme"), spec=given)


def zone_status(regional: Resource, *, ready: bool = True, terminated: bool = False, **more) -> dict:
    count = regional.spec["zones"].get("a", 0)
    return {
        "zone": "a",
        "uid": regional.metadata.uid,
        "observedGeneration": regional.metadata.generation,
        "desired": 0 if terminated else count,
        "ready": count if ready and not terminated else 0,
        "updated": 0 if terminated else count,
        "terminated": terminated,
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "reason": "" if ready else "CrashLoop",
                "message": "" if ready else "it fell over",
            }
        ],
        **more,
    }
