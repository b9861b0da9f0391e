"""What a gateway decides: the tenant matrix, and that it never takes ignorance or failure for an answer."""

import asyncio
import itertools
import sqlite3
from typing import Any

import pytest
from tests.context_parts import World, a_key, a_world, canaries, key_record, route_record

from transom.model.api_keys import hash_of, is_well_formed
from transom.model.records import Record
from transom.region.gateway.decider import OPEN_MAX
from transom.region.gateway.grants import Grant
from transom.runtime.clock import ManualClock
from transom.tables.memory import MemoryTable

EXPIRED_AT = 1_600_000_000.0

# Every tenant has some apps, and keys of every sort. What is asked for is generated from this.
ROUTES = {"acme": ("shop", "till"), "globex": ("shop", "lab"), "initech": ()}
SORTS = {
    "good": {},
    "expired": {"expires_at": EXPIRED_AT},
    "revoked": {"revoked": True},
    "suspended": {"suspended": True},
    "stale": {"max_stale_seconds": 5.0},
    "reader": {"scopes": ("app:*:read",)},
    "shopper": {"scopes": ("app:shop",)},
    "deleted": None,
}
REFUSED = {"expired": 401, "revoked": 401, "suspended": 403, "deleted": 401, "stale": 503}


def expected(tenant: str, sort: str, app: str, method: str) -> int:
    if sort in REFUSED:
        return REFUSED[sort]
    if sort == "reader" and (method != "GET" or not app):
        return 403
    if sort == "shopper" and app != "shop":
        return 403
    return 200 if not app or app in ROUTES[tenant] else 404


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_the_tenant_matrix(warm) -> None:
    clock = ManualClock()
    keys = {(tenant, sort): a_key() for tenant in ROUTES for sort in SORTS}
    records: list[Record] = [route_record(tenant, app, 1) for tenant, apps in ROUTES.items() for app in apps]
    for (tenant, sort), key in keys.items():
        fields = SORTS[sort]
        records.append(key_record(key, 1, tenant=tenant, name=sort, deleted=fields is None, **(fields or {})))
    apps = sorted({app for names in ROUTES.values() for app in names})
    wrong: list[object] = []
    async with a_world(*records, clock=clock) as world:
        clock.advance(10)  # beyond what "stale" bears
        for (tenant, sort), app, method in itertools.product(
            keys, ["", *apps, "nowhere", "No Label/../"], ["GET", "POST"]
        ):
            key = keys[tenant, sort]
            if warm:
                await world.status(key, app, method)
            found = world.decider.decide_now(key, app, method) if warm else None
            found = found or await world.decider.decide(key, app, method)
            if found.status != expected(tenant, sort, app, method):
                wrong.append((tenant, sort, app, method, found.status))
            if found.status == 200:
                assert isinstance(found, Grant)
                assert (found.rights.tenant, found.key) == (tenant, sort)
            assert key.decode() not in repr(found)
    assert wrong == []


@pytest.mark.parametrize("key", [b"", b"tsm_x", b"\xff" * 40, b"tsm_" + b"a" * 36, b"tsm_" + b"a" * 5000])
async def test_garbage_is_refused_before_anything_is_looked_up(key: bytes) -> None:
    class Watched(MemoryTable):
        looked_up = 0

        async def get(self, key: str) -> Record | None:
            self.looked_up += not key.startswith("~")
            return await super().get(key)

    inner = Watched()
    async with a_world(inner=inner, complete=False) as world:
        inner.looked_up = 0
        assert not is_well_formed(key)
        decision = world.decider.decide_now(key, "shop", "GET")
        assert decision is not None, "garbage must not wait for a look-up"
        assert decision.status == 401
        assert (decision.error == "unauthorized") == (key == b"")
        assert (await world.decider.decide(key, "shop", "GET")).status == 401
    assert inner.looked_up == 0


async def test_an_unknown_key_is_401_only_once_the_table_is_complete() -> None:
    key = a_key()
    async with a_world(complete=False) as world:
        assert await world.status(key) == 503  # looked up
        assert await world.status(key) == 503  # known to be absent
        fast, bulk = canaries(5, world.clock.wall())
        await world.put(fast)
        assert await world.status(key) == 503
        (_, unverified) = canaries(5, world.clock.wall(), verified=False)
        await world.put(unverified)
        assert await world.status(key) == 503
        assert await world.status(a_key()) == 503
        await world.put(*canaries(6, world.clock.wall()))
        assert await world.status(key) == 401
        assert await world.status(a_key()) == 401
        del bulk


async def test_a_hub_that_began_anew_makes_what_is_missing_unknown_again() -> None:
    good = a_key()
    async with a_world(key_record(good, 1)) as world:
        assert await world.status(a_key()) == 401
        fast, _ = canaries(1, world.clock.wall(), epoch=2)
        await world.put(fast)
        assert await world.status(a_key()) == 503
        assert await world.status(good) == 200, "what is there is known all the same"


async def test_an_unknown_app_is_404_only_once_the_table_is_complete() -> None:
    key = a_key()
    async with a_world(key_record(key, 1), complete=False) as world:
        assert await world.status(key) == 200
        assert await world.status(key, "shop") == 503
        await world.complete()
        assert await world.status(key, "shop") == 404
        await world.put(route_record("acme", "shop", 2))
        assert await world.status(key, "shop") == 200
        await world.put(route_record("acme", "shop", 3, deleted=True))
        assert await world.status(key, "shop") == 404


async def test_becoming_complete_during_a_look_up_does_not_make_its_answer_one() -> None:
    class Held(MemoryTable):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def get(self, key: str) -> Record | None:
            held = await super().get(key)
            if key.startswith("api_key/"):
                self.asked.set()
                await self.go.wait()
            return held

    key, inner = a_key(), Held()
    async with a_world(inner=inner, complete=False) as world:
        asked = asyncio.create_task(world.decider.decide(key, "", "GET"))
        await inner.asked.wait()
        await world.complete()
        inner.go.set()
        assert (await asked).status == 503


async def test_a_key_whose_record_was_refused_is_not_said_to_be_unknown() -> None:
    key = a_key()
    async with a_world() as world:
        name = f"api_key/{hash_of(key).hex()}"
        assert await world.status(key) == 401
        world.door.refuse(name, "no signature")
        assert await world.status(key) == 503
        assert await world.status(a_key()) == 401


class Breaking(MemoryTable):
    """A table that can become unreadable."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    async def get(self, key: str) -> Record | None:
        if self.error is not None:
            raise self.error
        return await super().get(key)


@pytest.mark.parametrize("error", [sqlite3.DatabaseError("malformed"), OSError("gone"), KeyError("bug")])
async def test_an_unreadable_table_makes_cold_keys_503_and_leaves_hot_ones(error: Exception) -> None:
    hot, cold, gone, inner = a_key(), a_key(), a_key(), Breaking()
    records = (key_record(hot, 1), key_record(cold, 1), route_record("acme", "shop", 1))
    async with a_world(*records, inner=inner) as world:
        assert await world.status(hot, "shop") == 200
        inner.error = error
        assert await world.status(hot, "shop") == 200
        assert await world.status(hot, "till") == 503
        assert await world.status(cold, "shop") == 503
        assert await world.status(gone) == 503
        assert world.decider.errors == 3
        inner.error = None
        assert await world.status(cold, "shop") == 200
        assert await world.status(gone) == 401


async def test_what_clients_ask_for_does_not_fill_the_memory() -> None:
    key = a_key()
    async with a_world(key_record(key, 1, scopes=("app:shop",))) as world:
        assert await world.status(key, "shop") == 404
        rights = world.decider._keys.peek(hash_of(key)).rights
        for number in range(3000):
            assert await world.status(key, f"app-{number}", "GET") == 403
        assert await world.status(key, "x" * 10_000) == 403
        assert len(rights._answers) <= 256
        assert all(len(app) <= 63 for app, _ in rights._answers)


async def test_a_value_that_cannot_be_read_is_no_answer() -> None:
    key, inner = a_key(), MemoryTable()
    good = key_record(key, 1)
    await inner.apply([Record(good.key, good.version, b'{"name": "half"}')], {})
    async with a_world(inner=inner) as world:
        assert await world.status(key) == 503


async def test_what_no_header_may_hold_lets_nobody_in() -> None:
    known, unknown = a_key(), a_key()
    evil = "x\r\nset-cookie: a=b"
    async with a_world(key_record(known, 1), key_record(unknown, 2, name=evil)) as world:
        assert await world.status(known) == 200
        assert await world.status(unknown) == 503
        await world.put(key_record(known, 3, name=evil))
        assert await world.status(known) == 200, "the last good value stays"
        assert "header" in str(world.door.refused)


async def test_a_value_that_it_stumbles_over_keeps_no_other_from_arriving() -> None:
    bad, later = a_key(), a_key()
    async with a_world(key_record(bad, 1), key_record(later, 1)) as world:
        assert await world.status(bad) == await world.status(later) == 200
        made = world.decider._grants.of

        def stumbling(digest: bytes, record: Record):
            if record.version.counter == 2:
                raise RuntimeError("by nobody's fault")
            return made(digest, record)

        world.decider._grants.of = stumbling
        await world.put(key_record(bad, 2, name="odd"), key_record(later, 3, revoked=True))
        await world.complete(revision=3)
        assert await world.status(later) == 401
        assert await world.status(bad) == 200, "the last good one stays"
        assert set(world.door.refused) == {f"api_key/{hash_of(bad).hex()}"}


async def test_knowledge_older_than_a_tenant_allows_is_503_until_the_hub_is_heard_again() -> None:
    clock, key, other = ManualClock(), a_key(), a_key()
    strict = key_record(key, 1, max_stale_seconds=30.0)
    async with a_world(strict, key_record(other, 1), clock=clock) as world:
        assert await world.status(key) == 200
        clock.advance(29)
        assert await world.status(key) == 200
        clock.advance(2)
        assert await world.status(key) == 503
        assert await world.status(other) == 200
        await world.complete(revision=2)
        assert await world.status(key) == 200


async def test_an_expiry_is_judged_at_the_moment() -> None:
    clock, key = ManualClock(), a_key()
    async with a_world(key_record(key, 1, expires_at=clock.wall() + 60), clock=clock) as world:
        assert await world.status(key) == 200
        clock.advance(60)
        assert await world.status(key) == 401


async def test_what_was_allowed_a_moment_ago_is_so_no_longer_than_it_is_true() -> None:
    """A gateway remembers what it allowed; each of these must be seen all the same, with no time passing."""
    key, other = a_key(), a_key()
    clock = ManualClock()
    records = [key_record(key, 1), key_record(other, 2, expires_at=clock.wall() + 0.5)]
    async with a_world(*records, route_record("acme", "shop", 3), clock=clock) as world:

        async def statuses(*methods: str) -> list[int]:
            return [await world.status(key, "shop", method) for method in methods]

        for _ in range(3):
            assert await statuses("GET", "POST") == [200, 200]
            assert await world.status(other, "shop") == 200
        clock.advance(0.5)
        assert await world.status(other, "shop") == 401
        await world.put(key_record(key, 4, scopes=("app:shop:read",)))
        assert await statuses("GET", "POST", "GET") == [200, 403, 200]
        await world.put(route_record("acme", "shop", 5, deleted=True))
        assert await statuses("GET", "GET") == [404, 404]
        await world.put(route_record("acme", "shop", 6))
        assert await statuses("GET", "GET") == [200, 200]
        await world.put(key_record(key, 7, revoked=True))
        assert await statuses("GET", "GET") == [401, 401]


async def test_what_was_allowed_a_moment_ago_may_be_too_old_now() -> None:
    key, clock = a_key(), ManualClock()
    records = key_record(key, 1, max_stale_seconds=0.5), route_record("acme", "shop", 2)
    async with a_world(*records, clock=clock) as world:
        for _ in range(3):
            assert await world.status(key, "shop") == 200
        clock.advance(0.6)
        assert await world.status(key, "shop") == 503


async def test_what_was_allowed_does_not_fill_the_memory() -> None:
    key = a_key()
    async with a_world(key_record(key, 1), route_record("acme", "shop", 2)) as world:
        await world.status(key, "shop")
        for number in range(OPEN_MAX + 10):
            assert world.decider.decide_now(key, "shop", f"M{number}")
        assert 0 < len(world.decider._open) <= OPEN_MAX


async def test_keys_of_one_tenant_share_its_rate_whatever_their_rights() -> None:
    one, two = a_key(), a_key()
    rate: dict[str, Any] = {"tenant_requests_per_second": 1.0}
    async with a_world(key_record(one, 1, **rate), key_record(two, 2, scopes=("*:read",), **rate)) as world:
        waits = [(await granted(world, key)).take(0.0) > 0 for key in (one, two)]
    assert waits == [False, True]


async def granted(world: World, key: bytes) -> Grant:
    decision = await world.decider.decide(key, "", "GET")
    assert isinstance(decision, Grant)
    return decision


async def test_what_is_remembered_of_routes_is_looked_at_again() -> None:
    """Nothing tells a gateway that its table was exchanged: an app that is gone is noticed all the same."""
    key, clock, inner = a_key(), ManualClock(), MemoryTable()
    async with a_world(
        key_record(key, 1), route_record("acme", "shop", 2), clock=clock, inner=inner
    ) as world:
        for _ in range(3):
            assert await world.status(key, "shop") == 200
        await inner.apply([route_record("acme", "shop", 3, deleted=True)], {})
        for _ in range(10):
            clock.advance(100)
            await world.complete(count=int(clock.monotonic()))
            await world.status(key, "shop")
            await asyncio.sleep(0)
        assert await world.status(key, "shop") == 404


async def test_more_look_ups_than_may_wait_are_503() -> None:
    class Stuck(MemoryTable):
        async def get(self, key: str) -> Record | None:
            if key.startswith("api_key/"):
                await asyncio.Event().wait()
            return await super().get(key)

    async with a_world(inner=Stuck()) as world:
        waiting = [asyncio.create_task(world.decider.decide(a_key(), "", "GET")) for _ in range(10_000)]
        await asyncio.sleep(0)
        decision = await world.decider.decide(a_key(), "", "GET")
        assert (decision.status, decision.error) == (503, "busy")
        assert decision.retry_after_seconds > 0
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


# Once the gateway reports a position at or beyond a revocation, every later decision refuses the key.

REVOCATIONS = {
    "revoked": {"revoked": True},
    "suspended": {"suspended": True},
    "expired": {"expires_at": 1.0},
    "deleted": {"deleted": True},
}


async def refused_once_reported(world, key, fields, *, revision: int = 7) -> None:
    """Revoke `key`, and decide as soon as the position moves: in the very step in which it does."""
    seen: list[int] = []

    async def watch() -> None:
        while world.table.knows.revision < revision:
            await world.table.moved.above(world.table.moved.value)
        seen.append(await world.status(key, "shop"))

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await world.put(key_record(key, revision, **fields), *canaries(revision, world.clock.wall()))
    now = world.decider.decide_now(key, "shop", "GET")
    assert now is None or now.status in (401, 403)
    await watching
    assert seen[0] in (401, 403)


@pytest.mark.parametrize("fields", REVOCATIONS.values(), ids=REVOCATIONS)
@pytest.mark.parametrize("use", ["hot", "cold", "before it existed"])
async def test_a_key_is_refused_once_the_position_is_reported(fields, use: str) -> None:
    key = a_key()
    async with a_world(route_record("acme", "shop", 1)) as world:
        if use == "before it existed":
            assert await world.status(key, "shop") == 401
        await world.put(key_record(key, 2))
        if use != "cold":
            assert await world.status(key, "shop") == 200
        await refused_once_reported(world, key, fields)


class Slow(MemoryTable):
    """A table whose look-ups bring what was there when they began, as late as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def get(self, key: str) -> Record | None:
        held = await super().get(key)
        if not key.startswith("~"):
            self.began.set()
            await self.go.wait()
        return held


@pytest.mark.parametrize("fields", REVOCATIONS.values(), ids=REVOCATIONS)
async def test_a_look_up_under_way_does_not_outlive_the_revocation(fields) -> None:
    key, inner = a_key(), Slow()
    async with a_world(key_record(key, 1), route_record("acme", "shop", 1), inner=inner) as world:
        inner.go.clear()
        inner.began.clear()
        first = asyncio.create_task(world.decider.decide(key, "shop", "GET"))
        await inner.began.wait()  # it has read the good key, and has not brought it yet
        await world.put(key_record(key, 9, **fields), *canaries(9, world.clock.wall()))
        assert world.table.knows.revision == 9
        second = asyncio.create_task(world.decider.decide(key, "shop", "GET"))
        await asyncio.sleep(0)
        inner.go.set()
        assert (await second).status in (401, 403)
        await first
        assert await world.status(key, "shop") in (401, 403)


async def test_a_look_up_under_way_does_not_hide_a_key_that_came() -> None:
    key, inner = a_key(), Slow()
    async with a_world(inner=inner) as world:
        inner.go.clear()
        inner.began.clear()
        first = asyncio.create_task(world.decider.decide(key, "", "GET"))
        await inner.began.wait()  # it has found nothing, and has not said so yet
        await world.put(key_record(key, 9))
        inner.go.set()
        await first
        assert await world.status(key) == 200


async def test_an_old_record_that_is_read_again_brings_no_key_back() -> None:
    key = a_key()
    good, revoked = key_record(key, 1), key_record(key, 5, revoked=True)
    async with a_world(good) as world:
        assert await world.status(key) == 200
        await world.put(revoked)
        await world.put(good)  # the log is read again from its start
        assert await world.status(key) == 401


async def test_a_commit_that_was_not_heard_of_is_told_all_the_same() -> None:
    class Unheard(MemoryTable):
        fails = False

        async def apply(self, records, positions):
            changed = await super().apply(records, positions)
            if self.fails:
                self.fails = False
                raise OSError("the answer got lost")
            return changed

    key, inner = a_key(), Unheard()
    async with a_world(key_record(key, 1), inner=inner) as world:
        assert await world.status(key) == 200
        inner.fails = True
        batch = [key_record(key, 5, revoked=True), *canaries(5, world.clock.wall())]
        with pytest.raises(OSError, match="lost"):
            await world.put(*batch)
        await world.put(*batch)  # the keeper tries again
        assert world.table.knows.revision == 5
        assert await world.status(key) == 401


async def test_cancelling_an_apply_leaves_no_cache_behind_the_disk() -> None:
    class Late(MemoryTable):
        def __init__(self) -> None:
            super().__init__()
            self.go = asyncio.Event()
            self.go.set()

        async def apply(self, records, positions):
            await self.go.wait()
            return await super().apply(records, positions)

    key, inner = a_key(), Late()
    async with a_world(key_record(key, 1), inner=inner) as world:
        assert await world.status(key) == 200
        inner.go.clear()
        applying = asyncio.create_task(world.put(key_record(key, 5, revoked=True)))
        await asyncio.sleep(0)
        applying.cancel()
        await asyncio.sleep(0)
        inner.go.set()
        with pytest.raises(asyncio.CancelledError):
            await applying
        assert await world.status(key) == 401
