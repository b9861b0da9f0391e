import asyncio
import contextlib
from dataclasses import replace

import pytest

from hub_parts import CLOCK, REGIONS, deployment, hub_log, open_store, put, region, remove
from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.deployment.kind import DEPLOYMENT, REGIONAL_DEPLOYMENT
from transom.catalog.kinds import shipped
from transom.hub.changes import Actor, Change, setting_status
from transom.hub.controllers import ControllerRunner, check_controllers
from transom.hub.relay import Relay
from transom.hub.shards import COUNT, Shards
from transom.hub.store_duties import take
from transom.hub.store_engine import put_missing
from transom.hub.store_schema import duties
from transom.model.errors import BrokenInvariantError, ConflictError, InvalidError
from transom.model.kinds import Catalog, Kind
from transom.model.names import Key
from transom.runtime.clock import ManualClock
from transom.runtime.duties import Lease
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import workers

pytestmark = pytest.mark.usefixtures("each_engine")

KEY = Key("Deployment", "acme", "shop")


async def until_regions(store, name, count):
    """Wait until so many regional deployments are there."""
    while True:
        seen = store.changed.value
        found = [
            r for r in await store.all_of("RegionalDeployment") if r.metadata.name.startswith(f"{name}.")
        ]
        if len(found) == count:
            return found
        await store.changed.above(seen)


async def test_a_change_wakes_the_controller(tmp_path):
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        log = await hub_log()
        group.start("relay", Relay(store, log).run)
        group.start("c", ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1)).run)
        await store.write(put(deployment()))
        assert len(await until_regions(store, "shop", len(REGIONS))) == len(REGIONS)


async def test_what_was_declared_while_it_was_away_is_found_at_its_start(tmp_path):
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        await store.write(put(deployment()))
        log = await hub_log()
        group.start("c", ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1)).run)
        await until_regions(store, "shop", len(REGIONS))


async def test_without_any_event_the_clock_wakes_it(tmp_path):
    clock = ManualClock()
    async with open_store(tmp_path) as store, workers(clock, Randomness(1)) as group:
        log = await hub_log()  # no relay: no events at all
        group.start("c", ControllerRunner(DeploymentController(), store, log, clock, Randomness(1)).run)
        while not clock.sleeping:
            await store.all_of("Tenant")
        await store.write(put(deployment()))
        clock.advance(1000)
        await until_regions(store, "shop", len(REGIONS))


async def test_a_refused_write_is_looked_at_again(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        runner = ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1))
        await store.write(put(deployment()))
        await runner.look_at([KEY])
        await store.write(put(deployment(version="2")))
        planned = await runner.plan([KEY])
        # Somebody else writes between reading and writing.
        regional = (await store.all_of("RegionalDeployment"))[0]
        status = setting_status(regional.key, regional.metadata.uid, {"ready": 1})
        await store.write(Change(regional.key, status, Actor("region", "x")))
        outcomes = await store.write_all(planned[KEY])
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 1
        assert await runner.look_at([KEY]) == set()
        assert {r.spec["version"] for r in await store.all_of("RegionalDeployment")} == {"2"}


async def test_it_never_plans_on_less_than_its_own_last_write(tmp_path):
    async with open_store(tmp_path) as store:
        runner = ControllerRunner(DeploymentController(), store, await hub_log(), CLOCK, Randomness(1))
        await store.write(put(deployment()))
        await runner.look_at([KEY])
        runner._seen += 1  # as if this store were a copy that lags behind
        with pytest.raises(ConflictError, match="not at revision"):
            await runner.plan([KEY])


async def test_a_controller_writes_only_what_it_owns(tmp_path):
    async with open_store(tmp_path) as store:
        await store.write(put(deployment()))
        controller = Actor("deployment-controller", "x")
        outcomes = await store.write_all(
            [
                put(deployment(version="9"), controller),
                remove(KEY, controller),
                put(region("eu", ("z",)), controller),
            ]
        )
        assert [type(outcome).__name__ for outcome in outcomes] == ["ForbiddenError"] * 3
        assert (await store.get(KEY)).spec["version"] == "1"


def kind(name, owner="api", reads=()):
    return Kind(name=name, plural=f"{name.lower()}s", spec=None, owner=owner, reads=reads)


def test_layers_follow_from_what_owners_read():
    assert shipped().layers == {
        "Tenant": 0,
        "Event": 0,
        "HubKey": 0,
        "HubRoleBinding": 0,
        "Lease": 0,
        "Quota": 0,
        "RoleBinding": 0,
        "Region": 0,
        "ApiKey": 0,
        "KafkaCluster": 0,
        "ContextFreeze": 0,
        "ContextOverride": 0,
        "Deployment": 0,
        "RegionalDeployment": 1,
        "Instance": 2,
    }


def test_cycles_and_second_owners_are_refused_at_start():
    with pytest.raises(InvalidError, match="reads itself through A -> B -> A"):
        Catalog([kind("A", "x", ("B",)), kind("B", "y", ("A",))])
    with pytest.raises(InvalidError, match="owned twice, by 'x' and by 'y'"):
        Catalog([kind("A", "x"), kind("A", "y")])
    with pytest.raises(InvalidError, match="'C', which is not a kind"):
        Catalog([kind("A", "x", ("C",))])

    class Second(DeploymentController):
        name = "impostor"

    with pytest.raises(InvalidError, match="owned twice") as refused:
        check_controllers(shipped(), [DeploymentController(), Second()])
    assert "not by 'impostor'" in str(refused.value)
    with pytest.raises(InvalidError, match="is not there"):
        check_controllers(shipped(), [])
    blind = Catalog([k if k is not REGIONAL_DEPLOYMENT else replace(k, reads=("Region",)) for k in shipped()])
    assert DEPLOYMENT.name in blind.layers
    with pytest.raises(InvalidError, match="does not read"):
        check_controllers(blind, [DeploymentController()])


async def test_a_change_that_stumbles_leaves_those_beside_it_alone(tmp_path):
    def stumble(held):
        return held.no_such_field

    async with open_store(tmp_path) as store:
        outcomes = await store.write_all([put(deployment()), Change(KEY, stumble, put(deployment()).actor)])
        assert outcomes[0] == await store.get(KEY)
        assert isinstance(outcomes[1], BrokenInvariantError)


async def test_each_key_is_looked_at_where_its_shard_is(tmp_path):
    async with open_store(tmp_path) as store:
        log = await hub_log()
        names = [f"d{number}" for number in range(20)]
        await store.write_all([put(deployment(name)) for name in names])
        keys = [Key("Deployment", "acme", name) for name in names]
        halves = [Shards(dict.fromkeys(range(at, COUNT, 2))) for at in range(2)]
        for shards in halves:
            runner = ControllerRunner(DeploymentController(), store, log, CLOCK, Randomness(1), shards)
            before = len(await store.all_of("RegionalDeployment"))
            await runner.look_at(keys)
            mine = sum(shards.here(key) for key in keys)
            assert 0 < mine < len(keys)
            assert len(await store.all_of("RegionalDeployment")) == before + mine * len(REGIONS)
        assert before + mine * len(REGIONS) == len(keys) * len(REGIONS)


async def test_a_shard_that_comes_is_looked_through(tmp_path):
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        await store.write(put(deployment()))
        shards = Shards()
        runner = ControllerRunner(
            DeploymentController(), store, await hub_log(), CLOCK, Randomness(1), shards
        )
        group.start("c", runner.run)
        async with contextlib.AsyncExitStack() as stack:
            for number in range(COUNT):
                lease = Lease(f"controllers {number}", "a", 1)
                await store.within(lambda db, lease=lease: _granted(db, lease))
                await stack.enter_async_context(shards.held(number, lease))
            await until_regions(store, "shop", len(REGIONS))


async def test_what_was_planned_for_a_shard_that_is_lost_is_not_written(tmp_path):
    clock = ManualClock()
    async with open_store(tmp_path) as store:
        lease = Lease("controllers", "a", 1)
        await store.within(lambda db: _granted(db, lease))
        shards = Shards(dict.fromkeys(range(COUNT), lease))
        runner = ControllerRunner(
            DeploymentController(), store, await hub_log(), clock, Randomness(1), shards
        )
        await store.write(put(deployment()))
        await store.within(lambda db: take(db, lease, None, "b"))
        looking = asyncio.create_task(runner.look_at([KEY]))
        while not clock.sleeping:
            await store.all_of("Tenant")
        clock.advance(10)
        assert await looking == {KEY}, "for as long as it thinks that the shard is here"
        assert not await store.all_of("RegionalDeployment")


def _granted(db, lease):
    """Have the lease be the one that holds."""
    put_missing(db, duties, [{"name": lease.duty, "holder": lease.holder, "token": lease.token}])
