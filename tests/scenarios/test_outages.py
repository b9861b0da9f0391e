"""Outages that a value caused, each reproduced here with the guard off, then held with it on.

What was published reached every place at once, and there a consumer broke on it. The incidents and what they
teach are listed in docs/explanation/contexts.md; those of caches, stores and workers stand in
`test_outages_of_stores.py`.
"""

import asyncio
from typing import Any

import msgspec
from tests.context_parts import a_key, key_name

from hub_contexts_parts import GateContext, GateContextTwo, GateValue, gate
from outage_parts import REGIONS, SOAK_FIRST, Deadlocking, OpenGates, a_globe, api_key, serving
from transom.catalog.contexts import CONTEXTS as SHIPPED
from transom.logs.protocol import TopicPartition
from transom.model.contexts import ContextKind, ContextKinds
from transom.model.resources import to_json
from transom.model.roads import CONTEXTS_BULK
from transom.region.contexts.door import Door
from transom.region.gateway.decider import KeyDecider
from transom.region.gateway.grants import Grants

ALL_200, ALL_401, ALL_503 = (dict.fromkeys(REGIONS, status) for status in (200, 401, 503))
KEY, OTHER, COLD = a_key(), a_key(), a_key()


def kinds(*more: ContextKind[Any]) -> ContextKinds:
    return ContextKinds((*SHIPPED, *more))


def crashed(gateways) -> list[str]:
    return [each.region for each in gateways if each.crashed is not None]


# --- a doubled file ------------------------------------------------------------------------------------

FEATURES_MAX = 200
FEATURES = [f"feature-{number:04}-{'x' * 35}" for number in range(FEATURES_MAX)]
FILE = "features/acme/bots"


class FeaturesValue(msgspec.Struct, frozen=True):
    names: list[str]


class FeaturesContext(ContextKind[FeaturesValue]):
    """A file of features that a service in every region reads."""

    name = "features"
    value = FeaturesValue
    subject = "Gate"

    def build(self, subject, tenant):
        return FeaturesValue(subject.spec["value"].split(","))


class Unmeasured(FeaturesContext):
    """The same without the publisher's guard: whatever is built goes out."""

    def encode(self, value):
        return to_json(value)


class BotsModule:
    """Has made room for so many features, and ends its process when there are more."""

    def __init__(self) -> None:
        self.features: list[str] = []

    def take(self, records) -> None:
        for record in records:
            if record.key == FILE:
                features = msgspec.json.decode(record.value, type=FeaturesValue).names
                if len(features) > FEATURES_MAX:
                    raise RuntimeError("called unwrap() on an Err value: no room for more features")
                self.features = features


def bots(features) -> Any:
    return gate("bots", value=",".join(features))


async def test_cloudflare_2025_11_a_doubled_file(tmp_path):
    """A query began to return every row twice, so a file of features doubled; it passed the hard limit of
    the module that read it, which ended its process, everywhere and again after each restart. Here a context
    of 200 features doubles, before a consumer that has room for 200. The guards are the limit on a value's
    size at the hub, which keeps the last good one, and the same limit at each region's door, for the day
    when the hub's fails.
    """
    async with a_globe(tmp_path) as globe:
        unmeasured, measured = kinds(Unmeasured()), kinds(FeaturesContext())
        # Off: neither the hub nor the door looks at the size.
        unguarded = [
            globe.gateway(name, door=Door(None, unmeasured, 1 << 20), consumer=BotsModule())
            for name in REGIONS
        ]
        async with serving(*unguarded), globe.hub(unguarded, unmeasured) as hub:
            await hub.verified()
            await hub.declare(bots(FEATURES))
            await hub.arrived()
            assert [each.consumer.features for each in unguarded] == [FEATURES] * 3
            await hub.declare(bots(FEATURES * 2))
            await hub.all_crashed()
            for each in unguarded:  # what it ended on is what it begins with
                await each.restart(consumer=BotsModule())
            await hub.all_crashed()

    async with a_globe(tmp_path / "hub") as globe:
        # On, at the hub: the file never leaves it, and everything else goes on.
        gateways = [globe.gateway(name, measured, consumer=BotsModule()) for name in REGIONS]
        async with serving(*gateways):
            async with globe.hub(gateways, measured) as hub:
                await hub.verified()
                await hub.declare(bots(FEATURES), api_key("k", KEY))
                await hub.declare(bots(FEATURES * 2))
                (refusal,) = hub.contexts.builder.state.refused
                assert "bytes; at most" in refusal.why
                await hub.declare(api_key("k", KEY, revoked=True))
                await hub.arrived()
                assert await hub.statuses(KEY) == ALL_401
                assert [each.consumer.features for each in gateways] == [FEATURES] * 3
            # On, at the region: a hub that has lost its guard is not believed; it is refused alone, and told.
            async with globe.hub(gateways, unmeasured) as hub:
                await hub.declare(bots(FEATURES + FEATURES[::-1]), api_key("o", OTHER))
                await hub.arrived()
                assert crashed(gateways) == []
                assert await hub.statuses(OTHER) == ALL_200
                assert [each.consumer.features for each in gateways] == [FEATURES] * 3
                for each in gateways:
                    assert "over 16384 bytes" in (await each.beat()).refused[FILE]
                # A good one is taken at once.
                await hub.declare(bots(FEATURES[:100]))
                await hub.arrived()
                assert [each.consumer.features for each in gateways] == [FEATURES[:100]] * 3
                assert [each.door.refused for each in gateways] == [{}] * 3


# --- blank fields --------------------------------------------------------------------------------------

POLICY = "policy/acme/quota"


class PolicyValue(msgspec.Struct, frozen=True):
    limit: float


class PolicyContext(ContextKind[PolicyValue]):
    """A quota that a service in every region checks requests against."""

    name = "policy"
    value = PolicyValue
    subject = "Gate"

    def build(self, subject, tenant):
        return PolicyValue(float(subject.spec["value"]))

    def regions(self, subject, tenant):
        named = subject.spec.get("regions")
        return super().regions(subject, tenant) if named is None else frozenset(named)


class BlankValue(msgspec.Struct, frozen=True):
    limit: float | None = None


class BlankPolicy(PolicyContext):
    """The same without the guard: a blank is a value like any other."""

    value = BlankValue

    def build(self, subject, tenant):
        return BlankValue(float(subject.spec["value"]) if subject.spec["value"] else None)


class QuotaService:
    """Computes with every limit that it is told; that one could be missing was never tried."""

    def __init__(self) -> None:
        self.limits: dict[str, float] = {}

    def take(self, records) -> None:
        for record in records:
            if record.key.startswith("policy/"):
                self.limits[record.key] = 1.1 * msgspec.json.decode(record.value)["limit"]


async def test_google_2025_06_blank_fields(tmp_path):
    """A policy with blank fields was written, within seconds it was in every region, and there code that had
    never met a blank fell over a null, again after each restart. Here a quota's limit is left blank, before
    a consumer that multiplies it. The guards: a context kind's value has no blanks, so the hub refuses to
    build one and keeps the last good; each region's door refuses what a hub without that guard sends; and a
    blank list of regions takes nothing away.
    """
    blank, strict = kinds(BlankPolicy()), kinds(PolicyContext())
    async with a_globe(tmp_path) as globe:
        unguarded = [globe.gateway(name, door=Door(None, blank), consumer=QuotaService()) for name in REGIONS]
        async with serving(*unguarded), globe.hub(unguarded, blank) as hub:
            await hub.verified()
            await hub.declare(gate("quota", value="10"))
            await hub.arrived()
            assert crashed(unguarded) == []
            await hub.declare(gate("quota", value=""))
            await hub.all_crashed()  # and the clock has not moved
            for each in unguarded:
                await each.restart(consumer=QuotaService())
            await hub.all_crashed()

    async with a_globe(tmp_path / "guarded") as globe:
        gateways = [globe.gateway(name, strict, consumer=QuotaService()) for name in REGIONS]
        async with serving(*gateways):
            async with globe.hub(gateways, strict) as hub:
                await hub.verified()
                await hub.declare(gate("quota", value="10"), api_key("k", KEY))
                await hub.arrived()
                for blanks in ({"value": ""}, {"value": "10", "regions": []}):
                    await hub.declare(gate("quota", **blanks))
                    assert len(hub.contexts.builder.state.refused) == 1
                await hub.declare(api_key("k", KEY, revoked=True))
                await hub.arrived()
                assert await hub.statuses(KEY) == ALL_401
                assert [each.consumer.limits for each in gateways] == [{POLICY: 11.0}] * 3
            async with globe.hub(gateways, blank) as hub:
                await hub.declare(gate("quota", value=""), api_key("o", OTHER))
                await hub.arrived()
                assert crashed(gateways) == []
                assert await hub.statuses(OTHER) == ALL_200
                for each in gateways:
                    assert set((await each.beat()).refused) == {POLICY}
                assert [each.consumer.limits for each in gateways] == [{POLICY: 11.0}] * 3
                await hub.declare(gate("quota", value="20"))
                await hub.arrived()
                assert [each.consumer.limits for each in gateways] == [{POLICY: 22.0}] * 3


# --- one new value -------------------------------------------------------------------------------------

APP = "gate/acme/app"


class NovelGrants(Grants):
    """A latent fault: it was never tried with a key of this virtual cluster."""

    def of(self, digest, record):
        grant = super().of(digest, record)
        if grant.rights is not None and grant.rights.virtual_cluster == "novel":
            raise RuntimeError("the branch that was never taken")
        return grant


class Stumbling(KeyDecider):
    def __init__(self, *parts, **more) -> None:
        super().__init__(*parts, **more)
        self._grants = NovelGrants()


class Uncontained(Stumbling):
    """The same without the guard: what one value raises goes on to whoever feeds it."""

    def _told(self, records) -> None:
        for record in records:
            digest = bytes.fromhex(record.key.partition("/")[2]) if record.key.startswith("api_key/") else b""
            if self._keys.concerns(digest):
                self._keys.push(digest, self._grants.of(digest, record), record.version.counter)


class GateContextThree(GateContext):
    schema = 3

    def build(self, subject, tenant):
        return GateValue(f"{subject.spec['value']}/3")


async def hangs(gateway, key) -> bool:
    """Whether a request waits for ever: here for a lock that nobody will ever let go of."""
    asked = asyncio.create_task(gateway.status(key))
    for _ in range(50):
        await asyncio.sleep(0)
    asked.cancel()
    return not asked.done()


async def test_fly_2024_09_one_new_value_deadlocks_every_proxy_at_once(tmp_path):
    """A first value of a new shape met a branch that no proxy had ever taken, and where each held a lock
    that it wanted again: all of them, in every region, hung at once. Here it is a key's new field that
    raises where it was never tried, and a context of a new schema that deadlocks the table behind it. The
    guards: a value that a gateway stumbles over is left out alone; and what is of a new schema, be it one
    value, goes to one region first and no further while that one does not get through it.
    """
    async with a_globe(tmp_path) as globe:
        unguarded = [globe.gateway(name, decider_class=Uncontained) for name in REGIONS]
        async with serving(*unguarded), globe.hub(unguarded) as hub:
            await hub.verified()
            await hub.declare(api_key("k", KEY), api_key("o", OTHER))
            await hub.arrived()
            assert await hub.statuses(KEY) == await hub.statuses(OTHER) == ALL_200
            await hub.declare(api_key("k", KEY, virtualCluster="novel"))
            await hub.all_crashed()
            await hub.declare(api_key("o", OTHER, revoked=True))
            assert await hub.statuses(OTHER) == ALL_200, "nobody hears of a revocation any more"

    async with a_globe(tmp_path / "contained") as globe:
        gateways = [globe.gateway(name, decider_class=Stumbling) for name in REGIONS]
        async with serving(*gateways), globe.hub(gateways) as hub:
            await hub.verified()
            await hub.declare(api_key("k", KEY), api_key("o", OTHER), api_key("c", COLD))
            await hub.arrived()
            assert await hub.statuses(KEY) == await hub.statuses(OTHER) == ALL_200
            novel = {"virtualCluster": "novel"}
            await hub.declare(api_key("k", KEY, **novel), api_key("c", COLD, **novel))
            await hub.declare(api_key("o", OTHER, revoked=True))
            await hub.arrived()
            assert crashed(gateways) == []
            assert await hub.statuses(OTHER) == ALL_401
            assert await hub.statuses(COLD) == ALL_503, "cannot tell, and nobody else's business"
            for each in gateways:
                assert set((await each.beat()).refused) == {key_name(KEY)}
            await hub.declare(api_key("k", KEY), api_key("c", COLD))
            await hub.arrived()
            assert await hub.statuses(KEY) == await hub.statuses(COLD) == ALL_200

    for guarded in (False, True):
        async with a_globe(tmp_path / f"soak-{guarded}") as globe:
            gateways = {name: globe.gateway(name, inner=Deadlocking(b"/2")) for name in REGIONS}
            async with serving(*gateways.values()):
                async with globe.hub(gateways.values(), kinds(GateContext())) as hub:
                    await hub.verified()
                    await hub.declare(gate("app"), api_key("k", KEY), api_key("o", OTHER))
                    await hub.arrived()
                await (_one_region_hangs if guarded else _all_hang)(globe, gateways)


async def _all_hang(globe, gateways) -> None:
    async with globe.hub(gateways.values(), kinds(GateContextTwo()), contexts_class=OpenGates):
        for each in gateways.values():
            await each.inner.until_stuck()
        assert [await hangs(each, KEY) for each in gateways.values()] == [True] * 3


async def _one_region_hangs(globe, gateways) -> None:
    async with globe.hub(gateways.values(), kinds(GateContextTwo())) as hub:
        first, *others = gateways.values()
        await first.inner.until_stuck()
        await hub.pass_time(3600)
        assert "has not read it yet" in hub.contexts.gates.soak.trouble
        await hub.declare(api_key("o", OTHER, revoked=True))
        await hub.arrived(*REGIONS[1:])
        assert [await each.status(OTHER) for each in others] == [401, 401]
        assert [await each.status(KEY) for each in others] == [200, 200]
    # A better release; the first region's gateway is killed and begins anew.
    async with globe.hub(gateways.values(), kinds(GateContextThree())) as hub:
        await hub.sent(SOAK_FIRST)
        await first.restart(inner=Deadlocking(b"/2"))
        await hub.arrived()
        await hub.pass_time(300)
        await hub.arrived()
        for each in gateways.values():
            assert (await each.table.get(APP)).value == b'{"value":"v/3"}'
        assert await hub.statuses(OTHER) == ALL_401
    for name in REGIONS[1:]:
        sent = await globe.logs[name].read({TopicPartition(CONTEXTS_BULK, 0): 0}, most=10_000)
        assert not any(b"/2" in entry.value for entry in sent), "what hung the first was never theirs"
