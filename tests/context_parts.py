"""What tests of a gateway's knowledge stand on: contexts as records, and a decider over a table of them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from transom.catalog.contexts import shipped_contexts
from transom.logs.protocol import Entry
from transom.logs.records import to_message
from transom.model.access import ApiKeyValue, RouteValue
from transom.model.api_keys import hash_of, new_api_key
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, Canary
from transom.model.version import Version
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.decider import KeyDecider
from transom.runtime.clock import Clock, ManualClock
from transom.runtime.randomness import Randomness, choose_secret
from transom.tables.memory import MemoryTable
from transom.tables.protocol import Table

ROWS_MAX = 1000


def a_key() -> bytes:
    """A key as clients send it."""
    return new_api_key(choose_secret).encode()


def key_name(key: bytes) -> str:
    return f"api_key/{hash_of(key).hex()}"


def key_record(key: bytes, revision: int, *, epoch: int = 1, deleted: bool = False, **fields: Any) -> Record:
    """The context of `key` as of a revision of the hub."""
    given: dict[str, Any] = {
        "name": "reader", "tenant": "acme", "scopes": ("*",), "expires_at": None, "revoked": False,
        "suspended": False,
    }  # fmt: skip
    value = b"{}" if deleted else to_json(ApiKeyValue(**(given | fields)))
    return Record(key_name(key), Version(epoch, revision, "hub"), value, deleted)


def route_record(tenant: str, app: str, revision: int, *, deleted: bool = False) -> Record:
    value = b"{}" if deleted else to_json(RouteValue(tenant=tenant, app=app))
    return Record(f"route/{tenant}/{app}", Version(1, revision, "hub"), value, deleted)


def canaries(
    revision: int, time: float, *, verified: bool = True, epoch: int = 1, count: int = 0
) -> list[Record]:
    """Canaries of both lanes, the fast one first; `count` makes their versions differ."""
    version = Version(epoch, (revision << 32) + count, "hub")
    return [
        Record(key, version, to_json(Canary(revision, time, verified=verified)))
        for key in (CANARY_FAST, CANARY_BULK)
    ]


def entry_of(record: Record, *, topic: str = CONTEXTS, offset: int = 0, headers: Any = ()) -> Entry:
    """How `record` stands in a log."""
    message = to_message(topic, record, headers)
    return Entry(topic, 0, offset, 0, message.key, message.value, message.headers)


class World:
    """A decider, and what it knows."""

    def __init__(self, table: ContextTable, door: Door, decider: KeyDecider, clock: Clock) -> None:
        self.table, self.door, self.decider, self.clock = table, door, decider, clock

    async def put(self, *records: Record) -> None:
        await self.table.apply(records, {})

    async def complete(self, revision: int = 1, count: int = 0) -> None:
        await self.put(*canaries(revision, self.clock.wall(), count=count))

    async def status(self, key: bytes, app: str = "", method: str = "GET") -> int:
        """What is answered, at once or after looking it up."""
        decision = self.decider.decide_now(key, app, method)
        if decision is None:
            decision = await self.decider.decide(key, app, method)
        return decision.status


@contextlib.asynccontextmanager
async def a_world(
    *records: Record,
    inner: Table | None = None,
    clock: Clock | None = None,
    complete: bool = True,
    decider_class: type[KeyDecider] = KeyDecider,
) -> AsyncIterator[World]:
    """A decider over a table with `records`; complete, unless said otherwise."""
    clock = clock or ManualClock()
    door = Door(None, shipped_contexts())
    table = await ContextTable.open(inner or MemoryTable(), door, clock, ROWS_MAX)
    async with decider_class(table, door, clock, Randomness(1)) as decider:
        world = World(table, door, decider, clock)
        await world.put(*records)
        if complete:
            await world.complete()
        yield world
