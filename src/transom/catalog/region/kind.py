"""What a Region is."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from transom.model.kinds import Column, Kind, Spec
from transom.model.names import LABEL_RULE, is_label

_PLAIN_AND_TLS = ("http", "https", "kafka", "kafka+tls")
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class Zone(Spec):
    """A zone of a region and the driver that makes things real there."""

    name: str
    """The zone's name: a DNS label, unique in its region."""
    driver: Literal["process", "null"] = "process"
    """What makes things real: processes of the zone's own machine, or nothing at all."""

    @field_validator("name")
    @classmethod
    def _label(cls, name: str) -> str:
        if not is_label(name):
            raise ValueError(LABEL_RULE)
        return name


class RegionSpec(Spec):
    """Where things run: its zones, and the log through which the hub speaks to it."""

    environment: str = "production"
    """What the region is for, as test, stage or production."""
    zones: list[Zone] = Field(
        min_length=1,
        default_factory=lambda: [Zone(name="a")],
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """The parts of the region that fail on their own, each with a driver."""
    log: str
    """The address of the region's log: https://HOST:PORT of the log's server, or kafka+tls://USER@HOST:PORT.
    The key for it is in the hub's folder for link keys.
    """

    @field_validator("environment")
    @classmethod
    def _label(cls, name: str) -> str:
        if not is_label(name):
            raise ValueError(LABEL_RULE)
        return name

    @field_validator("zones")
    @classmethod
    def _distinct(cls, zones: list[Zone]) -> list[Zone]:
        if len({zone.name for zone in zones}) != len(zones):
            raise ValueError("two zones have the same name")
        return zones

    @field_validator("log")
    @classmethod
    def _address(cls, address: str) -> str:
        scheme, _, rest = address.partition("://")
        if scheme not in _PLAIN_AND_TLS:
            raise ValueError("expected https://HOST:PORT or kafka+tls://USER@HOST:PORT")
        user, _, places = rest.partition("?")[0].partition("/")[0].rpartition("@")
        if ":" in user:
            raise ValueError("holds a password; it belongs into the hub's folder of link keys")
        for place in places.split(",") if scheme.startswith("kafka") else [places]:
            host = urlsplit(f"//{place}").hostname
            if not host:
                raise ValueError(f"{place!r} is no HOST:PORT")
            if scheme in ("http", "kafka") and host not in LOOPBACK_HOSTS:
                safe = {"http": "https", "kafka": "kafka+tls"}[scheme]
                raise ValueError(f"{scheme} is for this machine only; use {safe} to reach another")
        return address


REGION = Kind(
    name="Region",
    plural="regions",
    spec=RegionSpec,
    namespaced=False,
    guards="region",
    columns=(
        Column("ENVIRONMENT", lambda region: str(region.spec.get("environment", ""))),
        Column("ZONES", lambda region: ",".join(str(zone["name"]) for zone in region.spec.get("zones", []))),
        Column("LOG", lambda region: str(region.spec.get("log", ""))),
    ),
)
