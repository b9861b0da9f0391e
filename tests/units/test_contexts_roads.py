"""Contexts from the store to a region's table over real roads, and what gateways say back."""

import asyncio
import contextlib
import itertools

import msgspec
import pytest

from hub_contexts_parts import GateContext, catalog, gate, gates, override, tenant
from hub_parts import hub_log, put, region, remove
from store_places import store_at
from transom.hub.config import ContextsConfig
from transom.hub.contexts.row import BULK, FAST
from transom.hub.contexts.service import Contexts
from transom.hub.roads import Roads
from transom.hub.store import Store
from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model.contexts import ContextKinds
from transom.model.errors import NotFoundError
from transom.model.records import Record
from transom.model.resources import Metadata, Resource, to_json
from transom.model.roads import (
    CANARY_BULK,
    CANARY_FAST,
    CONTEXTS,
    CONTEXTS_BULK,
    GATEWAYS,
    Canary,
    GatewayBeat,
    context_table,
)
from transom.model.version import Version
from transom.region.topics import TOPICS
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.signing import Trust, new_signer
from transom.runtime.tasks import workers
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable
from transom.tables.seals import Seals
from transom.tables.sweeps import answer_sweeps

pytestmark = pytest.mark.usefixtures("each_engine")

CLOCK = SystemClock()


class Gateway:
    """A gateway as far as the hub can tell: a table, answers to sweeps, beats."""

    _count = itertools.count(1)

    def __init__(self, name, log):
        self.name, self.log = name, log
        self.table = MemoryTable()

    def start(self, group):
        group.start(f"keep {self.name}", lambda: keep(self.table, self.log, [CONTEXTS, CONTEXTS_BULK]))
        group.start(
            f"answer {self.name}",
            lambda: answer_sweeps(context_table(self.name), self.table, self.log),
        )

    async def canary(self, key):
        held = await self.table.get(key)
        return msgspec.json.decode(held.value, type=Canary) if held else Canary(0, 0.0)

    async def beat(self, **more):
        """Say how far it is."""
        fast = await self.canary(CANARY_FAST)
        bulk = await self.canary(CANARY_BULK)
        held = await self.table.get(CANARY_FAST)
        standing = {
            "ready": bulk.verified,
            "epoch": held.version.epoch if held else 0,
            "revision": fast.revision,
            "bulk_revision": bulk.revision,
            "age_seconds": 0.5,
            **more,
        }
        beat = GatewayBeat(self.name, self.name, "now", **standing)
        record = Record(self.name, Version(1, next(self._count), self.name), to_json(beat))
        await self.log.append([to_message(GATEWAYS, record)])

    async def values(self):
        return {row.key: row.value for row in await self.table.scan() if not row.key.startswith("~")}

    async def until(self, done):
        """Wait until `done` of what the table holds, saying meanwhile how far it is."""
        async with asyncio.timeout(30):
            while True:
                seen = self.table.changed.value
                await self.beat()
                found = done()
                if found if isinstance(found, bool) else await found:
                    return
                await self.table.changed.above(seen, 0.05)

    async def until_knows(self, revision):
        """Wait until it claims to know all up to `revision`."""

        async def knows():
            return (await self.canary(CANARY_FAST)).revision >= revision

        await self.until(knows)


class World:
    """A hub's store and contexts, and a region's log behind each road."""

    def __init__(self, store, contexts, group):
        self.store, self.contexts, self.group = store, contexts, group
        self.gateways = {}
        self.roads = {}

    async def open_road(self, name):
        log = MemoryLog(CLOCK)
        await log.create(TOPICS)
        roads = self.roads[name] = Roads(
            name, "production", self.store, await hub_log(), log, CLOCK, Randomness(1), 600.0,
            contexts=self.contexts.region(name),
        )  # fmt: skip
        await roads.open()
        roads.start(self.group)
        self.gateways[name] = Gateway(name, log)
        self.gateways[name].start(self.group)

    async def put(self, *resources):
        for outcome in await self.store.write_all([put(each) for each in resources]):
            assert not isinstance(outcome, Exception), outcome
        return self.store.changed.value

    async def described(self, name):
        items = (await self.contexts.describe())["items"]
        return next(item for item in items if item["region"] == name)


@contextlib.asynccontextmanager
async def world(folder, *kinds, names=("eu", "us"), **config):
    given = ContextsConfig(**{"canary_seconds": 0.1, "soak_seconds": 0.0, **config})
    signer = new_signer()
    store = await Store.open(store_at(folder / "store.db"), catalog(), CLOCK, Randomness(7))
    try:
        await store.write_all([put(tenant()), *(put(region(name)) for name in names)])
        contexts = await Contexts.open(store, ContextKinds(kinds or (GateContext(),)), given, signer, CLOCK)
        async with workers(CLOCK, Randomness(1)) as group:
            made = World(store, contexts, group)
            contexts.start(group)
            for name in names:
                await made.open_road(name)
            yield made
        await contexts.close()
    finally:
        await store.close()


async def test_a_region_is_filled_verified_and_told_of_changes(tmp_path):
    async with world(tmp_path) as hub:
        eu = hub.gateways["eu"]
        await hub.put(*gates(5))
        revision = await hub.put(gate("g0001", shut=True))
        await eu.until_knows(revision)
        assert b'"shut":true' in (await eu.values())["gate/acme/g0001"]
        assert len(await eu.values()) == 5

        async def verified():
            return (await eu.canary(CANARY_BULK)).verified

        await eu.until(verified)
        report = await hub.roads["eu"].report()
        assert report.context_age_seconds is not None
        assert report.context_age_seconds >= 0.5
        assert [each["gateway"] for each in report.gateways] == ["eu"]
        told = await hub.described("eu")
        assert (told["verified"], told["frozen"], told["sweepDifferences"]) == (True, False, 0)
        assert told["pendingFast"] == told["pendingBulk"] == 0


async def test_whoever_claims_to_know_a_revocation_has_it(tmp_path):
    """Not a moment when the claim is there and the row is not, whatever wakes the publisher."""
    async with world(tmp_path, names=("eu",), canary_seconds=0.1) as hub:
        eu = hub.gateways["eu"]
        await hub.put(*gates(40))
        shut = {}
        for number in range(40):
            shut[f"gate/acme/g{number:04}"] = await hub.put(gate(f"g{number:04}", shut=True))
            for _ in range(number % 4):
                seen = eu.table.changed.value
                await eu.table.changed.above(seen, 0.01)
            known = (await eu.canary(CANARY_FAST)).revision
            values = await eu.values()
            for key, revision in shut.items():
                assert revision > known or b"shut" in values[key]
        await eu.until_knows(max(shut.values()))
        assert all(b"shut" in value for value in (await eu.values()).values())


async def test_a_frozen_region_gets_nothing_at_all_until_it_is_resumed(tmp_path):
    async with world(tmp_path) as hub:
        eu, us = hub.gateways["eu"], hub.gateways["us"]
        await eu.until_knows(await hub.put(gate("g")))
        freeze = Resource("ContextFreeze", Metadata("eu"), spec={"reason": "trouble"})
        await hub.put(freeze)

        async def frozen():
            return (await hub.described("eu"))["frozen"]

        await us.until(frozen)
        end = (await eu.log.bounds(CONTEXTS))[0].end
        revision = await hub.put(gate("g", shut=True))
        await us.until_knows(revision)
        diff = await hub.contexts.diff("eu")
        assert [(each["key"], each["change"], each["lane"]) for each in diff["items"]] == [
            ("gate/acme/g", "change", FAST)
        ]
        assert (await eu.log.bounds(CONTEXTS))[0].end == end
        assert "frozen" in (await hub.roads["eu"].report()).problems["contexts"]
        await hub.store.write(remove(freeze.key))
        await eu.until_knows(revision)
        assert b"shut" in (await eu.values())["gate/acme/g"]
        assert (await hub.contexts.diff("eu")) == {"items": [], "more": False, "held": 0}
        with pytest.raises(NotFoundError):
            await hub.contexts.diff("nowhere")


async def test_bulk_goes_to_one_region_and_to_the_others_after_its_soak(tmp_path):
    async with world(tmp_path, soak_seconds=3600.0, bulk_rows=20, max_share=1.0) as hub:
        eu, us = hub.gateways["eu"], hub.gateways["us"]
        filled = await hub.put(*gates(30))
        await eu.until_knows(filled)
        await us.until_knows(filled)
        await hub.put(tenant(title="Acme"))

        async def reached():
            return b"Acme" in b"".join((await eu.values()).values())

        await eu.until(reached)
        # A revocation overtakes it, and shows that the other region has read all there is for it.
        revision = await hub.put(gate("g0001", shut=True))
        await us.until_knows(revision)
        values = await us.values()
        assert values.pop("gate/acme/g0001") == b'{"value":"v","title":"Acme","shut":true,"~restricts":true}'
        assert set(values.values()) == {b'{"value":"v"}'}
        told = await hub.contexts.describe()
        assert [(hold["id"], hold["changes"]) for hold in told["holds"]] == [("soak", 29)]
        assert [item["soaking"] for item in told["items"]] == [True, False]
        assert {each["lane"] for each in (await hub.contexts.diff("us"))["items"]} == {BULK}

        await hub.put(override("soak", 29))

        async def everywhere():
            return all(b"Acme" in value for value in (await us.values()).values())

        await us.until(everywhere)
        assert len(await us.values()) == 30


async def test_a_tenant_moves_by_what_gateways_say(tmp_path):
    async with world(tmp_path) as hub:
        eu, us = hub.gateways["eu"], hub.gateways["us"]
        await hub.put(tenant(regions=["eu"]), gate("g"))
        await eu.until(lambda: has(eu))
        assert await us.values() == {}
        revision = await hub.put(tenant(regions=["us"]))
        await us.until_knows(revision)

        async def left():
            await us.beat()
            return not await eu.values()

        await eu.until(left)
        assert set(await us.values()) == {"gate/acme/g"}


async def has(gateway):
    return bool(await gateway.values())


async def test_records_are_sealed_for_their_region(tmp_path):
    async with world(tmp_path) as hub:
        eu = hub.gateways["eu"]
        await eu.until_knows(await hub.put(gate("g")))
        trust = Trust([hub.contexts.signer.public_text])
        entries = await eu.log.read({TopicPartition(CONTEXTS, 0): 0})
        assert entries
        for entry in entries:
            Seals("eu", trust).check(entry.headers, from_entry(entry))


async def test_after_a_restart_of_the_hub_it_goes_on(tmp_path):
    async with world(tmp_path) as hub:
        eu = hub.gateways["eu"]
        await eu.until_knows(await hub.put(*gates(5)))
        log = eu.log
    async with world(tmp_path, names=()) as hub:
        roads = Roads(
            "eu", "production", hub.store, await hub_log(), log, CLOCK, Randomness(1), 600.0,
            contexts=hub.contexts.region("eu"),
        )  # fmt: skip
        await roads.open()
        roads.start(hub.group)
        before = len(await eu.values())
        again = Gateway("eu", log)
        again.start(hub.group)
        await again.until_knows(await hub.put(gate("g0001", shut=True)))
        assert len(await again.values()) == before
        assert b"shut" in (await again.values())["gate/acme/g0001"]
