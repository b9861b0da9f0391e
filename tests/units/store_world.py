"""A store with a tenant and a region in it, and the writers that tests act as."""

from pathlib import Path
from typing import Any

from store_places import store_at
from transom.catalog.deployment.kind import CONTROLLER
from transom.catalog.kinds import shipped
from transom.hub.changes import Actor, Change, Wanted, creating
from transom.hub.store import Store
from transom.model.names import Key
from transom.model.resources import Metadata, OwnerReference, Resource
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

PEOPLE = Actor("api", "lina")
OWNER = Actor(CONTROLLER, CONTROLLER)
REGION = Actor("region", "eu")

APP: dict[str, Any] = {"app": "web", "version": "1", "command": ["./web"]}


def deployment(name: str = "web", tenant: str = "acme", **spec: Any) -> Resource:
    return Resource("Deployment", Metadata(name, tenant), spec={**APP, "regions": ["eu"], **spec})


def regional(of: Resource, region: str = "eu", **spec: Any) -> Resource:
    """What the deployment controller makes of a deployment for a region."""
    owner = OwnerReference("transom.dev/v1", of.kind, of.metadata.name, of.metadata.uid, controller=True)
    meta = Metadata(f"{of.metadata.name}.{region}", of.metadata.namespace, owner_references=[owner])
    return Resource("RegionalDeployment", meta, spec={**APP, "region": region, "zones": {"a": 1}, **spec})


def tenant(name: str = "acme") -> Resource:
    return Resource("Tenant", Metadata(name))


def region(name: str = "eu") -> Resource:
    return Resource("Region", Metadata(name), spec={"log": "http://127.0.0.1:1"})


def people(resource: Resource, wanted: Wanted | None = None) -> Change:
    return Change(resource.key, wanted or creating(resource), PEOPLE, "because")


def by(actor: Actor, key: Key, wanted: Wanted) -> Change:
    return Change(key, wanted, actor)


async def open_store(path: Path, clock: ManualClock | None = None) -> Store:
    return await Store.open(store_at(path), shipped(), clock or ManualClock(), Randomness(7))


async def make(store: Store, *resources: Resource) -> list[Resource]:
    """Create resources as their kinds' owners; each must be accepted."""
    made: list[Resource] = []
    for resource in resources:
        owner = store.catalog[resource.kind].owner
        actor = {"api": PEOPLE, "region": REGION}.get(owner, OWNER)
        held = await store.write(Change(resource.key, creating(resource), actor, "because"))
        assert held is not None
        made.append(held)
    return made
