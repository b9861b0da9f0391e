from hypothesis import given
from hypothesis import strategies as st

from hub_parts import PERSON, REGIONS, deployment, merge_patching, region, zone_status
from transom.catalog.deployment.controller import DeploymentController, spread
from transom.catalog.kinds import shipped
from transom.hub.archive import change_for
from transom.hub.changes import Change, creating, deleting, evaluate
from transom.hub.controllers import Inputs
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.version import Version

CATALOG = shipped()
NOW = "2026-01-01T00:00:00.000000Z"


class World:
    """The store's rules without a store: what the controller writes is judged as the store would."""

    def __init__(self, zones=("a",)):
        self.held = {}
        self.regions = [region(name, zones) for name in REGIONS]
        self.writes = 0
        self.reports = 0

    def write(self, change: Change):
        before = self.held.get(change.key)
        after = evaluate(CATALOG[change.key.kind], before, change, f"uid-{self.writes}", NOW)
        if after is not before:
            self.writes += 1
            if after is None:
                del self.held[change.key]
            else:
                self.held[change.key] = after.with_metadata(resource_version=str(self.writes))

    def declare(self, resource):
        self.write(Change(resource.key, creating(resource), PERSON))
        return self.held[resource.key]

    def plan(self, key):
        primary = self.held[key]
        uid = primary.metadata.uid
        children = [held for held in self.held.values() if held.owner and held.owner.uid == uid]
        return DeploymentController().plan(Inputs(primary, children, {"Region": self.regions}, NOW))

    def settle(self, key):
        for _ in range(10):
            if key not in self.held:
                return
            changes = self.plan(key)
            if not changes:
                return
            for change in changes:
                self.write(change)
        raise AssertionError("the controller does not come to rest")

    def regionals(self):
        return {held.spec["region"]: held for held in self.held.values() if held.kind == "RegionalDeployment"}

    def report(self, regional, **how):
        self.reports += 1
        status = zone_status(regional, **how)
        record = Record(f"{regional.key}@a", Version(1, self.reports, "eu/a"), to_json(status))
        self.write(change_for(record, regional.spec["region"], CATALOG))


KEY = Key("Deployment", "acme", "shop")


def test_one_declaration_becomes_one_for_each_region_and_is_ready_when_all_are():
    world = World()
    world.declare(deployment(instances=2))
    world.settle(KEY)
    assert sorted(world.regionals()) == sorted(REGIONS)
    assert world.held[KEY].condition("Ready").status == "False"
    for name in REGIONS[:2]:
        world.report(world.regionals()[name])
    world.settle(KEY)
    assert world.held[KEY].condition("Ready").status == "False"
    assert world.held[KEY].status["ready"] == 4
    world.report(world.regionals()[REGIONS[2]])
    world.settle(KEY)
    status = world.held[KEY].status
    assert world.held[KEY].condition("Ready").status == "True"
    assert (status["desired"], status["ready"], status["updated"]) == (6, 6, 6)


def test_a_status_of_an_older_generation_does_not_make_it_ready():
    world = World()
    world.declare(deployment())
    world.settle(KEY)
    stale = world.regionals()
    for regional in stale.values():
        world.report(regional)
    world.settle(KEY)
    assert world.held[KEY].condition("Ready").status == "True"
    world.write(Change(KEY, merge_patching(KEY, {"spec": {"version": "2"}}), PERSON))
    world.settle(KEY)
    for regional in stale.values():
        world.report(regional)  # late, and about version 1
    world.settle(KEY)
    assert world.held[KEY].condition("Ready").status == "False"
    for regional in world.regionals().values():
        world.report(regional)
    world.settle(KEY)
    assert world.held[KEY].condition("Ready").status == "True"


def test_what_a_region_says_of_its_trouble_is_shown_at_the_top():
    world = World()
    world.declare(deployment())
    world.settle(KEY)
    world.report(world.regionals()["eu"], ready=False)
    world.settle(KEY)
    assert "eu: it fell over" in world.held[KEY].condition("Ready").message


def test_a_region_that_is_no_longer_named_is_cleared_and_only_then_forgotten():
    world = World()
    world.declare(deployment())
    world.settle(KEY)
    world.write(Change(KEY, merge_patching(KEY, {"spec": {"regions": ["eu"]}}), PERSON))
    world.settle(KEY)
    leaving = world.regionals()["us"]
    assert leaving.deleting
    assert "us" in world.held[KEY].status["regions"]
    world.report(leaving, terminated=True)
    world.settle(KEY)
    assert "us" not in world.regionals()
    assert "us" not in world.held[KEY].status["regions"]


def test_deleting_waits_for_every_region():
    world = World()
    world.declare(deployment())
    world.settle(KEY)
    world.write(Change(KEY, deleting(KEY), PERSON))
    world.settle(KEY)
    for name in REGIONS[:2]:
        world.report(world.regionals()[name], terminated=True)
    world.settle(KEY)
    assert KEY in world.held
    world.report(world.regionals()[REGIONS[2]], terminated=True)
    world.settle(KEY)
    assert world.held == {}


def test_planning_twice_plans_nothing_more():
    world = World()
    world.declare(deployment())
    world.settle(KEY)
    before = world.writes
    world.settle(KEY)
    assert world.writes == before
    assert world.plan(KEY) == []


def test_a_region_without_the_named_zones_is_said():
    world = World(zones=("a", "b"))
    world.declare(deployment(zones=["c"]))
    world.settle(KEY)
    assert world.held[KEY].status["regions"]["eu"]["state"] in {"NoZone", "Progressing"}
    assert world.regionals()["eu"].spec["zones"] == {}
    assert world.held[KEY].condition("Ready").status == "False"


@given(st.integers(0, 100), st.integers(1, 9))
def test_instances_are_spread_evenly_and_completely(instances, zones):
    counts = spread(instances, [f"z{number}" for number in range(zones)]).values()
    assert sum(counts) == instances
    assert max(counts) - min(counts) <= 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["version", "regions", "report", "refuse", "delete"]), st.integers(0, 2)),
        max_size=25,
    )
)
def test_it_always_comes_to_rest_and_owns_exactly_what_is_declared(steps):
    world = World()
    world.declare(deployment())
    for what, number in steps:
        world.settle(KEY)
        if KEY not in world.held:
            world.declare(deployment())
            world.settle(KEY)
        if what == "version":
            patch = {"spec": {"version": str(number)}}
            world.write(Change(KEY, merge_patching(KEY, patch), PERSON))
        elif what == "regions":
            world.write(
                Change(KEY, merge_patching(KEY, {"spec": {"regions": list(REGIONS[: number + 1])}}), PERSON)
            )
        elif what == "delete":
            world.write(Change(KEY, deleting(KEY), PERSON))
        else:
            regional = world.regionals().get(REGIONS[number])
            if regional is not None:
                world.report(regional, ready=what == "report", terminated=regional.deleting)
    world.settle(KEY)
    if KEY in world.held and not world.held[KEY].deleting:
        wanted = set(world.held[KEY].spec["regions"])
        alive = {name for name, regional in world.regionals().items() if not regional.deleting}
        assert alive <= wanted
        assert wanted - alive <= {name for name, regional in world.regionals().items() if regional.deleting}


def test_what_is_being_deleted_does_not_miss_its_regions():
    world = World()
    world.declare(deployment())
    world.settle(KEY)
    world.write(Change(KEY, deleting(KEY), PERSON))
    world.settle(KEY)
    world.report(world.regionals()["eu"], terminated=True)
    world.settle(KEY)
    assert {part["state"] for part in world.held[KEY].status["regions"].values()} == {"Removing"}
