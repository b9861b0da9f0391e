"""kr8s: objects that one changes and waits for."""

import asyncio

import kr8s
import pytest
from kr8s.asyncio.objects import new_class

from clients_parts import gadget

# It warns of every release of Kubernetes that is newer than itself.
pytestmark = pytest.mark.filterwarnings("ignore:Kubernetes version v1.37")


@pytest.fixture
async def api(hub):
    made = await kr8s.asyncio.api(kubeconfig=str(hub.kubeconfig))
    yield made
    # It has no way to close what it keeps open.
    await made._session.aclose()


async def test_objects(api, name):
    kind = new_class("Gadget", version="clients.example/v1", namespaced=True, plural="gadgets")
    lamp = await kind(gadget(name, {"made-for": name}, size=1), api=api)
    await lamp.create()
    assert await lamp.exists()
    await lamp.patch({"spec": {"size": 2}})
    assert lamp.spec.size == 2
    await lamp.label({"room": "hall"})
    await lamp.annotate({"note": "for you"})
    found = [each async for each in kind.list(api=api, label_selector={"made-for": name, "room": "hall"})]
    assert [each.name for each in found] == [name]
    assert found[0].annotations["note"] == "for you"
    seen = []
    async for event, each in api.watch(kind, namespace="acme", field_selector=f"metadata.name={name}"):
        seen.append((event, each.spec.size))
        if len(seen) == 1:
            await lamp.patch({"spec": {"size": 3}})
        else:
            break
    assert seen == [("ADDED", 2), ("MODIFIED", 3)]
    await lamp.delete()
    await lamp.wait("delete", timeout=30)
    with pytest.raises(kr8s.NotFoundError):
        await lamp.refresh()


async def test_waiting_for_a_condition(api, name):
    kind = new_class("Deployment", version="transom.dev/v1", namespaced=True, plural="deployments")
    app = {"app": "shop", "version": "1", "command": ["serve"], "regions": ["eu"]}
    shop = await kind({"metadata": {"name": name, "namespace": "acme"}, "spec": app}, api=api)
    await shop.create()
    # It waits for conditions of what has a status by then.
    async with asyncio.timeout(60):
        while "status" not in shop.raw:
            await shop.refresh()
    await shop.wait("condition=Ready", timeout=60)
    await shop.delete()
    await shop.wait("delete", timeout=60)


async def test_what_the_api_has(api):
    assert (await api.version())["gitVersion"].startswith("v1.37.0+transom")
    assert "Gadget" in {each["kind"] for each in await api.api_resources()}
    assert "acme" in [each.name async for each in api.get("namespaces")]
