"""The pure plan of a zone, against a simulated zone whose instances start, die and ail at random."""

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.catalog.deployment.driver import (
    UNHEALTHY_MOST_SECONDS,
    RegionalDeploymentPlanner,
    fingerprint,
    restart_after_seconds,
)
from transom.model.errors import InvalidError
from transom.model.names import Key
from transom.model.resources import JsonObject, Metadata, OwnerReference, Resource, conditions_of
from transom.region.driver import Launch, Observed, Phase
from transom.region.planning import End, Place, Plan, Situation, Start, Stop, Wanted

KEY = str(Key("RegionalDeployment", "acme", "shop.eu"))
STATUS = f"{KEY}@a"
PLANNER = RegionalDeploymentPlanner()


def regional(version: str = "1", count: int = 2, **metadata: object) -> Resource:
    owner = OwnerReference("transom.dev/v1", "Deployment", "shop", "d1", controller=True)
    return Resource(
        "RegionalDeployment",
        Metadata("shop.eu", "acme", uid="u1", generation=4, owner_references=[owner], **metadata),  # type: ignore[arg-type]
        spec={
            "app": "shop",
            "version": version,
            "command": ["run", "$(PORT)"],
            "env": {"COLOUR": "blue"},
            "region": "eu",
            "zones": {"a": count},
        },
    )


def wanting(resource: Resource, version: str = "1.7.hub", **more: object) -> Wanted:
    spec = None if resource.deleting else PLANNER.parse(resource)
    return Wanted(KEY, version, version, resource, spec, **more)  # type: ignore[arg-type]


class Zone:
    """A zone that does what plans say, and whose instances come and go as the test says."""

    def __init__(self) -> None:
        self.instances: dict[str, Observed] = {}
        self.reported: dict[str, JsonObject] = {}
        self.seconds = 1000.0
        self.names = (f"{number:05}" for number in itertools.count())
        self.before_action: Callable[[object], None] = lambda _: None

    def plan(self, wanted: Wanted | None) -> Plan:
        instances = [self.instances[name] for name in sorted(self.instances)]
        return PLANNER.plan(
            Situation(
                Place("eu", "a"),
                wanted,
                instances,
                dict(self.reported),
                f"T{self.seconds:g}",
                self.seconds,
                lambda: next(self.names),
            )
        )

    def step(self, wanted: Wanted | None) -> Plan:
        plan = self.plan(wanted)
        for report, value in plan.reports.items():
            if value is None:
                self.reported.pop(report, None)
            else:
                self.reported[report] = value
        for action in plan.actions:
            self.before_action(action)
            if isinstance(action, Start):
                self._start(action.launch)
            elif isinstance(action, Stop) and self.instances[action.name].phase == "Dead":
                del self.instances[action.name]
            elif isinstance(action, Stop):
                self.enter(action.name, "Stopping")
            else:
                self.die(action.name)
        return plan

    def _start(self, launch: Launch) -> None:
        held = self.instances.get(launch.name)
        assert held is None or held.phase == "Dead"
        fresh = held or Observed(launch, "Dead", "127.0.0.1", 4000)
        self.instances[launch.name] = msgspec.structs.replace(fresh, phase="Starting", since=self.seconds)

    def enter(self, name: str, phase: Phase) -> None:
        served = self.instances[name].served or phase == "Healthy"
        self.instances[name] = msgspec.structs.replace(
            self.instances[name], phase=phase, since=self.seconds, served=served
        )

    def die(self, name: str, output: str = "ended with exit code 3\nno such table") -> None:
        failures = self.instances[name].failures + 1
        self.enter(name, "Dead")
        self.instances[name] = msgspec.structs.replace(self.instances[name], failures=failures, output=output)

    def in_phase(self, *phases: Phase) -> list[str]:
        return [name for name in sorted(self.instances) if self.instances[name].phase in phases]

    def settle(self, wanted: Wanted | None, *, healthy: Callable[[Observed], bool] = lambda _: True) -> None:
        """Let everything that starts become healthy (or fail), and everything that stops be gone."""
        for _ in range(200):
            before = dict(self.instances)
            self.seconds += 70.0
            self.step(wanted)
            for name in self.in_phase("Stopping"):
                del self.instances[name]
            for name in self.in_phase("Starting", "Unhealthy"):
                if healthy(self.instances[name]):
                    self.enter(name, "Healthy")
                elif self.instances[name].phase == "Starting":
                    self.die(name)
            if self.instances == before:
                return
        raise AssertionError("does not settle")

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = {c.type: c for c in conditions_of(self.reported[STATUS])}[kind]
        return found.status, found.reason, found.message

    def versions(self, *phases: Phase) -> list[str]:
        return sorted(self.instances[name].launch.version for name in self.in_phase(*phases))


def test_a_declared_app_is_started_named_and_reported() -> None:
    zone = Zone()
    plan = zone.step(wanting(regional()))
    first, second = (action.launch for action in plan.actions if isinstance(action, Start))
    assert (first.name, second.name) == ("shop.a.00000", "shop.a.00001")
    assert first.command == ("run", "$(PORT)")
    assert first.env == {
        "COLOUR": "blue",
        "TRANSOM_REGION": "eu",
        "TRANSOM_ZONE": "a",
        "TRANSOM_TENANT": "acme",
        "TRANSOM_APP": "shop",
        "TRANSOM_VERSION": "1",
        "TRANSOM_INSTANCE": "shop.a.00000",
    }
    zone.settle(wanting(regional()))
    status = dict(zone.reported[STATUS])
    del status["conditions"]
    assert status == {
        "zone": "a",
        "uid": "u1",
        "observedGeneration": 4,
        "specVersion": "1.7.hub",
        "desired": 2,
        "ready": 2,
        "updated": 2,
        "terminated": False,
    }
    assert zone.condition("Ready")[:2] == ("True", "AllHealthy")
    assert zone.condition("Progressing")[:2] == ("True", "Complete")
    assert zone.reported["Instance/acme/shop.a.00000"] == {
        "region": "eu",
        "zone": "a",
        "app": "shop",
        "owner": "shop.eu",
        "uid": "u1",
        "version": "1",
        "host": "127.0.0.1",
        "port": 4000,
        "health": "Healthy",
        "startedAt": "",
    }


def test_nothing_is_done_or_reported_again_when_all_is_well() -> None:
    zone = Zone()
    zone.settle(wanting(regional()))
    reported = dict(zone.reported)
    zone.seconds += 1000
    plan = zone.step(wanting(regional()))
    assert list(plan.actions) == []
    assert zone.reported == reported


def test_absence_is_never_a_delete() -> None:
    zone = Zone()
    zone.settle(wanting(regional()))
    reported = dict(zone.reported)
    assert list(zone.step(None).actions) == []
    assert zone.reported == reported


def test_another_zone_is_none_of_its_business() -> None:
    elsewhere = regional()
    elsewhere.spec["zones"] = {"b": 3}
    zone = Zone()
    plan = zone.step(wanting(elsewhere))
    assert (list(plan.actions), dict(plan.reports)) == ([], {})


def test_a_zone_taken_from_the_spec_is_emptied_and_its_status_deleted() -> None:
    zone = Zone()
    zone.settle(wanting(regional()))
    elsewhere = regional()
    elsewhere.spec["zones"] = {"b": 2}
    zone.settle(wanting(elsewhere))
    assert (zone.instances, zone.reported) == ({}, {})


def test_deleting_stops_all_says_so_and_the_marker_ends_it() -> None:
    zone = Zone()
    zone.settle(wanting(regional()))
    deleting = wanting(regional(deletion_timestamp="T"), "1.9.hub")
    zone.step(deleting)
    assert zone.reported[STATUS]["terminated"] is False
    assert len(zone.in_phase("Stopping")) == 2
    zone.settle(deleting)
    assert list(zone.reported) == [STATUS]
    assert (zone.reported[STATUS]["terminated"], zone.reported[STATUS]["specVersion"]) == (True, "1.9.hub")
    zone.step(Wanted(KEY, "1.10.hub", "1.10.hub", deleted=True))
    assert zone.reported == {}


def test_a_delete_marker_alone_stops_what_runs() -> None:
    zone = Zone()
    zone.settle(wanting(regional()))
    zone.settle(Wanted(KEY, "1.10.hub", "1.10.hub", deleted=True))
    assert (zone.instances, zone.reported) == ({}, {})


def test_a_roll_goes_one_at_a_time_and_the_new_serves_before_the_old_goes() -> None:
    zone = Zone()
    zone.settle(wanting(regional("1")))
    two = wanting(regional("2"))
    zone.step(two)
    assert (zone.versions("Healthy"), zone.versions("Starting")) == (["1", "1"], ["2"])
    assert zone.condition("Progressing")[1] == "RollingOut"
    zone.step(two)
    assert zone.versions("Starting") == ["2"]
    zone.enter(*zone.in_phase("Starting"), "Healthy")
    zone.step(two)
    assert (zone.versions("Healthy"), zone.versions("Stopping")) == (["1", "2"], ["1"])
    assert zone.versions("Starting") == []  # what is stopping still runs, and counts
    del zone.instances[zone.in_phase("Stopping")[0]]
    zone.step(two)
    assert (zone.versions("Healthy"), zone.versions("Starting")) == (["1", "2"], ["2"])
    zone.settle(two)
    assert zone.versions("Healthy") == ["2", "2"]
    assert zone.condition("Ready")[0] == "True"


@pytest.mark.parametrize("failing", ["dies", "ails"])
def test_a_new_version_that_fails_halts_the_roll_and_says_why(failing: str) -> None:
    zone = Zone()
    zone.settle(wanting(regional("1")))
    two = wanting(regional("2"))
    zone.step(two)
    (new,) = zone.in_phase("Starting")
    if failing == "dies":
        zone.die(new)
    else:
        zone.enter(new, "Unhealthy")
        zone.instances[new] = msgspec.structs.replace(
            zone.instances[new], output="GET / answered 500\nno such table"
        )
    for _ in range(5):
        zone.step(two)
        assert zone.versions("Healthy") == ["1", "1"]
        assert len(zone.instances) == 3
    for kind in ("Ready", "Progressing"):
        status, reason, message = zone.condition(kind)
        assert (status, reason) == ("False", "RolloutHalted")
        assert "no such table" in message
    assert (zone.reported[STATUS]["ready"], zone.reported[STATUS]["updated"]) == (2, 1)
    zone.settle(wanting(regional("1")))  # back to the old version: the failed one goes, nothing is restarted
    assert zone.versions("Healthy") == ["1", "1"]
    assert zone.condition("Ready")[0] == "True"


def test_an_old_instance_that_dies_in_a_halted_roll_is_started_again() -> None:
    zone = Zone()
    zone.settle(wanting(regional("1")))
    two = wanting(regional("2"))
    zone.step(two)
    zone.die(*zone.in_phase("Starting"))
    old = zone.in_phase("Healthy")[0]
    zone.die(old)
    zone.step(two)
    assert zone.instances[old].phase == "Dead"
    zone.seconds += 1
    zone.step(two)
    assert zone.instances[old].phase == "Starting"


def test_a_dead_instance_waits_until_there_is_room_for_it() -> None:
    zone = Zone()
    zone.settle(wanting(regional("1", 4)))
    two = wanting(regional("2", 2))
    zone.step(two)
    assert len(zone.in_phase("Stopping")) == 2  # they go on running for a while
    dead = zone.in_phase("Healthy")[0]
    zone.die(dead)
    zone.seconds += 1
    assert list(zone.step(two).actions) == []
    for name in zone.in_phase("Stopping"):
        del zone.instances[name]
    assert [type(action) for action in zone.step(two).actions] == [Start, Start]
    assert zone.instances[dead].phase == "Starting"


def test_an_app_that_cannot_start_is_tried_again_ever_more_slowly_and_shows_its_output() -> None:
    zone = Zone()
    app = wanting(regional(count=1))
    waits: list[float] = []
    for _ in range(12):
        zone.step(app)
        (name,) = zone.in_phase("Starting")
        zone.die(name)
        plan = zone.step(app)
        assert list(plan.actions) == []
        assert plan.look_again_seconds is not None
        waits.append(plan.look_again_seconds)
        zone.seconds += plan.look_again_seconds
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0]
    assert waits[-1] == restart_after_seconds(10_000) == 60.0
    status, reason, message = zone.condition("Ready")
    assert (status, reason) == ("False", "CannotStart")
    assert "no such table" in message


def test_an_instance_killed_by_hand_is_started_again_and_one_that_keeps_dying_is_called_a_crash_loop() -> (
    None
):
    zone = Zone()
    app = wanting(regional(count=1))
    zone.settle(app)
    (name,) = zone.in_phase("Healthy")
    zone.die(name)
    zone.step(app)
    assert zone.condition("Ready")[1] == "Restarting"
    zone.seconds += 1
    plan = zone.step(app)
    assert [action.launch.name for action in plan.actions if isinstance(action, Start)] == [name]
    zone.die(name)
    zone.step(app)
    assert zone.condition("Progressing")[:2] == ("False", "CrashLoop")


def test_an_instance_that_ails_for_long_is_ended_and_started_again() -> None:
    zone = Zone()
    app = wanting(regional(count=1))
    zone.settle(app)
    (name,) = zone.in_phase("Healthy")
    zone.enter(name, "Unhealthy")
    plan = zone.step(app)
    assert (list(plan.actions), plan.look_again_seconds) == ([], UNHEALTHY_MOST_SECONDS)
    zone.seconds += UNHEALTHY_MOST_SECONDS
    assert list(zone.step(app).actions) == [End(name)]
    zone.settle(app)
    assert zone.in_phase("Healthy") == [name]


def test_scaling_stops_what_does_not_serve_first() -> None:
    zone = Zone()
    zone.settle(wanting(regional(count=3)))
    first, second, third = zone.in_phase("Healthy")
    zone.enter(second, "Unhealthy")
    zone.step(wanting(regional(count=2)))
    assert zone.in_phase("Stopping") == [second]
    assert zone.in_phase("Healthy") == [first, third]
    zone.settle(wanting(regional(count=0)))
    assert zone.instances == {}
    assert zone.condition("Ready")[0] == "True"


def test_a_refused_record_is_said_and_changes_nothing() -> None:
    zone = Zone()
    zone.settle(wanting(regional()))
    in_force = wanting(regional(), refused="spec.command: Field required")
    bad = msgspec.structs.replace(in_force, newest="1.8.hub")
    assert list(zone.step(bad).actions) == []
    assert zone.condition("Ready")[0] == "True"
    status, reason, message = zone.condition("Accepted")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "1.8.hub" in message
    assert "Field required" in message
    unknown = Wanted(KEY, "1.8.hub", "1.8.hub", refused="spec.command: Field required")
    assert list(zone.step(unknown).actions) == []  # after a restart no good one is known: the same
    assert zone.condition("Accepted")[1] == "InvalidSpec"
    zone.step(wanting(regional(), "1.9.hub"))
    with pytest.raises(KeyError):
        zone.condition("Accepted")


def test_a_status_condition_keeps_its_time_until_it_changes() -> None:
    zone = Zone()
    app = wanting(regional(count=1))
    zone.step(app)
    began = {c.type: c.last_transition_time for c in conditions_of(zone.reported[STATUS])}
    zone.seconds += 5
    zone.step(wanting(regional(count=1), "1.8.hub"))
    assert {c.type: c.last_transition_time for c in conditions_of(zone.reported[STATUS])} == began


def test_what_needs_no_restart_has_the_same_fingerprint() -> None:
    spec = PLANNER.parse(regional())
    same = [spec.model_copy(update={"zones": {"a": 9, "b": 1}}), spec.model_copy(update={"region": "us"})]
    other = [
        spec.model_copy(update={"version": "2"}),
        spec.model_copy(update={"command": ["run"]}),
        spec.model_copy(update={"env": {}}),
        spec.model_copy(update={"health_check": spec.health_check.model_copy(update={"path": "/up"})}),
    ]
    assert {fingerprint(each) for each in same} == {fingerprint(spec)}
    assert len({fingerprint(each) for each in [spec, *other]}) == 5


def test_a_bad_spec_is_refused_with_its_path() -> None:
    bad = regional()
    del bad.spec["command"]
    with pytest.raises(InvalidError, match=r"spec\.command"):
        PLANNER.parse(bad)


EVENTS = st.one_of(
    st.tuples(st.just("want"), st.sampled_from("123"), st.integers(0, 4)),
    st.tuples(st.sampled_from(["healthy", "die", "ail", "gone"]), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 40]), st.just(0)),
    st.tuples(st.just("forgotten"), st.just(0), st.just(0)),
)


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=40), st.integers(0, 4), st.sampled_from("123"))
def test_whatever_happens_no_roll_takes_away_what_serves(
    events: list[tuple[str, int | str, int]], last_count: int, last_version: str
) -> None:
    zone = Zone()
    wanted = wanting(regional("1", 2))

    def check(action: object) -> None:
        assert known, f"{action} without a desired record"
        count, version = wanted.spec.zones["a"], wanted.spec.version
        live = [i for i in zone.instances.values() if i.phase not in ("Stopping", "Dead")]
        healthy = sum(i.phase == "Healthy" for i in live)
        if isinstance(action, Stop):
            stopped = zone.instances[action.name]
            if stopped.launch.version != version and stopped.phase == "Healthy":
                assert healthy - 1 >= count
        elif isinstance(action, Start):
            held = zone.instances.get(action.launch.name)
            assert held is None or zone.seconds >= held.since + restart_after_seconds(held.failures)
            running = sum(i.phase != "Dead" for i in zone.instances.values())
            if any(i.launch.version != version for i in zone.instances.values()):
                assert running + 1 <= count + 1
            same = sum(i.launch.version == version for i in live)
            assert held is not None or same + 1 <= count

    zone.before_action = check
    for event, which, count in events:
        known = event != "forgotten"
        if event == "want":
            wanted = wanting(regional(str(which), count))
        elif event == "wait":
            zone.seconds += int(which)
        elif known:
            happen(zone, event, int(which))
        zone.step(wanted if known else None)

    known = True
    wanted = wanting(regional(last_version, last_count))
    zone.settle(wanted)
    assert zone.versions("Healthy") == [last_version] * last_count
    assert zone.in_phase("Starting", "Unhealthy", "Dead", "Stopping") == []
    assert zone.condition("Ready")[0] == "True"


@settings(max_examples=100)
@given(st.integers(1, 4), st.lists(EVENTS, max_size=10))
def test_a_version_that_never_works_costs_nothing_that_serves(
    count: int, events: list[tuple[str, int | str, int]]
) -> None:
    zone = Zone()
    zone.settle(wanting(regional("1", count)))
    bad = wanting(regional("9", count))
    for event, which, _ in events:
        if event in ("gone", "die", "ail"):
            new = [name for name in sorted(zone.instances) if zone.instances[name].launch.version == "9"]
            happen(zone, event, int(which), new)
        zone.step(bad)
        zone.seconds += 1
        assert zone.versions("Healthy") == ["1"] * count
    zone.settle(wanting(regional("1", count)))
    assert zone.versions("Healthy") == ["1"] * count


def happen(zone: Zone, event: str, which: int, among: list[str] | None = None) -> None:
    phases: dict[str, tuple[Phase, ...]] = {
        "healthy": ("Starting", "Unhealthy"),
        "die": ("Starting", "Healthy", "Unhealthy"),
        "ail": ("Starting", "Healthy"),
        "gone": ("Stopping",),
    }
    names = [name for name in zone.in_phase(*phases[event]) if among is None or name in among]
    if not names:
        return
    name = names[which % len(names)]
    if event == "gone":
        del zone.instances[name]
    elif event == "die":
        zone.die(name)
    else:
        zone.enter(name, "Healthy" if event == "healthy" else "Unhealthy")
