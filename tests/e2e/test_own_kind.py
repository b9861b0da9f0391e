"""The example of a kind of one's own, with real processes: declared, made in two regions, mended, deleted."""

import sqlite3
from pathlib import Path

import yaml

from transom.catalog.tenant.kind import TENANT
from transom.client.config import find, read_key, whom_to_trust
from transom.client.hub import HubClient
from transom.model.own import OwnKinds
from up_parts import Up, by_hand, eventually, kill

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-own-kind"


async def test_the_example_does_what_it_says(folder, port):
    arguments = ("--port", str(port), "--regions", "eu,us", "--kinds", str(EXAMPLE / "databases.py"))
    async with Up.started(folder, *arguments) as up:
        await up.until_said("Ctrl-C ends")
        (database, part) = OwnKinds([str(EXAMPLE / "databases.py")]).kinds
        config = find(folder=folder)
        async with HubClient(config.hub, read_key(config), whom_to_trust(config)) as hub:
            tenant, shop = yaml.safe_load_all((EXAMPLE / "shop.yaml").read_text())
            await hub.create(TENANT, tenant)
            await hub.create(database, shop, "acme")

            async def ready(count=2):
                held = await hub.find(database, "shop", "acme")
                return held if held.status.get("ready") == count and _is_ready(held) else None

            held = await eventually(ready)
            files = {name: Path(said["file"]) for name, said in held.status["regions"].items()}
            assert {name: said["writable"] for name, said in held.status["regions"].items()} == {
                "eu": True,
                "us": False,
            }
            assert all("orders" in tables_of(file) for file in files.values())

            # A table more, everywhere; what was there stays.
            with sqlite3.connect(files["eu"]) as data:
                data.execute("INSERT INTO orders VALUES (1, 'lamp')")
            shop["spec"]["tables"]["items"] = ["name TEXT"]
            await hub.apply(database, shop, "acme")
            await eventually(lambda: all("items" in tables_of(file) for file in files.values()))
            with sqlite3.connect(files["eu"]) as data:
                assert data.execute("SELECT item FROM orders").fetchall() == [("lamp",)]

            # One region less: it goes there, and there alone.
            shop["spec"]["regions"] = ["eu"]
            await hub.apply(database, shop, "acme")
            await eventually(lambda: not files["us"].parent.exists())
            await eventually(lambda: ready(1))
            assert [one.metadata.name for one in (await hub.list_all(part)).items] == ["shop.eu"]

            # While the region is away, what it made stays, and so does the resource that is being deleted.
            kill(up.pid_of("region eu"))
            line = (await up.until_said(r"region eu \(pid \d+\) has ended.*\n  (.*) &\n"))[1]
            going = await hub.delete(database, "shop", "acme")
            assert going.metadata.finalizers == ["transom.dev/database-controller"]

            async def asked_to_go():
                return (await hub.get(part, "shop.eu", "acme")).deleting

            await eventually(asked_to_go)
            assert "orders" in tables_of(files["eu"])

            async def gone():
                return await hub.find(database, "shop", "acme") is None

            async with by_hand(folder, line):
                await eventually(gone)
                assert not files["eu"].parent.exists()
                assert (await hub.list_all(part)).items == []
        assert await up.interrupted() == 0, up.said


def tables_of(file):
    """The tables in a database; none while there is no file."""
    if not file.exists():
        return set()
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as data:
        return {name for (name,) in data.execute("SELECT name FROM sqlite_master")}


def _is_ready(held):
    condition = held.condition("Ready")
    return condition is not None and condition.status == "True"
