"""What a zone makes through drivers of somebody's own: the plan, the calls, and both with an agent."""

import asyncio
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.logs.records import from_entry
from transom.model.records import Record
from transom.model.regional import InRegion, Regional, regional
from transom.model.resources import Metadata, OwnerReference, Resource, to_json
from transom.model.roads import STATUS
from transom.model.version import Version
from transom.region.agent import Agent
from transom.region.desired import DesiredTable
from transom.region.drivers.null import NullDriver
from transom.region.made import CHECK_SECONDS, MadePlanner, again_after_seconds
from transom.region.making import CALLS_AT_ONCE, Workshop
from transom.region.planning import Forget, Made, Make, Place, Remove, Situation, Wanted
from transom.region.reports import Reports
from transom.region.topics import TOPICS
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.tables.memory import MemoryTable

PLACE = Place("eu", "a")
NOW = "2030-01-01T00:00:00Z"
KEY = "LampThere/acme/desk.eu"
REPORT = f"{KEY}@a"


class Lamp(Regional):
    watts: int

    def in_region(self, region):
        return LampThere(watts=self.watts)


class LampThere(InRegion):
    watts: int


KIND = regional(Lamp, LampThere, group="acme.example")[1]
PLANNER = MadePlanner(KIND)


def lamp(watts=5, zone="a", generation=1, uid="u1", **metadata):
    owner = OwnerReference("acme.example/v1", "Lamp", "desk", "u0", controller=True)
    meta = Metadata("desk.eu", "acme", uid, generation, owner_references=[owner], **metadata)
    spec = {"watts": watts, "region": "eu", "zone": zone}
    return Resource("LampThere", meta, KIND.api_version, spec)


def wanted(resource=None, version="1,1,hub", *, deleted=False):
    spec = PLANNER.parse(resource) if resource else None
    return Wanted(KEY, version, version, resource, spec, deleted=deleted)


def plan(wanted, made=None, reported=None, seconds=100.0):
    held = {REPORT: reported} if reported else {}
    return PLANNER.plan(Situation(PLACE, wanted, (), held, NOW, seconds, lambda: "x", made))


def ready(plan):
    (condition,) = plan.reports[REPORT]["conditions"]
    return condition["status"], condition["reason"]


# --- planning ------------------------------------------------------------------------------------------


def test_what_is_new_is_made_and_said_to_be():
    planned = plan(wanted(lamp()))
    assert planned.actions == [Make(KEY, "1,1,hub", LampThere(watts=5, region="eu", zone="a"))]
    assert ready(planned) == ("False", "Making")
    done = plan(wanted(lamp()), Made("1,1,hub", {"lumens": 400}, finished=100.0))
    assert (done.actions, ready(done)) == ([], ("True", "Made"))
    assert done.reports[REPORT]["lumens"] == 400
    assert done.look_again_seconds == CHECK_SECONDS


def test_a_process_that_begins_anew_takes_no_word_back():
    told = plan(wanted(lamp()), Made("1,1,hub", finished=100.0)).reports[REPORT]
    again = plan(wanted(lamp()), reported=told)
    assert (len(again.actions), again.reports) == (1, {})
    changed = plan(wanted(lamp(watts=6, generation=2), "1,2,hub"), reported=told)
    assert ready(changed) == ("False", "Making")


def test_what_was_made_is_made_again_after_a_while_and_when_it_changes():
    made = Made("1,1,hub", finished=100.0)
    assert plan(wanted(lamp()), made, seconds=100 + CHECK_SECONDS - 1).look_again_seconds == 1
    assert len(plan(wanted(lamp()), made, seconds=100 + CHECK_SECONDS).actions) == 1
    assert len(plan(wanted(lamp(watts=6), "1,2,hub"), made).actions) == 1
    busy = msgspec.structs.replace(made, busy=True)
    assert plan(wanted(lamp(watts=6), "1,2,hub"), busy).actions == []


def test_what_fails_is_said_and_tried_again_later_and_later():
    failed = Made("1,1,hub", {"lumens": 1}, "NoPower", "the fuse blew", failures=3, finished=100.0)
    planned = plan(wanted(lamp()), failed)
    assert (planned.actions, ready(planned)) == ([], ("False", "NoPower"))
    assert planned.look_again_seconds == again_after_seconds(3) == 4.0
    assert len(plan(wanted(lamp()), failed, seconds=104.0).actions) == 1
    assert again_after_seconds(1000) == 60.0


def test_what_is_deleted_is_removed_and_only_then_gone():
    going = wanted(lamp(deletion_timestamp=NOW, generation=2), "1,2,hub")
    made = Made("1,1,hub", finished=100.0)
    planned = plan(going, made)
    assert (planned.actions, ready(planned)) == ([Remove(KEY)], ("False", "Removing"))
    assert planned.reports[REPORT]["terminated"] is False
    assert planned.reports[REPORT]["desired"] == 1
    failed = Made("1,1,hub", {}, "Locked", "in use", failures=1, finished=100.0, removing=True)
    assert (plan(going, failed).actions, ready(plan(going, failed))) == ([], ("False", "Locked"))
    assert plan(going, failed, seconds=101.0).actions == [Remove(KEY)]
    gone = Made("1,1,hub", finished=100.0, removing=True, gone=True)
    assert plan(going, gone).reports[REPORT]["terminated"] is True
    ended = plan(wanted(deleted=True), gone, reported={"uid": "u1"})
    assert (ended.actions, ended.reports) == ([Forget(KEY)], {REPORT: None})


def test_absence_is_no_deletion():
    told = {"uid": "u1", "observedGeneration": 1}
    assert plan(None, Made("1,1,hub"), told) == plan(None)
    assert plan(None).actions == ()
    assert plan(wanted(), Made("1,1,hub"), told).actions == ()  # refused ever since


def test_a_marker_removes_what_was_told_of():
    assert plan(wanted(deleted=True)).actions == ()
    assert plan(wanted(deleted=True), reported={"uid": "u1"}).actions == [Remove(KEY)]


def test_only_the_zone_that_is_named_makes_it_and_another_removes_what_it_has():
    elsewhere = wanted(lamp(zone="b"), "1,2,hub")
    assert plan(elsewhere) == plan(None)
    assert plan(elsewhere, Made("1,1,hub", finished=100.0)).actions == [Remove(KEY)]
    gone = Made("1,1,hub", finished=100.0, removing=True, gone=True)
    assert plan(elsewhere, gone, {"uid": "u1"}).reports == {REPORT: None}


def test_what_comes_back_under_the_same_name_is_made():
    gone = Made("1,1,hub", finished=100.0, removing=True, gone=True)
    assert isinstance(plan(wanted(lamp(uid="u2"), "1,9,hub"), gone).actions[0], Make)


mades = st.none() | st.builds(
    Made,
    version=st.sampled_from(["", "1,1,hub", "1,2,hub"]),
    reason=st.sampled_from(["", "Broken"]),
    failures=st.integers(0, 3),
    finished=st.floats(0, 200),
    busy=st.booleans(),
    removing=st.booleans(),
    gone=st.booleans(),
)
wants = st.sampled_from(
    [
        None,
        wanted(),
        wanted(deleted=True),
        wanted(lamp()),
        wanted(lamp(zone="b")),
        wanted(lamp(deletion_timestamp=NOW)),
        wanted(lamp(deletion_timestamp=NOW, zone="b")),
    ]
)


@given(wants, mades, st.none() | st.just({"uid": "u1", "observedGeneration": 1}), st.floats(0, 1000))
def test_whatever_happened_nothing_is_removed_without_a_word_and_nothing_is_forgotten(want, made, told, now):
    planned = plan(want, made, told, now)
    kinds = {type(action) for action in planned.actions}
    mine = want is not None and want.resource is not None and want.resource.spec["zone"] == "a"
    if Remove in kinds:
        assert want.deleted or want.resource.deleting or not mine
    if Make in kinds:
        assert mine
        assert not want.resource.deleting
    if made is not None and made.busy:
        assert not kinds - {Forget} or made.gone
    # What is asked for and not there is on its way, or looked at again.
    if mine and not want.resource.deleting and not (made and made.busy):
        assert kinds or planned.look_again_seconds is not None


# --- calling -------------------------------------------------------------------------------------------


class Recorder:
    """A driver that writes down what it is asked for; `hold` keeps its calls from ending."""

    def __init__(self):
        self.calls = []
        self.running = self.most = 0
        self.hold = threading.Event()
        self.hold.set()
        self.error = None
        self.result = {"lumens": 400}
        self._lock = threading.Lock()

    def make(self, thing):
        self._note("make", thing)
        if self.error:
            raise self.error
        (thing.folder / "bulb").touch()
        return self.result

    def remove(self, thing):
        self._note("remove", thing)
        if self.error:
            raise self.error

    def _note(self, what, thing):
        with self._lock:
            self.calls.append((what, thing.name, thing.spec.watts if thing.spec else None))
            self.running += 1
            self.most = max(self.most, self.running)
        self.hold.wait(10)
        with self._lock:
            self.running -= 1


async def until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def make(key=KEY, version="1"):
    return Make(key, version, LampThere(watts=5))


async def test_a_thing_has_a_folder_from_its_making_to_its_removal(tmp_path):
    driver = Recorder()
    async with Workshop.open(PLACE, {"LampThere": driver}, tmp_path, SystemClock()) as workshop:
        seen = workshop.changed.value
        workshop.carry_out(make())
        await workshop.changed.above(seen, 10)
        assert workshop.changes() == {KEY}
        assert workshop.observe(KEY).result == {"lumens": 400}
        folder = tmp_path / "LampThere" / "acme" / "desk.eu"
        assert (folder / "bulb").exists()
        workshop.carry_out(Remove(KEY))
        await until(lambda: workshop.observe(KEY).gone)
        assert not folder.exists()
        assert driver.calls == [("make", "desk", 5), ("remove", "desk", None)]
        workshop.carry_out(Remove(KEY))  # also of what nobody made
        await until(lambda: len(driver.calls) == 3)
        workshop.carry_out(Forget(KEY))
        assert workshop.observe(KEY) is None


async def test_a_thing_is_worked_on_by_one_call_at_a_time_and_few_things_at_once(tmp_path):
    driver = Recorder()
    driver.hold.clear()
    async with Workshop.open(PLACE, {"LampThere": driver}, tmp_path, SystemClock()) as workshop:
        for number in range(3 * CALLS_AT_ONCE):
            for _ in range(2):
                workshop.carry_out(make(f"LampThere/acme/l{number}.eu"))
        await until(lambda: driver.running == CALLS_AT_ONCE)
        driver.hold.set()
        await until(lambda: len(driver.calls) == 3 * CALLS_AT_ONCE and not driver.running)
        assert driver.most == CALLS_AT_ONCE


@pytest.mark.parametrize(
    ("result", "reason"),
    [([1], "TypeError"), ({"x": object()}, "TypeError"), ({"x": "y" * 70_000}, "ValueError")],
)
async def test_what_a_driver_says_is_an_object_of_json(tmp_path, result, reason):
    driver = Recorder()
    driver.result = result
    async with Workshop.open(PLACE, {"LampThere": driver}, tmp_path, SystemClock()) as workshop:
        workshop.carry_out(make())
        await until(lambda: not workshop.observe(KEY).busy)
        assert workshop.observe(KEY).reason == reason


async def test_failures_are_counted_until_it_works(tmp_path):
    driver = Recorder()
    driver.error = ValueError("no fuse")
    async with Workshop.open(PLACE, {"LampThere": driver}, tmp_path, ManualClock(0.0)) as workshop:
        for count in (1, 2):
            workshop.carry_out(make())
            await until(lambda: not workshop.observe(KEY).busy)
            made = workshop.observe(KEY)
            assert (made.reason, made.message, made.failures) == ("ValueError", "no fuse", count)
        workshop.carry_out(Remove(KEY))
        await until(lambda: workshop.observe(KEY).removing)
        assert (workshop.observe(KEY).failures, workshop.observe(KEY).gone) == (1, False)
        driver.error = None
        workshop.carry_out(make())
        await until(lambda: not workshop.observe(KEY).busy)
        assert (workshop.observe(KEY).failures, workshop.observe(KEY).reason) == (0, "")


# --- with an agent -------------------------------------------------------------------------------------


async def test_an_agent_makes_what_is_asked_for_and_removes_it_when_told(tmp_path):
    clock, driver = SystemClock(), Recorder()
    log, desired = MemoryLog(clock), DesiredTable(MemoryTable())
    await log.create(TOPICS)

    async def reported(count):
        """The newest report, once there are so many."""
        async with asyncio.timeout(10):
            while (
                len(found := await log.read({TopicPartition(STATUS, 0): 0}, most=100, wait_seconds=0.1))
                < count
            ):
                await asyncio.sleep(0.005)
        record = from_entry(found[-1])
        return len(found), None if record.deleted else msgspec.json.decode(record.value)

    async def want(counter, resource):
        value = b"{}" if resource is None else to_json(resource)
        await desired.apply([Record(KEY, Version(1, counter, "hub"), value, deleted=resource is None)], {})

    async with Workshop.open(PLACE, {"LampThere": driver}, tmp_path, clock) as workshop:
        agent = Agent(
            PLACE,
            desired,
            desired.inbox(),
            NullDriver(clock),
            await Reports.open(PLACE, MemoryTable(), log, clock),
            {"LampThere": PLANNER},
            clock,
            Randomness(7),
            workshop,
        )
        running = asyncio.create_task(agent.run())
        await want(1, lamp())
        count, status = await reported(1)
        while status["conditions"][0]["status"] != "True":
            count, status = await reported(count + 1)
        assert (status["lumens"], status["zone"], status["uid"]) == (400, "a", "u1")
        await want(2, lamp(deletion_timestamp=NOW, generation=2))
        while not status["terminated"]:
            count, status = await reported(count + 1)
        assert driver.calls[-1] == ("remove", "desk", None)
        await want(3, None)
        assert (await reported(count + 1))[1] is None
        assert workshop.observe(KEY) is None
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert not (tmp_path / "LampThere" / "acme" / "desk.eu").exists()
