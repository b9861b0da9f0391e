import asyncio

from hub_parts import CLOCK, hub_log, open_store, put, region, remove
from transom.hub.network import RoadNetwork
from transom.hub.relay import Relay
from transom.model.names import Key
from transom.runtime.randomness import Randomness
from transom.runtime.secret_files import ensure_secret
from transom.runtime.tasks import workers


async def roads_of(network, names):
    """Wait until there are roads to exactly these regions."""
    async with asyncio.timeout(20):
        while set(network.roads) != set(names):
            await asyncio.sleep(0.01)


async def test_roads_come_and_go_with_the_regions_declared(tmp_path):
    keys = tmp_path / "link-keys"
    for name in ("ap", "eu", "us", "new"):
        ensure_secret(keys / f"{name}.key")
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        log = await hub_log()
        network = RoadNetwork(store, log, CLOCK, Randomness(1), keys, 600.0)
        group.start("relay", Relay(store, log).run)
        group.start("roads", lambda: network.run(group))
        await roads_of(network, {"ap", "eu", "us"})
        await store.write(put(region("new")))
        await roads_of(network, {"ap", "eu", "us", "new"})
        await store.write(remove(Key("Region", "", "new")))
        await roads_of(network, {"ap", "eu", "us"})
        async with asyncio.timeout(20):
            while any("new" in name for name in group.states):
                await asyncio.sleep(0.01)
        await network.close()


async def test_a_region_without_its_key_is_shown_and_disturbs_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("transom.hub.network._WAIT_SECONDS", 0.01)
    keys = tmp_path / "link-keys"
    for name in ("ap", "eu"):
        ensure_secret(keys / f"{name}.key")
    async with open_store(tmp_path) as store, workers(CLOCK, Randomness(1)) as group:
        network = RoadNetwork(store, await hub_log(), CLOCK, Randomness(1), keys, 600.0)
        group.start("roads", lambda: network.run(group))
        await roads_of(network, {"ap", "eu"})
        async with asyncio.timeout(20):
            while len(told := {item["region"]: item for item in await network.describe()}) < 3:
                await asyncio.sleep(0.01)  # `us` comes after the others
        assert list(told) == ["ap", "eu", "us"]
        assert "us.key" in told["us"]["problems"]["link"]
        ensure_secret(keys / "us.key")
        await roads_of(network, {"ap", "eu", "us"})
        assert "link" not in {item["region"]: item for item in await network.describe()}["us"]["problems"]
        await network.close()
