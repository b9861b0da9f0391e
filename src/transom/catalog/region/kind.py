"""What a Region is."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from transom.model.kinds import Column, Kind, Spec
from transom.model.names import LABEL_RULE, is_label

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class Zone(Spec):
    """A zone of a region and the driver that makes things real there."""

    name: str
    driver: Literal["process", "null"] = "process"

    @field_validator("name")
    @classmethod
    def _label(cls, name: str) -> str:
        if not is_label(name):
            raise ValueError(LABEL_RULE)
        return name


class RegionSpec(Spec):
    """`log` is the address of the region's log; the key for it is in the hub's folder for link keys."""

    environment: str = "production"
    zones: list[Zone] = Field(min_length=1, default_factory=lambda: [Zone(name="a")])
    log: str = Field(description="http(s)://host:port of the region's log server")

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
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://HOST:PORT or https://HOST:PORT")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
            raise ValueError("http is for this machine only; use https to reach another")
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
