"""Contexts at the hub for tests: a kind of their own, resources to make them of, and a builder to drive."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hub_parts import PERSON, put, remove
from store_places import store_at
from transom.catalog.kinds import shipped
from transom.hub.changes import Change, applying
from transom.hub.contexts.builder import ContextBuilder, Options
from transom.hub.contexts.guards import Limits
from transom.hub.contexts.row import Row
from transom.hub.contexts.store import ContextStore
from transom.hub.store import Store
from transom.model.contexts import ContextKind, ContextKinds
from transom.model.errors import InvalidError, Problem
from transom.model.kinds import Catalog, Kind, Spec
from transom.model.names import Key
from transom.model.resources import Metadata, Resource
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

EVERYTHING = 1_000_000
GUARDED = Limits()


class GateSpec(Spec):
    """What a test's gate has: a key, a value, and regions of its own."""

    key: str = ""
    value: str = "v"
    shut: bool = False
    regions: list[str] | None = None


GATE = Kind(name="Gate", plural="gates", spec=GateSpec)


class GateValue(msgspec.Struct, frozen=True, omit_defaults=True):
    value: str
    title: str = ""
    shut: bool = False


class GateContext(ContextKind[GateValue]):
    """`gate/TENANT/NAME`, or `gate/` and the key it names; the tenant's title is written into it."""

    name = "gate"
    value = GateValue
    subject = "Gate"

    def key_of(self, subject: Resource) -> str:
        return f"gate/{subject.spec['key']}" if subject.spec.get("key") else super().key_of(subject)

    def build(self, subject: Resource, tenant: Resource | None) -> GateValue:
        value = subject.spec.get("value", "v")
        if value == "broken":
            raise InvalidError("gate", [Problem("spec.value", "is broken")])
        if value == "stumble":
            raise ZeroDivisionError("by nobody")
        title = tenant.spec.get("title", "") if tenant else ""
        return GateValue(value, title, bool(subject.spec.get("shut")) or title == "suspended")

    def regions(self, subject: Resource, tenant: Resource | None) -> frozenset[str]:
        named = subject.spec.get("regions")
        return frozenset(named) if named is not None else super().regions(subject, tenant)

    def restricts(self, value: GateValue) -> bool:
        return value.shut


class GateContextTwo(GateContext):
    """The next schema: every value changes."""

    schema = 2

    def build(self, subject: Resource, tenant: Resource | None) -> GateValue:
        built = super().build(subject, tenant)
        return msgspec.structs.replace(built, value=f"{built.value}/2")


class AllShut(GateContext):
    """A schema whose class is wrong: it takes everybody's rights away."""

    schema = 3

    def build(self, subject: Resource, tenant: Resource | None) -> GateValue:
        return msgspec.structs.replace(super().build(subject, tenant), shut=True)


def gate(name: str, tenant: str = "acme", **spec: Any) -> Resource:
    return Resource("Gate", Metadata(name, tenant), spec=spec)


def tenant(name: str = "acme", **spec: Any) -> Resource:
    return Resource("Tenant", Metadata(name), spec=spec)


def override(name: str, upto: int = EVERYTHING, until: str = "2099-01-01T00:00:00Z") -> Resource:
    return Resource("ContextOverride", Metadata(name), spec={"upTo": upto, "until": until})


def catalog() -> Catalog:
    return Catalog((*shipped(), GATE))


@dataclasses.dataclass
class Works:
    """A store and a builder that works when it is told to."""

    store: Store
    contexts: ContextStore
    builder: ContextBuilder
    clock: ManualClock

    async def put(self, *resources: Resource) -> None:
        """Declare resources; each must be accepted."""
        for outcome in await self.store.write_all([put(resource) for resource in resources]):
            assert not isinstance(outcome, Exception), outcome

    async def remove(self, *keys: Key) -> None:
        for outcome in await self.store.write_all([remove(key) for key in keys]):
            assert outcome is None, outcome

    async def build(self) -> None:
        """Build until there is nothing to do."""
        while await self.builder.do_some():
            pass

    async def rows(self, lane: str = "", after: int = 0) -> dict[str, Row]:
        """The rows, by key."""
        page = await self.contexts.lane_rows(lane, after, EVERYTHING)
        return {row.key: row for row in page.rows}

    async def values(self) -> dict[str, bytes]:
        return {key: row.value for key, row in (await self.rows()).items() if not row.deleted}

    @property
    def holds(self) -> list[str]:
        return sorted(hold.id for hold in self.builder.state.holds)

    async def again(self, *kinds: ContextKind[Any], **options: Any) -> "Works":
        """The same store under a new builder, as after a restart; with other kinds, if any are given."""
        kinds_now = ContextKinds(kinds) if kinds else self.builder.kinds
        builder = ContextBuilder(self.contexts, kinds_now, self.clock, Options(**options))
        await builder.load()
        return Works(self.store, self.contexts, builder, self.clock)


@contextlib.asynccontextmanager
async def works(
    folder: Path,
    *kinds: ContextKind[Any],
    tenants: Sequence[str] = ("acme",),
    regions: Sequence[str] = ("eu", "us"),
    limits: Limits = GUARDED,
    bulk_rows: int = 100,
):
    """A store with tenants and regions, and a builder of `kinds` (by default the test's gates) over it."""
    clock = ManualClock()
    store = await Store.open(store_at(folder / "store.db"), catalog(), clock, Randomness(7))
    contexts = ContextStore(store)
    spec = {"log": "http://127.0.0.1:1"}
    declared = [tenant(name) for name in tenants]
    declared += [Resource("Region", Metadata(name), spec=spec) for name in regions]
    try:
        await store.write_all([Change(each.key, applying(each), PERSON) for each in declared])
        await contexts.open()
        builder = ContextBuilder(
            contexts, ContextKinds(kinds or (GateContext(),)), clock, Options(bulk_rows, limits)
        )
        await builder.load()
        made = Works(store, contexts, builder, clock)
        await made.build()
        yield made
    finally:
        await contexts.close()
        await store.close()


def gates(count: int, tenant_name: str = "acme", **spec: Any) -> list[Resource]:
    return [gate(f"g{number:04}", tenant_name, **spec) for number in range(count)]
