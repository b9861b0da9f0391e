"""lightkube: generic resources, server-side apply, waiting."""

import pytest
from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace
from lightkube.types import PatchType

Gadget = create_namespaced_resource("clients.example", "v1", "Gadget", "gadgets")
Deployment = create_namespaced_resource("transom.dev", "v1", "Deployment", "deployments")


@pytest.fixture
async def client(hub):
    made = AsyncClient(config=KubeConfig.from_file(hub.kubeconfig), field_manager="light")
    yield made
    await made.close()


def lamp(name, **spec):
    return Gadget(
        apiVersion="clients.example/v1",
        kind="Gadget",
        metadata=ObjectMeta(name=name, namespace="acme", labels={"made-for": name}),
        spec=spec,
    )


async def test_objects(client, name):
    made = await client.create(lamp(name, size=1))
    assert made.metadata.generation == 1
    patched = await client.patch(Gadget, name, {"spec": {"size": 2}}, patch_type=PatchType.MERGE)
    assert patched.spec["size"] == 2
    with pytest.raises(ApiError) as refused:
        await client.replace(made)
    assert refused.value.status.code == 409
    listed = [each.metadata.name async for each in client.list(Gadget, labels={"made-for": name})]
    assert listed == [name]
    events = client.watch(Gadget, labels={"made-for": name}, resource_version=made.metadata.resourceVersion)
    async for kind, each in events:
        assert (kind, each.spec["size"]) == ("MODIFIED", 2)
        break
    await client.delete(Gadget, name)
    with pytest.raises(ApiError) as refused:
        await client.get(Gadget, name)
    assert refused.value.status.reason == "NotFound"


async def test_applying(client, name):
    await client.apply(lamp(name, size=1, colour="red"))
    with pytest.raises(ApiError) as refused:
        await client.apply(lamp(name, colour="blue"), field_manager="other")
    assert refused.value.status.reason == "Conflict"
    taken = await client.apply(lamp(name, colour="blue"), field_manager="other", force=True)
    assert (taken.spec["colour"], taken.spec["size"]) == ("blue", 1)


async def test_deleting_many(client, name):
    await client.create(Namespace(metadata=ObjectMeta(name=name)))
    for number in range(3):
        made = lamp(f"lamp-{number}")
        made.metadata.namespace = name
        await client.create(made)
    await client.deletecollection(Gadget, namespace=name)
    assert [each async for each in client.list(Gadget, namespace=name)] == []


async def test_waiting(client, name):
    app = {"app": "shop", "version": "1", "command": ["serve"], "regions": ["eu"]}
    meta = ObjectMeta(name=name, namespace="acme")
    await client.create(Deployment(apiVersion="transom.dev/v1", kind="Deployment", metadata=meta, spec=app))
    ready = await client.wait(Deployment, name, for_conditions=["Ready"], raise_for_conditions=["Broken"])
    assert ready.metadata.name == name
    await client.delete(Deployment, name)
