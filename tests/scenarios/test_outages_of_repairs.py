"""Outages whose repair was blocked, each reproduced here with the guard off, then held with it on.

What there was to go back to was bad as well, or the way back led through what was broken. Those that a value
caused stand in `test_outages.py`.
"""

import msgspec
from tests.context_parts import a_key, key_name

from hub_contexts_parts import gate, tenant
from hub_parts import PERSON
from outage_parts import PATIENCE_SECONDS, REGIONS, SIGNER, SOAK_FIRST, a_globe, api_key, door_of, serving
from transom.catalog.contexts import CONTEXTS as SHIPPED
from transom.hub.contexts.restore import Request, restore
from transom.model.contexts import ContextKind, ContextKinds
from transom.model.errors import InvalidError, Problem
from transom.region.contexts.door import Door
from transom.region.gateway.decider import KeyDecider
from transom.region.gateway.grants import Grant
from transom.runtime.signing import Trust, new_signer
from transom.tables.memory import MemoryTable
from transom.tables.seals import Seals

ALL_200, ALL_401, ALL_503 = (dict.fromkeys(REGIONS, status) for status in (200, 401, 503))

# --- the last known good was bad -----------------------------------------------------------------------

KEYS = [a_key() for _ in range(6)]
SERVED = [api_key(f"k{number}", key) for number, key in enumerate(KEYS)]
LATER_SECONDS = 300.0
GOOD, BAD = 10.0, 16.0


class FailsLater(KeyDecider):
    """A latent fault: five minutes after it met a certain value, it fails every request of it."""

    def __init__(self, *parts, **more) -> None:
        super().__init__(*parts, **more)
        self.met: dict[bytes, float] = {}

    def decide_now(self, key, app, method):
        decision = super().decide_now(key, app, method)
        if isinstance(decision, Grant) and _tenant_limit(decision) == BAD:
            now = self._clock.monotonic()
            if now - self.met.setdefault(key, now) >= LATER_SECONDS:
                raise RuntimeError("the clean-up of what it set up for this value")
        return decision


def _tenant_limit(grant: Grant) -> float:
    rate = grant.rights.tenant_rate
    return 1 / rate[0].token_seconds if rate else 0.0


async def served(hub, seconds: float) -> None:
    """Serve for so long, every gateway all keys."""
    for _ in range(int(seconds / 10)):
        for key in KEYS:
            await hub.statuses(key)
        await hub.pass_time(10)


async def test_azure_front_door_2025_10_the_last_known_good_was_poisoned(tmp_path):
    """A configuration passed every check and was promoted to "last known good"; what it had begun failed
    only minutes later, everywhere, and what there was to go back to was the same. Here a tenant's new limit
    is a good value by every rule, and a gateway fails its requests five minutes after it met it. The guards:
    a change of many contexts is approved for the other regions only after it served well for a while in one,
    and going back is the earlier resources written again, at new versions, which needs no region's memory.
    """
    for soak_seconds in (0.0, 600.0):
        async with a_globe(tmp_path / f"{soak_seconds}") as globe:
            gateways = [globe.gateway(name, decider_class=FailsLater) for name in REGIONS]
            async with (
                serving(*gateways),
                globe.hub(gateways, bulk_rows=3, soak_seconds=soak_seconds) as hub,
            ):
                await hub.verified()
                await hub.declare(tenant(requestsPerSecond=GOOD), *SERVED)
                await hub.arrived()
                well = await hub.declare(tenant(requestsPerSecond=BAD))
                await (_kept_good(hub, well) if soak_seconds else _poisoned(hub))


async def _poisoned(hub) -> None:
    await hub.arrived(SOAK_FIRST)  # it passes every check there is, and is approved for all
    await hub.look()
    await hub.arrived()
    assert hub.contexts.gates.soak is None
    assert await hub.statuses(KEYS[0]) == ALL_200
    await served(hub, LATER_SECONDS + 20)
    assert [await hub.statuses(key) for key in KEYS] == [ALL_503] * len(KEYS)
    # What a region could go back to by itself, its own log, holds nothing else.
    for each in hub.gateways.values():
        await each.log.clean(hub.clock)
        await each.restart(inner=MemoryTable())
    await hub.arrived()
    await served(hub, LATER_SECONDS + 20)
    assert [await hub.statuses(key) for key in KEYS] == [ALL_503] * len(KEYS)


async def _kept_good(hub, well: int) -> None:
    approved = hub.contexts.gates.approved
    await hub.arrived(SOAK_FIRST)
    for _ in range(20):
        await served(hub, 100)
        for name in REGIONS[1:]:
            assert [await hub.gateways[name].status(key) for key in KEYS] == [200] * len(KEYS)
    assert await hub.gateways[SOAK_FIRST].status(KEYS[0]) == 503
    assert hub.contexts.gates.approved == approved
    assert "failed requests" in hub.contexts.gates.soak.trouble
    # A revocation does not wait for any of that.
    await hub.declare(api_key("k0", KEYS[0], revoked=True))
    await hub.arrived()
    assert await hub.statuses(KEYS[0]) == ALL_401
    # Back to what was declared before, at new versions; what was revoked stays so.
    why = "it failed after five minutes"
    done = await restore(hub.store, SHIPPED, Request("Tenant", well, why=why), PERSON)
    assert [item["change"] for item in done["items"]] == ["change"]
    done = await restore(hub.store, SHIPPED, Request("ApiKey", well, why=why), PERSON)
    assert [left["why"] for left in done["skipped"]] == ["it stays revoked"]
    await hub.build()
    await hub.arrived(SOAK_FIRST)
    await served(hub, 1300)
    await hub.arrived()
    assert hub.contexts.gates.soak is None
    assert hub.contexts.gates.approved > approved
    assert await hub.statuses(KEYS[0]) == ALL_401
    assert [await hub.statuses(key) for key in KEYS[1:]] == [ALL_200] * (len(KEYS) - 1)


# --- a certificate ran out -----------------------------------------------------------------------------

HOT, COLD, LATE, REVOKED, UNKNOWN = (a_key() for _ in range(5))
DECLARED = [
    api_key("hot", HOT), api_key("cold", COLD), api_key("revoked", REVOKED, revoked=True),
]  # fmt: skip
YEAR_SECONDS = 365 * 86_400.0
NEXT = new_signer()


class SignerValue(msgspec.Struct, frozen=True):
    key: str


class Certificates(Trust):
    """Trust in one signer until a day, and in those that arrive as contexts, like all that a region knows."""

    def __init__(self, clock) -> None:
        super().__init__([SIGNER.public_text])
        self._clock, self._until = clock, clock.wall() + YEAR_SECONDS

    def verify(self, key_id, signature, data) -> None:
        if key_id == SIGNER.key_id and self._clock.wall() > self._until:
            raise InvalidError("signature", [Problem("", "is by a certificate that has run out")])
        super().verify(key_id, signature, data)

    def take(self, records) -> None:
        for record in records:
            if record.key.startswith("signer/"):
                learnt = msgspec.json.decode(record.value, type=SignerValue)
                super().__init__([SIGNER.public_text, learnt.key])


class SignerContext(ContextKind[SignerValue]):
    """Whom regions are to trust next."""

    name = "signer"
    value = SignerValue
    subject = "Gate"

    def build(self, subject, tenant):
        return SignerValue(subject.spec["value"])


async def test_fly_2024_10_a_certificate_ran_out_and_blocked_its_own_repair(tmp_path):
    """A certificate at the root ran out. What was signed with it was refused everywhere, and the successor
    was to be rolled out by the very way that refused it. Here regions trust a signer until a day, and learn
    of the next one as of everything else. The guards: signing keys do not run out; what a region cannot
    check it refuses and serves on with what it has, also after restarts, and never says that it knows more;
    and whom it trusts is its own configuration, so that the repair needs nothing that is signed.
    """
    async with a_globe(tmp_path) as globe:
        await _blocked(globe)
    folder = tmp_path / "guarded"
    async with a_globe(folder) as globe:
        gateways = [globe.gateway(name, disk=folder / f"{name}.db") for name in REGIONS]
        async with serving(*gateways):
            async with globe.hub(gateways) as hub:
                await hub.verified()
                await hub.declare(*DECLARED)
                await hub.arrived()
                globe.clock.advance(30 * YEAR_SECONDS)  # a key does not run out, however old
                await hub.declare(api_key("late", LATE))
                await hub.arrived()
                assert await hub.statuses(LATE) == await hub.statuses(HOT) == ALL_200
            async with globe.hub(gateways, signer=NEXT) as hub:
                await _repaired(hub)
                await _knows_nothing_of_the_old_key(gateways[0], folder / "new.db")
            async with globe.hub(gateways, signer=NEXT, sweep_seconds=0.05):
                new = gateways[0]
                while await new.status(COLD) != 200:  # until a sweep has sent it anew
                    await new.table.changed.above(new.table.changed.value, PATIENCE_SECONDS)
                assert await new.status(REVOKED) == await new.status(HOT) == 401


async def _blocked(globe) -> None:
    learning = ContextKinds((*SHIPPED, SignerContext()))
    trusts = {name: Certificates(globe.clock) for name in REGIONS}
    unguarded = [
        globe.gateway(name, door=Door(Seals(name, trusts[name]), learning), consumer=trusts[name])
        for name in REGIONS
    ]
    async with serving(*unguarded):
        async with globe.hub(unguarded, learning) as hub:
            await hub.verified()
            await hub.declare(*DECLARED)
            await hub.arrived()
            globe.clock.advance(YEAR_SECONDS + 1)
            await hub.declare(api_key("hot", HOT, revoked=True))
            await hub.refused(key_name(HOT))
            assert await hub.statuses(HOT) == ALL_200, "the revocation stays outside"
            await hub.declare(gate("next", value=NEXT.public_text))
            await hub.refused("signer/acme/next")
        # Nor is the next one believed when it speaks for itself, and a restart helps nobody.
        async with globe.hub(unguarded, learning, signer=NEXT) as hub:
            await hub.declare(gate("again", value=NEXT.public_text), api_key("cold", COLD, revoked=True))
            await hub.refused("signer/acme/again")
            for each in unguarded:
                await each.restart()
            await hub.refused("signer/acme/again")
            assert await hub.statuses(HOT) == await hub.statuses(COLD) == ALL_200


async def _repaired(hub) -> None:
    """The hub's key was replaced before anybody was told whom to trust: what is held is served on."""
    at = [each.table.knows.revision for each in hub.gateways.values()]
    await hub.declare(api_key("hot", HOT, revoked=True), api_key("late", LATE, revoked=True))
    await hub.refused(key_name(HOT))
    await hub.refused(key_name(LATE))
    for _ in range(2):
        await hub.verified()
        assert await hub.statuses(HOT) == await hub.statuses(COLD) == ALL_200
        assert await hub.statuses(REVOKED) == await hub.statuses(UNKNOWN) == ALL_401
        # It does not say that it knows what it did not let in, and says why.
        assert [each.table.knows.revision for each in hub.gateways.values()] == at
        await hub.refused(key_name(HOT))
        for each in hub.gateways.values():
            assert "not trusted here" in (await each.beat()).refused[key_name(HOT)]
            await each.restart(door=door_of(each.region, each.kinds, SIGNER))
    # The repair is a line of configuration in the region. What was refused is read again, so nobody says that
    # a revocation has arrived which was turned away before.
    for each in hub.gateways.values():
        await each.restart(door=door_of(each.region, each.kinds, SIGNER, NEXT))
    await hub.arrived()
    assert await hub.statuses(HOT) == await hub.statuses(LATE) == ALL_401
    assert await hub.statuses(COLD) == ALL_200


async def _knows_nothing_of_the_old_key(new, disk) -> None:
    """The old key is trusted no more, and a gateway's disk is new: what only the old key has signed is not
    known there, over any number of restarts, which is no reason to turn anybody away.
    """
    await new.restart(door=door_of(new.region, new.kinds, NEXT), disk=disk)
    for _ in range(3):
        await new.complete()
        assert await new.status(COLD) == await new.status(REVOKED) == 503
        assert await new.status(UNKNOWN) == await new.status(HOT) == 401
        await new.restart(door=door_of(new.region, new.kinds, NEXT))
