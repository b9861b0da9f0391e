"""Kinds, their schemas, and the layers that follow from who reads what."""

from typing import Any

import pytest
from pydantic import Field

from transom.catalog.deployment.kind import fold_zones
from transom.catalog.kinds import shipped
from transom.model.errors import InvalidError, NotFoundError
from transom.model.kinds import Catalog, Kind, Spec
from transom.model.resources import Metadata, Resource


class Door(Spec):
    open_wide: bool = False
    hinges: list[int] = Field(default_factory=list)
    colour: str


DOOR = Kind("Door", "doors", Door, short_names=("dr",))


def door(name: str = "front", namespace: str = "acme", api: str = "", **spec: Any) -> Resource:
    return Resource("Door", Metadata(name, namespace), api, spec)


def paths(caught: pytest.ExceptionInfo[InvalidError]) -> list[str]:
    return sorted(problem.path for problem in caught.value.problems)


# --- schemas -------------------------------------------------------------------------------------------


def test_a_valid_resource_has_its_defaults_written_out() -> None:
    valid = DOOR.validate(door(colour="red"))
    assert valid.spec == {"openWide": False, "hinges": [], "colour": "red"}
    assert valid.api_version == "transom.dev/v1"
    assert DOOR.validate(valid) == valid
    assert DOOR.parse(valid) == Door(colour="red")


def test_every_mistake_is_found_at_once_with_its_path() -> None:
    wrong = door("Front Door", "", "apps/v1", openWide="yes", hinges=[1, "2"], size=3)
    with pytest.raises(InvalidError) as caught:
        DOOR.validate(wrong)
    assert paths(caught) == [
        "apiVersion",
        "metadata.name",
        "metadata.namespace",
        "spec.colour",
        "spec.hinges[1]",
        "spec.openWide",
        "spec.size",
    ]
    assert "spec.size: unknown field" in str(caught.value)


def test_types_are_never_guessed() -> None:
    for wrong in (
        {"colour": 5},
        {"colour": None},
        {"colour": "red", "openWide": 1},
        {"colour": "red", "hinges": {}},
    ):
        with pytest.raises(InvalidError):
            DOOR.validate(door(**wrong))
        with pytest.raises(InvalidError, match="spec"):
            DOOR.parse(door(**wrong))


def test_a_kind_without_a_spec_or_a_namespace() -> None:
    seen = Kind("Seen", "seen", None, namespaced=False)
    with pytest.raises(InvalidError) as caught:
        seen.validate(Resource("Seen", Metadata("a", "acme"), spec={"x": 1}))
    assert paths(caught) == ["metadata.namespace", "spec"]
    assert seen.parse(seen.validate(Resource("Seen", Metadata("a")))) is None


def test_dotted_names_are_for_kinds_that_say_so() -> None:
    dotted = Kind("Door", "doors", Door, dotted_names=True)
    assert dotted.validate(door("front.eu", colour="red")).metadata.name == "front.eu"
    with pytest.raises(InvalidError, match="DNS label"):
        DOOR.validate(door("front.eu", colour="red"))


# --- the catalog ---------------------------------------------------------------------------------------


def test_layers_follow_from_what_is_read() -> None:
    catalog = Catalog(
        [
            Kind("C", "cs", None, owner="c", reads=("A", "B")),
            Kind("A", "as", None),
            Kind("B", "bs", None, owner="b", reads=("A",)),
        ]
    )
    assert catalog.layers == {"A": 0, "B": 1, "C": 2}


@pytest.mark.parametrize("circle", [("A",), ("A", "B"), ("A", "B", "C")])
def test_reading_in_a_circle_is_refused(circle: tuple[str, ...]) -> None:
    reads = dict(zip(circle, (*circle[1:], circle[0]), strict=True))
    kinds = [Kind(name, f"{name.lower()}s", None, owner=name, reads=(reads[name],)) for name in circle]
    with pytest.raises(InvalidError, match=" -> ".join((*circle, circle[0]))):
        Catalog(kinds)


def test_second_owners_and_missing_kinds_are_refused_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        Catalog(
            [
                Kind("A", "as", None, owner="one"),
                Kind("A", "as", None, owner="two"),
                Kind("B", "bs", None, short_names=("as",)),
                Kind("C", "cs", None, reads=("Z",)),
            ]
        )
    message = str(caught.value)
    assert "A: owned twice, by 'one' and by 'two'" in message
    assert "B: the name 'as' already means A" in message
    assert "C: reads 'Z', which is not a kind" in message


def test_a_kind_is_found_by_any_of_its_names() -> None:
    catalog = Catalog([DOOR])
    for name in ("Door", "door", "doors", "DOORS", "dr", "DR"):
        assert catalog.named(name) is DOOR
    for find in (catalog.named, catalog.__getitem__):
        with pytest.raises(NotFoundError, match="unknown kind 'window'; there are Door"):
            find("window")
    with pytest.raises(NotFoundError):
        catalog["door"]


# --- the kinds that ship -------------------------------------------------------------------------------

APP = {"app": "web", "version": "1", "command": ["./web"], "regions": ["eu"]}


def declared(kind: str, spec: dict[str, Any], name: str = "web") -> Resource:
    held = shipped()[kind]
    return held.validate(Resource(kind, Metadata(name, "acme" if held.namespaced else ""), spec=spec))


def test_the_layers_of_what_ships() -> None:
    layers = shipped().layers
    assert (layers["Tenant"], layers["Region"], layers["Deployment"]) == (0, 0, 0)
    assert layers["RegionalDeployment"] == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"instances": 101}, "spec.instances"),
        ({"instances": True}, "spec.instances"),
        ({"regions": []}, "spec.regions"),
        ({"regions": ["eu", "eu"]}, "spec.regions"),
        ({"regions": ["E U"]}, "spec.regions[0]"),
        ({"app": "Web"}, "spec.app"),
        ({"version": ""}, "spec.version"),
        ({"command": []}, "spec.command"),
        ({"command": ["a\0b"]}, "spec.command"),
        ({"env": {"PORT": "1"}}, "spec.env"),
        ({"env": {"TRANSOM_ZONE": "1"}}, "spec.env"),
        ({"env": {"A=B": "1"}}, "spec.env"),
        ({"healthCheck": {"kind": "http", "path": "up"}}, "spec.healthCheck.path"),
        ({"healthCheck": {"intervalSeconds": 0}}, "spec.healthCheck.intervalSeconds"),
    ],
)
def test_what_a_deployment_may_not_say(change: dict[str, Any], path: str) -> None:
    assert declared("Deployment", APP).spec["instances"] == 1
    with pytest.raises(InvalidError) as caught:
        declared("Deployment", {**APP, **change})
    assert paths(caught) == [path]


@pytest.mark.parametrize(
    "log", ["", "eu:8481", "ftp://h:1", "http://", "http://example.com:80", "http://127.0.0.1.example.com:1"]
)
def test_a_regions_log_is_reached_safely_or_not_at_all(log: str) -> None:
    with pytest.raises(InvalidError, match=r"spec\.log"):
        declared("Region", {"log": log}, "eu")


def test_regions_and_zones() -> None:
    for log in ("http://127.0.0.1:8481", "http://[::1]:1", "https://eu.example.com:443"):
        assert declared("Region", {"log": log}, "eu").spec["zones"] == [{"name": "a", "driver": "process"}]
    for zones in ([], [{"name": "a"}, {"name": "a"}], [{"name": "A"}], [{"name": "a", "driver": "magic"}]):
        with pytest.raises(InvalidError, match=r"spec\.zones"):
            declared("Region", {"log": "http://127.0.0.1:1", "zones": zones}, "eu")


@pytest.mark.parametrize("zones", [{"a": -1}, {"a": 101}, {"a": "1"}])
def test_a_zone_has_a_sensible_number_of_instances(zones: dict[str, Any]) -> None:
    spec = {name: value for name, value in APP.items() if name != "regions"}
    with pytest.raises(InvalidError, match="spec"):
        declared("RegionalDeployment", {**spec, "region": "eu", "zones": zones}, "web.eu")


def test_a_region_is_as_ready_as_its_least_ready_zone() -> None:
    def zone(ready: int, status: str, observed: int) -> dict[str, Any]:
        condition = {"type": "Ready", "status": status, "reason": f"r{ready}"}
        counts = {"desired": 2, "ready": ready, "updated": ready}
        return {**counts, "observedGeneration": observed, "conditions": [condition]}

    spec = {name: value for name, value in APP.items() if name != "regions"}
    regional = declared("RegionalDeployment", {**spec, "region": "eu", "zones": {"a": 2, "b": 2}}, "web.eu")
    folded = fold_zones(regional, {"b": zone(1, "False", 3), "a": zone(2, "True", 4)})
    assert (folded["desired"], folded["ready"], folded["updated"]) == (4, 3, 3)
    assert folded["observedGeneration"] == 3
    assert [(one["type"], one["status"], one["reason"]) for one in folded["conditions"]] == [
        ("Ready", "False", "r1")
    ]


def test_a_zone_that_has_not_reported_keeps_its_region_waiting() -> None:
    spec = {name: value for name, value in APP.items() if name != "regions"}
    regional = declared("RegionalDeployment", {**spec, "region": "eu", "zones": {"a": 1, "b": 1}}, "web.eu")
    ready = {"type": "Ready", "status": "True"}
    folded = fold_zones(regional, {"a": {"ready": 1, "observedGeneration": 5, "conditions": [ready]}})
    assert folded["observedGeneration"] == 0
    assert [(one["type"], one["status"]) for one in folded["conditions"]] == [("Ready", "False")]
