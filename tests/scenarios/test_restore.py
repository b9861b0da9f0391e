"""A Deployment that was deleted everywhere comes back everywhere, as it was, and can be deleted again.

Its region saw the delete and has ended what it ran: it must start it again, and what it said of the first
life must count for nothing in the second. The hub dies right behind the restore, so that only what is stored
is left of it.
"""

import asyncio
import sys

from benchmarks.plant import DEPLOYMENT, deployment

from scenario_engines import real_in_soak
from transom.catalog.deployment.kind import REGIONAL_DEPLOYMENT
from transom.catalog.instance.kind import INSTANCE

SERVE = (
    "import os, socket as s; t = s.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "while True: t.accept()"
)


async def until(condition):
    """Wait for another process's state; returns it."""
    while True:
        found = await condition()
        if found:
            return found
        await asyncio.sleep(0.05)


async def ready(hub):
    """The Deployment, once it is ready as it is declared now."""
    found = await hub.get(DEPLOYMENT, "web", "acme")
    condition = found.condition("Ready")
    now = found.status.get("observedGeneration") == found.metadata.generation
    return found if now and condition is not None and condition.status == "True" else None


@real_in_soak
async def test_a_deployment_comes_back_and_goes_again(engine, tmp_path):
    plant = engine.plant(tmp_path, ["eu"], {"a": "process"}, 'log_level = "warning"')
    app = {"command": [sys.executable, "-c", SERVE], "env": {"PLANT": str(tmp_path)}}
    app["healthCheck"] = {"kind": "tcp", "intervalSeconds": 0.1}

    async def gone():
        return await hub.find(DEPLOYMENT, "web", "acme") is None

    async with plant.running() as hub:
        await hub.apply(DEPLOYMENT, deployment("web", ["eu"], **app), "acme")
        first = await until(lambda: ready(hub))
        part = await hub.get(REGIONAL_DEPLOYMENT, "web.eu", "acme")
        (before,) = plant.workloads()
        await hub.delete(DEPLOYMENT, "web", "acme")
        await until(gone)
        assert plant.workloads() == []

        told = await hub.restore(DEPLOYMENT, "web", "acme", "a mistake")
        assert [item["uid"] for item in told["items"]] == [first.metadata.uid, part.metadata.uid]
        plant.hub.kill()
        plant.hub.start()
        await plant.hub.ready()

        back = await until(lambda: ready(hub))
        (now,) = plant.workloads()
        assert now.pid != before.pid
        assert (back.metadata.uid, back.spec) == (first.metadata.uid, first.spec)
        assert back.metadata.generation > first.metadata.generation
        again = await hub.get(REGIONAL_DEPLOYMENT, "web.eu", "acme")
        assert again.metadata.uid == part.metadata.uid
        assert again.status["zones"]["a"]["observedGeneration"] == again.metadata.generation
        (instance,) = (await hub.list_all(INSTANCE, "acme")).items
        assert (instance.status["uid"], instance.status["health"]) == (part.metadata.uid, "Healthy")

        # What the region said of its first end is no word on the second.
        await hub.delete(DEPLOYMENT, "web", "acme")
        await until(gone)
        assert plant.workloads() == []
        events = [item["event"] for item in await hub.history(DEPLOYMENT, "web", "acme")]
        assert events.count("DELETED") == 2
        assert events.count("RESTORED") == 1
