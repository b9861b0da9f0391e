"""Outages of caches, stores and workers, each reproduced here with the guard off, then held with it on.

Those that a value caused stand in `test_outages.py`.
"""

import asyncio

import pytest
from tests.context_parts import World, a_key, a_world, key_record

from hub_parts import deployment, open_store, put, zone_status
from outage_parts import REGIONS, Gateway, a_globe, api_key, serving
from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.archive import change_for
from transom.hub.changes import Change, applying, deleting
from transom.hub.controllers import Inputs
from transom.hub.rows import DesiredRows
from transom.hub.store import Store
from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry, to_message
from transom.model.errors import ConflictError, FencedError, UnreachableError
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import Resource, from_json, to_json
from transom.model.roads import DESIRED
from transom.model.version import Version
from transom.region.gateway.decider import KeyDecider
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock, SystemClock, timestamp
from transom.tables.memory import MemoryTable

# --- errors deleted cache keys -------------------------------------------------------------------------

KEYS = [a_key() for _ in range(100)]
CLIENTS_A_KEY = 3
CAPACITY = 150


class Database(MemoryTable):
    """Answers all that is asked in one turn, or, when that is more than it can, nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.asked: list[asyncio.Future[None]] = []

    async def get(self, key):
        if not key.startswith("~"):
            waiting = asyncio.get_running_loop().create_future()
            self.asked.append(waiting)
            await waiting
        return await super().get(key)

    def turn(self) -> int:
        """Answer; returns how many asked."""
        asked, self.asked = self.asked, []
        for waiting in asked:
            if self.down or len(asked) > CAPACITY:
                waiting.set_exception(OSError("too many queries"))
            else:
                waiting.set_result(None)
        return len(asked)


class HastyCache:
    """A cache without the guards, in the place of the decider's: whoever misses asks the database, and
    whoever is told of an error takes what is held for invalid and deletes it.
    """

    def __init__(self, load) -> None:
        self._load = load
        self.held = {}
        self.peek = self.held.get

    def known_absent(self, _key) -> bool:
        return False

    def concerns(self, _key) -> bool:
        return False

    async def get(self, key):
        try:
            self.held[key] = (await self._load(key)).value
        except OSError:
            self.held.pop(key, None)
            raise
        return self.held[key]

    async def aclose(self) -> None:
        self.held.clear()


class Hasty(KeyDecider):
    def __init__(self, *parts, **more) -> None:
        super().__init__(*parts, **more)
        self._keys = HastyCache(self._load_key)
        self._peek = self._keys.peek


class Crowd:
    """So many clients a key, each of which asks again as soon as it was answered."""

    def __init__(self, world: World, database: Database) -> None:
        self.world, self.database = world, database
        self.waiting: dict[asyncio.Task[int], int] = {}

    async def turn(self) -> tuple[int, dict[int, int]]:
        """One turn of everybody; returns the queries that came of it, and how many got which answer."""
        busy = set(self.waiting.values())
        for client in set(range(CLIENTS_A_KEY * len(KEYS))) - busy:
            asking = self.world.status(KEYS[client % len(KEYS)])
            self.waiting[asyncio.create_task(asking)] = client
        await settled()
        queries = self.database.turn()
        await settled()
        answers: dict[int, int] = {}
        for task in [task for task in self.waiting if task.done()]:
            del self.waiting[task]
            answers[task.result()] = answers.get(task.result(), 0) + 1
        return queries, answers

    async def leave(self) -> None:
        for task in self.waiting:
            task.cancel()
        await asyncio.gather(*self.waiting, return_exceptions=True)


async def settled() -> None:
    """Until everybody who can go on has."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_facebook_2010_09_errors_deleted_cache_keys():
    """Clients took a wrong value for damage and deleted it from the cache to read it anew; the databases
    could not bear all of them at once, and each error was taken for damage, too. The wrong value was mended,
    and the storm went on by itself until the site was switched off. Here 300 clients lose 100 cached keys
    before a store that answers 150 queries at once. The guards are the loading cache's: an error removes
    nothing, one load a key for all who wait, and never more loads at once than it is allowed.
    """
    everybody = CLIENTS_A_KEY * len(KEYS)
    rows = [key_record(key, 1) for key in KEYS]
    database = Database()
    async with a_world(*rows, inner=database, decider_class=Hasty) as world:
        asking = [asyncio.create_task(world.status(key)) for key in KEYS]
        await settled()
        assert database.turn() == len(KEYS)
        await asyncio.gather(*asking)
        crowd = Crowd(world, database)
        assert await crowd.turn() == (0, {200: everybody})
        world.decider._keys.held.clear()  # a wrong value, taken for damage by all, and mended since
        for _ in range(50):  # nothing is wrong with the database, nor with any value
            assert await crowd.turn() == (everybody, {503: everybody})
        await crowd.leave()

    clock = ManualClock()
    database = Database()
    async with a_world(*rows, inner=database, clock=clock) as world:
        crowd = Crowd(world, database)
        turns = [await crowd.turn() for _ in range(4)]
        assert sum(queries for queries, _ in turns) == len(KEYS)
        assert max(queries for queries, _ in turns) <= CAPACITY
        assert turns[-1] == (0, {200: everybody})
        assert not any(503 in answers for _, answers in turns)
        # The database is gone for an hour, after everything held was to be looked at again.
        clock.advance(600)
        database.down = True
        for _ in range(60):
            queries, answers = await crowd.turn()
            assert queries <= CAPACITY / 10
            assert answers == {200: everybody}
            clock.advance(60)
        database.down = False
        for _ in range(60):
            _, answers = await crowd.turn()
            assert answers == {200: everybody}
            clock.advance(2)
        assert await crowd.turn() == (0, {200: everybody}), "all is confirmed, and nobody asks any more"
        await crowd.leave()


# --- cold caches without a local copy ------------------------------------------------------------------

WARM, COLD, REVOKED, UNKNOWN = a_key(), a_key(), a_key(), a_key()
DECLARED = [
    api_key("warm", WARM), api_key("cold", COLD), api_key("revoked", REVOKED, revoked=True),
]  # fmt: skip
ANSWERS = {WARM: 200, COLD: 200, REVOKED: 401, UNKNOWN: 401}


class CentralStore(MemoryTable):
    """What the one store behind all regions' caches holds for one of them; marks are the region's own."""

    def __init__(self, down: asyncio.Event) -> None:
        super().__init__()
        self.down = down

    async def get(self, key):
        if self.down.is_set() and not key.startswith("~"):
            raise UnreachableError("the central store does not answer")
        return await super().get(key)


class GoneLog(MemoryLog):
    """A log that is not there any more."""

    async def topics(self, names=None):
        raise UnreachableError("there is no log")

    async def bounds(self, topic):
        raise UnreachableError("there is no log")


async def answers_of(gateway: Gateway) -> dict[bytes, int]:
    return {key: await gateway.status(key) for key in ANSWERS}


async def test_workers_kv_2025_06_cold_caches_without_a_local_copy(tmp_path):
    """The central store behind a key-value service failed. What stood in the caches near the users was
    served on, for a while; everything else, and after a restart everything, failed in all regions, because
    no region had a copy of its own. Here gateways read one store through their caches, and it is taken away.
    The guard is that each gateway keeps all of its region's contexts on its own disk: hub and log gone and
    processes restarted, each request is answered as before.
    """
    async with a_globe(tmp_path) as globe:
        down = asyncio.Event()
        gateways = [globe.gateway(name, inner=CentralStore(down)) for name in REGIONS]
        async with serving(*gateways), globe.hub(gateways) as hub:
            await hub.verified()
            await hub.declare(*DECLARED)
            await hub.arrived()
            assert await hub.statuses(WARM) == dict.fromkeys(REGIONS, 200)
            down.set()
            for each in gateways:
                assert await answers_of(each) == {WARM: 200, COLD: 503, REVOKED: 503, UNKNOWN: 503}
                await each.restart()
                assert await answers_of(each) == dict.fromkeys(ANSWERS, 503)

    folder = tmp_path / "guarded"
    async with a_globe(folder) as globe:
        gateways = [globe.gateway(name, disk=folder / f"{name}.db") for name in REGIONS]
        async with serving(*gateways):
            async with globe.hub(gateways) as hub:
                await hub.verified()
                await hub.declare(*DECLARED)
                await hub.arrived()
                assert await hub.statuses(WARM) == dict.fromkeys(REGIONS, 200)
            # The hub has gone, and now the logs go, too.
            for each in gateways:
                for _ in range(2):
                    assert await answers_of(each) == ANSWERS
                    await each.restart(log=GoneLog(SystemClock()))
            # They are made anew, empty; the hub fills them and is heard again.
            for name in REGIONS:
                globe.logs[name] = MemoryLog(SystemClock())
                await globe.logs[name].create(TOPICS)
            for each in gateways:
                await each.restart(log=globe.logs[each.region])
            async with globe.hub(gateways) as hub:
                await hub.declare(api_key("cold", COLD, revoked=True))
                await hub.arrived()
                for each in gateways:
                    # Until it was compared again, what it has not is not said to be nowhere.
                    answers = await answers_of(each)
                    assert answers.pop(UNKNOWN) in (401, 503)
                    assert answers == {WARM: 200, COLD: 401, REVOKED: 401}


# --- a delayed worker ----------------------------------------------------------------------------------

SHOP = Key("Deployment", "acme", "shop")
EU, US = Key("RegionalDeployment", "acme", "shop.eu"), Key("RegionalDeployment", "acme", "shop.us")


async def declared(store: Store, version: str, *regions: str) -> None:
    for outcome in await store.write_all([put(deployment(version=version, regions=list(regions)))]):
        assert not isinstance(outcome, Exception), outcome


async def plan(store: Store) -> list[tuple[Change, Resource | None]]:
    """What the controller plans for its own kind now, each with what it saw of it."""
    found = await store.families([SHOP], ["Region"])
    seen = {child.key: child for child in found.children}
    inputs = Inputs(found.primaries[SHOP], found.children, found.others, timestamp(SystemClock()))
    changes = DeploymentController().plan(inputs)
    return [(change, seen.get(change.key)) for change in changes if change.key.kind == EU.kind]


async def enact(store: Store, planned: list[tuple[Change, Resource | None]]) -> list[object]:
    return list(await store.write_all([change for change, _ in planned]))


def blind(change: Change, seen: Resource | None) -> Change:
    """The same change without the guard: written whatever is there by now."""
    wanted = change.wanted(seen)
    if wanted is None:
        return Change(change.key, deleting(change.key), change.actor)
    bare = wanted.with_metadata(resource_version="", uid="")
    return Change(change.key, applying(bare), change.actor)


async def cleared(store: Store, key: Key) -> None:
    """The region says that nothing of it runs any more, and it is gone."""
    status = to_json(zone_status(await store.get(key), terminated=True))
    region = key.name.partition(".")[2]
    record = Record(f"{key}@a", Version(1, store.changed.value, f"{region}/a"), status)
    await store.write(change_for(record, region, shipped()))


async def taken_in(table: MemoryTable, log: MemoryLog) -> None:
    """Apply all that the log holds of what is desired."""
    for entry in await log.read({TopicPartition(DESIRED, 0): 0}):
        await table.apply([from_entry(entry)], {})


async def known(store: Store, key: Key, table: MemoryTable) -> Resource:
    """What a region knows of it, after what is declared there has come by its log."""
    log = MemoryLog(SystemClock())
    await log.create(TOPICS)
    source = DesiredRows(store, key.name.partition(".")[2])
    records = (await source.changes(0, 1000)).records
    await log.append([to_message(DESIRED, record) for record in records])
    await taken_in(table, log)
    record = await table.get(str(key))
    assert record is not None
    assert not record.deleted
    return from_json(record.value)


@pytest.mark.parametrize("guarded", [False, True])
async def test_dynamodb_dns_2025_10_a_delayed_worker_applied_an_old_plan_and_a_cleaner_removed_the_live_one(
    tmp_path, guarded
):
    """One worker was delayed so long that it applied an old plan over a newer one; another, cleaning up,
    then deleted what it held to be old and was in use, and nothing could be resolved any more. Here a
    controller's plan of version 2 is carried out after that of version 3, and a clean-up of region us after
    that region was declared again. The guard is that each change names what it saw (version and uid) and the
    store refuses it when that is there no more; what would slip through meets fences and versions at the
    border.
    """
    async with open_store(tmp_path) as store:
        await declared(store, "1", "eu", "us")
        await enact(store, await plan(store))
        await declared(store, "2", "eu", "us")
        delayed = await plan(store)
        await declared(store, "3", "eu")
        cleaner = [each for each in await plan(store) if each[0].key == US]
        await enact(store, await plan(store))
        await cleared(store, US)
        await declared(store, "3", "eu", "us")
        await enact(store, await plan(store))
        eu, us = MemoryTable(), MemoryTable()
        assert (await known(store, EU, eu)).spec["version"] == "3"
        assert not (await known(store, US, us)).deleting

        late = [*delayed, *cleaner]
        if not guarded:
            await store.write_all([blind(*each) for each in late])
            assert (await known(store, EU, eu)).spec["version"] == "2", "the old plan is in force"
            assert (await known(store, US, us)).deleting, "and the live one is being removed"
            return
        outcomes = await enact(store, late)
        assert [isinstance(outcome, ConflictError) for outcome in outcomes] == [True] * 3
        assert await plan(store) == []
        assert (await known(store, EU, eu)).spec["version"] == "3"
        assert not (await known(store, US, us)).deleting


@pytest.mark.parametrize("guarded", [False, True])
async def test_dynamodb_dns_2025_10_at_the_border(guarded):
    """The same between a publisher that was delayed and the one that took over from it: what the old one had
    read is appended after what is newer. Guards: the log refuses whose fence was taken, and the table
    whatever is older; without them the last to come is in force.
    """
    log = MemoryLog(SystemClock())
    await log.create(TOPICS)
    old, new = (
        Record(str(EU), Version(1, revision, "hub"), f"plan {revision}".encode()) for revision in (2, 3)
    )
    delayed = await log.take_fence("publish/eu/desired")
    live = await log.take_fence("publish/eu/desired")
    await log.append([to_message(DESIRED, new)], fence=live)
    with pytest.raises(FencedError):
        await log.append([to_message(DESIRED, old)], fence=delayed)
    await log.append([to_message(DESIRED, old)])  # somebody who has no fence
    table = MemoryTable() if guarded else LastComeTable()
    await taken_in(table, log)
    assert (await table.get(str(EU))).value == (b"plan 3" if guarded else b"plan 2")


class LastComeTable(MemoryTable):
    """A table without versions: what comes last is in force."""

    async def apply(self, records, positions):
        self._rows.update({record.key: record for record in records})
        return records
