"""Storage that was lost or restored, at the hub or in a region: nothing is taken away, and all comes back."""

import asyncio
import contextlib
import sqlite3

from benchmarks.plant import DEPLOYMENT, deployment

from scenario_engines import each_engine, real_in_soak

SETTINGS = 'log_level = "warning"'
WEB = "RegionalDeployment/acme/web.eu"


def plant_in(engine, folder):
    return engine.plant(folder, ["eu"], {"a": "null"}, SETTINGS)


async def until_ready(hub, name):
    async with asyncio.timeout(60):
        async for event in hub.watch(DEPLOYMENT, "acme"):
            condition = event.object.condition("Ready")
            if event.object.metadata.name == name and condition and condition.status == "True":
                return


def held_in(plant):
    """The live rows of the region's table, from its file."""
    with contextlib.closing(sqlite3.connect(plant.regions["eu"].folder / "data" / "desired.db")) as db:
        return {key for (key,) in db.execute("SELECT key FROM rows WHERE NOT deleted AND key NOT GLOB '~*'")}


async def restarted(part):
    part.start()
    await part.ready()


async def disk_replaced(engine, part):
    """Kill a region, take everything that it kept, and start it again."""
    part.kill()
    await engine.lose_region(part)
    await restarted(part)


@real_in_soak
async def test_a_hub_that_lost_its_store_takes_nothing_from_the_regions(engine, tmp_path):
    plant = plant_in(engine, tmp_path)
    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"]), "acme")
        await until_ready(hub, "web")
        plant.hub.kill()
        await engine.lose_store(plant)
        await restarted(plant.hub)
        await plant.declare(hub)
        async with asyncio.timeout(60):
            while not any(WEB in road["problems"].get("sweep", "") for road in await hub.regions()):
                await asyncio.sleep(0.05)
        assert held_in(plant) == {WEB}
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"]), "acme")
        await until_ready(hub, "web")
        assert held_in(plant) == {WEB}


@real_in_soak
async def test_a_hub_with_an_older_copy_of_its_store_is_heard_by_the_regions(engine, tmp_path):
    plant = plant_in(engine, tmp_path)
    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"]), "acme")
        await until_ready(hub, "web")
        plant.hub.kill()
        await engine.copy_store(plant)
        await restarted(plant.hub)
        for number in range(5):
            await hub.apply(DEPLOYMENT, deployment("lost", ["eu"], version=str(number)), "acme")
        await until_ready(hub, "lost")
        plant.hub.kill()
        await engine.put_store_back(plant)
        await restarted(plant.hub)
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"], version="2"), "acme")
        await hub.apply(DEPLOYMENT, deployment("new", ["eu"]), "acme")
        await until_ready(hub, "new")
        await until_ready(hub, "web")
        assert (await hub.get(DEPLOYMENT, "web", "acme")).spec["version"] == "2"
        assert "RegionalDeployment/acme/lost.eu" in held_in(plant)  # nobody asked for it to go


@real_in_soak
async def test_a_hub_whose_store_and_log_are_both_older_copies_is_noticed_by_what_regions_know(
    engine, tmp_path
):
    plant = plant_in(engine, tmp_path)
    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"]), "acme")
        await until_ready(hub, "web")
        plant.hub.kill()
        await engine.copy_store(plant)
        await engine.copy_hub_log(plant)
        await restarted(plant.hub)
        await hub.apply(DEPLOYMENT, deployment("lost", ["eu"]), "acme")
        await until_ready(hub, "lost")
        plant.hub.kill()
        await engine.put_store_back(plant)
        await engine.put_hub_log_back(plant)
        plant.hub.start()
        async with asyncio.timeout(60):
            while plant.hub.running:
                await asyncio.sleep(0.05)
        assert "an older copy of it was put back" in plant.hub.output()
        await restarted(plant.hub)
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"], version="2"), "acme")
        await hub.apply(DEPLOYMENT, deployment("new", ["eu"]), "acme")
        await until_ready(hub, "new")
        await until_ready(hub, "web")
        assert "RegionalDeployment/acme/lost.eu" in held_in(plant)  # nobody asked for it to go


@each_engine
async def test_a_region_that_lost_everything_gets_everything_again(engine, tmp_path):
    plant = plant_in(engine, tmp_path)
    part = plant.regions["eu"]
    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"]), "acme")
        await until_ready(hub, "web")
        await disk_replaced(engine, part)  # and nothing changes at the hub
        async with asyncio.timeout(60):
            while held_in(plant) != {WEB}:
                await asyncio.sleep(0.05)
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"], version="2"), "acme")
        await until_ready(hub, "web")
        async with asyncio.timeout(60):
            while (await hub.regions())[0]["problems"]:
                await asyncio.sleep(0.05)


@real_in_soak
async def test_a_region_that_lost_everything_is_told_the_next_change_as_well(engine, tmp_path):
    plant = plant_in(engine, tmp_path)
    part = plant.regions["eu"]
    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"]), "acme")
        await until_ready(hub, "web")
        await disk_replaced(engine, part)
        await hub.apply(DEPLOYMENT, deployment("other", ["eu"]), "acme")  # before anything was noticed
        await until_ready(hub, "other")
        assert held_in(plant) == {WEB, "RegionalDeployment/acme/other.eu"}
