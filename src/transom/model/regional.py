"""A kind that is one thing in each of its regions: what people declare, and what one region is asked for.

`regional` makes both kinds of two classes with typed fields. The hub turns one into the others
(`hub.regional`), a region makes each real through what its module names in DRIVERS (`region.made`), and what
is true there comes back into the status of both. This module is all that both sides share.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from transom.model.errors import InvalidError, Problem
from transom.model.kinds import REGION, Kind, Spec
from transom.model.names import LABEL_RULE, Key, is_label
from transom.model.own import Show, kind
from transom.model.resources import API_GROUP, JsonObject, Resource

_REGIONS_MAX = 1000
TOLD_OF_A_ZONE = ("zone", "uid", "specVersion", "desired", "terminated", "reportVersion")
"""What a zone reports of what it makes, beside what the driver says of it."""
_KEPT_FREE = {"zones", "region", "zone"}


class Regional(Spec):
    """Base of the spec of what is in several regions: `regions` names them, and they must exist."""

    regions: list[str] = Field(min_length=1, max_length=_REGIONS_MAX)
    """In which regions it is to be."""

    @field_validator("regions")
    @classmethod
    def _distinct_labels(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("a name stands twice")
        for name in names:
            if not is_label(name):
                raise ValueError(f"{name!r} {LABEL_RULE}")
        return names

    def in_region(self, region: str) -> "InRegion":
        """What `region`, one of `regions`, is asked for. Pure."""
        raise TypeError(f"{type(self).__name__} must say what it is in_region {region!r}")


class InRegion(Spec):
    """Base of the spec of what one region is asked for. The hub says where: `in_region` leaves it out."""

    region: str = ""
    """The region that makes it."""
    zone: str = ""
    """The zone whose agent makes it: the region's first, and the same one as long as there is that zone."""


class Thing(NamedTuple):
    """What a driver makes, or removes.

    `spec` is what the region is asked for in the kind's own class; None where it is not known any more, which
    a removal must do without. `name` is the declared resource's, `folder` one for this thing alone: it is
    there before the thing is made, and goes after it was removed.
    """

    spec: Any
    tenant: str
    name: str
    region: str
    zone: str
    folder: Path


def regional(
    whole: type[Regional],
    part: type[InRegion],
    *,
    group: str,
    columns: Mapping[str, Show] | None = None,
    **about: Any,
) -> tuple[Kind, Kind]:
    """The kind that people declare, of the class `whole`, and the one that a region is asked for, of `part`.

    `columns` and `about` are what `own.kind` takes. Raises `InvalidError` when the classes do not fit.
    """
    problems: list[Problem] = []
    taken = _KEPT_FREE & (set(part.model_fields) - set(InRegion.model_fields))
    if taken:
        problems.append(Problem(part.__name__, f"a field cannot be called {', '.join(sorted(taken))}"))
    if whole.in_region is Regional.in_region:
        problems.append(Problem(whole.__name__, "has no method in_region"))
    if problems:
        raise InvalidError("a regional kind", problems)
    name = str(about.pop("name", "") or whole.__name__)
    controller = f"{name.lower()}-controller"
    declared = kind(
        whole,
        group=group,
        name=name,
        columns={"READY": counts, **(columns or {}), "REGIONS": "spec.regions"},
        status_owner=controller,
        references=to_regions,
        finalizers=(f"{API_GROUP}/{controller}",),
        **about,
    )

    def expand(resource: Resource, region: str) -> JsonObject:
        asked: InRegion = declared.parse(resource).in_region(region)
        return asked.model_dump(by_alias=True, exclude_none=True)

    asked_for = kind(
        part,
        group=group,
        columns={"REGION": "spec.region", "STATUS": readiness},
        owner=controller,
        status_owner=REGION,
        reads=(declared.name, "Region"),
        dotted_names=True,
        references=to_region,
        region_of=region_of,
        finalizers=(f"{API_GROUP}/{REGION}",),
        expand=expand,
        fold_zones=fold_zones,
    )
    return declared, asked_for


def fold_zones(part: Resource, zones: Mapping[str, JsonObject]) -> JsonObject:
    """The status of what a region is asked for: what the zone that makes it says of it."""
    said = zones.get(str(part.spec["zone"]))
    if said is None:
        waiting = f"zone {part.spec['zone']!r} has not reported yet"
        condition = {"type": "Ready", "status": "False", "reason": "Waiting", "message": waiting}
        return {"observedGeneration": 0, "conditions": [condition]}
    return {name: value for name, value in said.items() if name not in TOLD_OF_A_ZONE}


def region_of(part: Resource) -> str:
    """The region that is asked for this."""
    return str(part.spec["region"])


def to_region(part: Resource) -> Iterator[Key]:
    """That region, which must exist."""
    yield Key("Region", "", region_of(part))


def to_regions(whole: Resource) -> Iterator[Key]:
    """The regions that `spec.regions` names; they must exist."""
    for region in whole.spec.get("regions", []):
        yield Key("Region", "", region)


def counts(whole: Resource) -> str:
    """How many are ready of how many that are wanted, for people."""
    return f"{whole.status.get('ready', 0)}/{whole.status.get('desired', '?')}"


def readiness(part: Resource) -> str:
    """In one word whether it is Ready, and if not, why."""
    if part.deleting:
        return "Terminating"
    ready = part.condition("Ready")
    if ready is None:
        return "Pending"
    return "Ready" if ready.status == "True" else ready.reason or "NotReady"
