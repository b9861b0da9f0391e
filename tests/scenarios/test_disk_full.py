"""A full disk under the hub or a region: writes are refused, say so, and go on when there is room again.

Embedded only: `real/test_disks_of_engines` fills those of Kafka and PostgreSQL.
"""

import asyncio
import contextlib
import shutil

from benchmarks.plant import DEPLOYMENT, Plant, deployment

from disk_parts import disk_of
from transom.client.hub import ApiError


def fill(folder):
    """Take all the room there is."""
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * 4096)
    assert shutil.disk_usage(folder).free == 0


async def until_ready(hub, name):
    async for event in hub.watch(DEPLOYMENT, "acme"):
        condition = event.object.condition("Ready")
        if event.object.metadata.name == name and condition and condition.status == "True":
            return


async def refused_for_room(hub):
    """Write until the disk is too full: what was allocated before is used up first. The name and why."""
    number = 0
    while True:
        number += 1
        name = f"big{number}"
        env = {f"V{n}": "x" * 2000 for n in range(100)}
        try:
            await hub.create(DEPLOYMENT, deployment(name, ["eu"], env=env, instances=0), "acme")
        except ApiError as refused:
            return name, refused


async def test_a_hub_without_room_refuses_serves_and_goes_on(tmp_path):
    plant = Plant(tmp_path, ["eu"], {"a": "null"}, 'log_level = "warning"')
    data = plant.hub.folder / "data"
    with disk_of(24, data):
        async with plant.running() as hub:
            await hub.apply(DEPLOYMENT, deployment("before", ["eu"]), "acme")
            await until_ready(hub, "before")
            fill(data)
            name, refused = await refused_for_room(hub)
            assert refused.code == 507, refused
            assert "full" in str(refused)
            assert plant.hub.running
            assert (await hub.get(DEPLOYMENT, "before", "acme")).spec["version"] == "1"
            assert await hub.find(DEPLOYMENT, name, "acme") is None, "refused, and stored all the same"
            (data / "filler").unlink()
            await hub.apply(DEPLOYMENT, deployment("after", ["eu"]), "acme")
            await until_ready(hub, "after")


async def test_a_region_without_room_says_so_and_goes_on(tmp_path):
    plant = Plant(tmp_path, ["eu"], {"a": "null"}, 'log_level = "warning"')
    part = plant.regions["eu"]
    data = part.folder / "data"
    with disk_of(64, data):
        async with plant.running() as hub:
            await hub.apply(DEPLOYMENT, deployment("before", ["eu"]), "acme")
            await until_ready(hub, "before")
            fill(data)
            env = {f"V{n}": "x" * 2000 for n in range(100)}
            for number in range(60):  # more than what the log's files had in reserve
                await hub.create(DEPLOYMENT, deployment(f"big{number}", ["eu"], env=env), "acme")
            while not any("no room" in said for said in (await hub.regions())[0]["problems"].values()):
                await asyncio.sleep(0.05)
            assert part.running
            (data / "filler").unlink()
            await hub.apply(DEPLOYMENT, deployment("after", ["eu"]), "acme")
            await until_ready(hub, "after")
