"""What a Deployment and a RegionalDeployment are.

Status of a zone, as its agent reports it (`ZoneStatus`), of a region (`fold_zones`), and of the whole
(`controller.py`) have the same counts: those of `AppStatus`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from transom.catalog.rules import A_SET, LabelName, distinct
from transom.catalog.statuses import Conditions, Status
from transom.model.kinds import REGION, Column, Kind, Spec
from transom.model.regional import counts, readiness, region_of, to_region, to_regions
from transom.model.resources import JsonObject, Resource

CONTROLLER = "deployment-controller"

INSTANCES_MAX = 100


class HealthCheck(Spec):
    """How to tell whether an instance serves: an HTTP GET that answers 2xx or 3xx, or a TCP connection."""

    kind: Literal["http", "tcp"] = "tcp"
    """How to ask."""
    path: str = "/"
    """What to GET, beginning with '/'. Only for http."""
    interval_seconds: float = Field(default=1.0, ge=0.1, le=60)
    """How long to wait between two checks."""
    timeout_seconds: float = Field(default=1.0, ge=0.1, le=60)
    """How long an answer may take."""
    unhealthy_after: int = Field(default=3, ge=1, le=100)
    """How many failures in a row make an instance unhealthy."""
    start_seconds: float = Field(default=30.0, ge=1, le=3600)
    """How long starting may take."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("must begin with '/'")
        return path


class AppSpec(Spec):
    """What to run: the same in a Deployment and in a RegionalDeployment.

    The environment of an instance holds PORT (a free port to listen on) and TRANSOM_REGION, TRANSOM_ZONE,
    TRANSOM_TENANT, TRANSOM_APP, TRANSOM_VERSION, TRANSOM_INSTANCE. `$(NAME)` in an argument stands for one.
    """

    app: LabelName
    """What the app is called: a DNS label. API keys and gateways name it so."""
    version: str = Field(min_length=1, max_length=128)
    """Which version of the app this is, in words of its own. A change replaces the instances."""
    command: list[str] = Field(min_length=1, max_length=256)
    """The program and its arguments. `$(NAME)` in an argument stands for a variable of the environment."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of the environment. PORT and those beginning with TRANSOM_ are set by transom."""
    health_check: HealthCheck = HealthCheck()
    """How to tell whether an instance serves."""

    @field_validator("env")
    @classmethod
    def _names(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise ValueError(f"{name!r} is not a name for an environment variable")
            if name == "PORT" or name.startswith("TRANSOM_"):
                raise ValueError(f"{name!r} is set by transom")
        return env

    @field_validator("command")
    @classmethod
    def _arguments(cls, command: list[str]) -> list[str]:
        if not command[0] or any("\0" in argument for argument in command):
            raise ValueError("the program's name is empty, or an argument holds a NUL")
        return command


class DeploymentSpec(AppSpec):
    """An app in `regions`, with `instances` in each region, spread over its zones (or the `zones` named)."""

    instances: int = Field(default=1, ge=0, le=INSTANCES_MAX)
    """How many instances run in each region."""
    regions: Annotated[list[LabelName], AfterValidator(distinct)] = Field(
        min_length=1, json_schema_extra=A_SET
    )
    """The regions it runs in. They must exist."""
    zones: Annotated[list[LabelName], AfterValidator(distinct)] = Field(
        default_factory=list, json_schema_extra=A_SET
    )
    """The zones it runs in, in each region that has them; left out, all."""


class RegionalDeploymentSpec(AppSpec):
    """What one region runs: how many instances in each of its zones."""

    region: str
    """The region that runs it."""
    zones: dict[str, int]
    """How many instances run in each zone."""

    @model_validator(mode="after")
    def _counts(self) -> "RegionalDeploymentSpec":
        for zone, count in self.zones.items():
            if not 0 <= count <= INSTANCES_MAX:
                raise ValueError(f"zone {zone!r}: {count} instances; at most {INSTANCES_MAX}")
        return self


class AppStatus(Status):
    """How far what runs is what was asked for."""

    desired: int = 0
    """How many instances are to run."""
    ready: int = 0
    """How many of them serve."""
    updated: int = 0
    """How many of them run the version asked for."""
    observed_generation: int = 0
    """The generation that this status answers."""
    conditions: Conditions = Field(default_factory=list)
    """Statements about the whole; the type Ready says whether everything runs as asked for."""


class DeploymentStatus(AppStatus):
    """How far what runs in all regions is what was asked for."""

    regions: dict[str, Any] = Field(default_factory=dict)
    """For each region its counts, and in which state it is and why."""


_COLUMNS = (
    Column("VERSION", lambda resource: str(resource.spec.get("version", ""))),
    Column("READY", counts),
    Column("STATUS", readiness),
)


def fold_zones(regional: Resource, zones: Mapping[str, JsonObject]) -> JsonObject:
    """The status of a region from those its zones report (each as `driver.zone_status` makes it).

    Counts add up; a condition is "True" when it is so in every zone, and otherwise as in the first zone, by
    name, where it is not; `observedGeneration` is the smallest: what all of them have seen. A zone that has
    something to do and has not reported yet makes the region not ready.
    """
    ordered = [zones[name] for name in sorted(zones)]
    conditions: dict[str, Any] = {}
    for status in ordered:
        for condition in status.get("conditions", []):
            held = conditions.get(condition["type"])
            if held is None or (held["status"] == "True" and condition["status"] != "True"):
                conditions[condition["type"]] = condition
    folded: JsonObject = {
        count: sum(int(status.get(count, 0)) for status in ordered)
        for count in ("desired", "ready", "updated")
    }
    silent = sorted(name for name in regional.spec["zones"] if name not in zones)
    seen = [int(status.get("observedGeneration", 0)) for status in ordered]
    folded["observedGeneration"] = 0 if silent else min(seen, default=regional.metadata.generation)
    if silent:
        waiting = f"zone {silent[0]!r} has not reported yet"
        conditions["Ready"] = {"type": "Ready", "status": "False", "reason": "Waiting", "message": waiting}
    folded["conditions"] = [conditions[name] for name in sorted(conditions)]
    return folded


DEPLOYMENT = Kind(
    name="Deployment",
    plural="deployments",
    short_names=("deploy",),
    spec=DeploymentSpec,
    status=DeploymentStatus,
    status_owner=CONTROLLER,
    references=to_regions,
    finalizers=(f"transom.dev/{CONTROLLER}",),
    columns=(
        Column("APP", lambda resource: str(resource.spec.get("app", ""))),
        *_COLUMNS,
        Column("REGIONS", lambda resource: ",".join(resource.spec.get("regions", []))),
    ),
)

REGIONAL_DEPLOYMENT = Kind(
    name="RegionalDeployment",
    plural="regionaldeployments",
    short_names=("rdeploy",),
    spec=RegionalDeploymentSpec,
    status=AppStatus,
    owner=CONTROLLER,
    status_owner=REGION,
    reads=("Deployment", "Region"),
    dotted_names=True,
    references=to_region,
    region_of=region_of,
    finalizers=(f"transom.dev/{REGION}",),
    fold_zones=fold_zones,
    columns=(Column("REGION", lambda resource: str(resource.spec.get("region", ""))), *_COLUMNS),
)
