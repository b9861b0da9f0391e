"""The controller of regional kinds: one resource a region, their status folded; pure, and over a store."""

import pytest

from hub_parts import CLOCK, PERSON, hub_log, region
from store_places import store_at
from transom.catalog.deployment.controller import DeploymentController
from transom.catalog.kinds import shipped
from transom.hub.archive import zone_reported
from transom.hub.changes import Actor, Change, applying, deleting
from transom.hub.controllers import ControllerRunner, Inputs, check_controllers
from transom.hub.regional import RegionalController
from transom.hub.shards import COUNT, Shards
from transom.hub.store import Store
from transom.model.errors import ForbiddenError, InvalidError, NotFoundError
from transom.model.names import Key
from transom.model.records import Record
from transom.model.regional import InRegion, Regional, regional
from transom.model.resources import Metadata, Resource, to_json
from transom.model.version import Version
from transom.runtime.randomness import Randomness

NOW = "2030-01-01T00:00:00Z"


class Lamp(Regional):
    watts: int

    def in_region(self, region):
        return LampThere(watts=self.watts, first=region == self.regions[0])


class LampThere(InRegion):
    watts: int
    first: bool


LAMP, THERE = regional(Lamp, LampThere, group="acme.example")
CONTROLLER = RegionalController(THERE)
KEY = Key("Lamp", "acme", "desk")


def lamp(*regions, watts=5):
    return Resource("Lamp", Metadata("desk", "acme"), spec={"watts": watts, "regions": list(regions)})


def test_what_changes_is_looked_at_by_the_name_of_the_whole():
    assert CONTROLLER.wakes(KEY) == KEY
    assert CONTROLLER.wakes(Key("LampThere", "acme", "desk.eu")) == KEY
    assert CONTROLLER.wakes(Key("Region", "", "eu")) is None


def planned(whole, children=(), regions=("eu", "us")):
    declared = [region(name, ("b", "a")) for name in regions]
    return CONTROLLER.plan(Inputs(whole, list(children), {"Region": declared}, NOW))


def test_each_region_is_asked_for_its_own_in_one_zone_which_it_keeps():
    changes = planned(lamp("eu", "us"))
    made = {change.key.name: change.wanted(None) for change in changes if change.key.kind == "LampThere"}
    assert made["desk.eu"].spec == {"watts": 5, "first": True, "region": "eu", "zone": "b"}
    assert made["desk.us"].spec == {"watts": 5, "first": False, "region": "us", "zone": "b"}
    # Zones that change their order move nothing.
    child = made["desk.eu"].with_metadata(uid="1")
    (change,) = CONTROLLER.plan(Inputs(lamp("eu"), [child], {"Region": [region("eu", ("a", "b"))]}, NOW))
    assert change.key == KEY  # its status alone
    moved = CONTROLLER.plan(Inputs(lamp("eu"), [child], {"Region": [region("eu", ("a",))]}, NOW))
    assert moved[0].wanted(child).spec["zone"] == "a"


def status_of(whole, children=(), regions=("eu", "us")):
    change = planned(whole, children, regions)[-1]
    assert change.key == KEY
    return change.wanted(whole).status


def child_of(name, *, ready=True, generation=1, observed=1, **said):
    spec = {"watts": 5, "first": name == "eu", "region": name, "zone": "b"}
    condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "" if ready else "Broken"}
    status = {"observedGeneration": observed, "conditions": [condition], "zones": {"b": {}}, **said}
    meta = Metadata(f"desk.{name}", "acme", generation=generation, uid=name)
    return Resource("LampThere", meta, THERE.api_version, spec, status)


def test_the_status_says_what_each_region_says():
    status = status_of(lamp("eu", "us"), [child_of("eu", lumens=400), child_of("us", ready=False)])
    assert (status["desired"], status["ready"]) == (2, 1)
    assert status["regions"]["eu"] == {"lumens": 400, "state": "Ready", "message": ""}
    assert status["regions"]["us"]["state"] == "Broken"
    assert (status["conditions"][0]["status"], status["conditions"][0]["reason"]) == ("False", "Broken")
    late = status_of(lamp("eu"), [child_of("eu", generation=2)])
    assert late["regions"]["eu"]["state"] == "Progressing"
    assert status_of(lamp("eu"), [child_of("eu")])["conditions"][0]["status"] == "True"
    gone = status_of(lamp("eu", "us"), [child_of("eu")], regions=("eu",))
    assert gone["regions"]["us"]["state"] == "NoSuchRegion"
    assert status_of(lamp("eu"), [child_of("eu"), child_of("us")])["regions"]["us"]["state"] == "Removing"


# --- over a store --------------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path):
    catalog = shipped([LAMP, THERE])
    check_controllers(catalog, [CONTROLLER, DeploymentController()])
    store = await Store.open(store_at(tmp_path / "store.db"), catalog, CLOCK, Randomness(7))
    await store.write_all([put(Resource("Tenant", Metadata("acme"))), put(region("eu")), put(region("us"))])
    yield store
    await store.close()


def put(resource):
    return Change(resource.key, applying(resource), PERSON)


def reported(child, *, terminated=False, counter=1):
    status = {
        "uid": child.metadata.uid,
        "observedGeneration": child.metadata.generation,
        "desired": 0 if terminated else 1,
        "terminated": terminated,
        "conditions": [{"type": "Ready", "status": "False" if terminated else "True"}],
        "lumens": 400,
    }
    name = child.spec["region"]
    record = Record(f"{child.key}@a", Version(1, counter, f"{name}/a"), to_json(status))
    return Change(child.key, zone_reported(THERE, record, "a", status, name), Actor("region", f"{name}/a"))


async def test_from_declaring_to_deleting(store):
    runner = ControllerRunner(CONTROLLER, store, await hub_log(), CLOCK, Randomness(7))
    await store.write(put(lamp("eu", "us")))
    await runner.look_at([KEY])
    children = (await store.page("LampThere")).items
    assert [child.metadata.finalizers for child in children] == [["transom.dev/region"]] * 2
    with pytest.raises(InvalidError, match="Region 'mars' does not exist"):
        await store.write(put(lamp("mars")))
    with pytest.raises(ForbiddenError, match="'api' may not"):
        await store.write(put(children[0].with_metadata(labels={"mine": "1"})))
    await store.write_all([reported(child) for child in children])
    await runner.look_at([KEY])
    held = await store.get(KEY)
    assert held.status["ready"] == 2
    assert held.status["regions"]["eu"]["lumens"] == 400
    assert held.metadata.finalizers == ["transom.dev/lamp-controller"]
    # One region less, then all of it; each holds until its region has said that nothing is left.
    await store.write(put(lamp("us")))
    await runner.look_at([KEY])
    leaving = await store.get(children[0].key)
    assert leaving.deleting
    await store.write(reported(leaving, terminated=True, counter=2))
    with pytest.raises(NotFoundError):
        await store.get(children[0].key)
    await store.write(Change(KEY, deleting(KEY), PERSON))
    await runner.look_at([KEY])
    await runner.look_at([KEY])
    assert (await store.get(KEY)).deleting
    await store.write(reported(await store.get(children[1].key), terminated=True, counter=2))
    await runner.look_at([KEY])
    with pytest.raises(NotFoundError):
        await store.get(KEY)


async def test_a_process_that_has_not_the_shard_plans_nothing(store):
    runner = ControllerRunner(CONTROLLER, store, await hub_log(), CLOCK, Randomness(7), Shards())
    await store.write(put(lamp("eu")))
    await runner.look_at([KEY])
    assert (await store.page("LampThere")).items == []
    runner = ControllerRunner(
        CONTROLLER, store, await hub_log(), CLOCK, Randomness(7), Shards(dict.fromkeys(range(COUNT)))
    )
    await runner.look_at([KEY])
    assert len((await store.page("LampThere")).items) == 1
