"""A region's configuration file (TOML)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from transom.logs.opening import own_address
from transom.runtime.config import Config, label

_SHA256_HEX = r"^[0-9a-f]{64}$"


class ZoneConfig(Config):
    """A zone, and the driver that makes things real there."""

    name: str
    driver: Literal["process", "null"] = "process"

    _name = field_validator("name")(label)


class RegionConfig(Config):
    """`data` is this process's folder; relative paths begin at the file's folder. `workloads` is where what
    runs in its zones has folders, `workloads` in `data` when it is not given: processes of one region on one
    machine that name the same folder take each other's zones over with what runs there.

    The log is a file in `data`, or the Kafka cluster at `log` (`kafka+tls://USER@HOST:PORT`), with the
    password in `log_key_file` and `log_trust` (PEM) for whom to trust there. The file's server listens on
    `host` and `port` (0: any free one) and lets in the key whose SHA-256, in hexadecimal, is `link_key_hash`,
    and, when the region has gateways on other machines, the one whose SHA-256 is `gateway_key_hash`; a
    gateway on this machine reads the log's file. `tls_cert` and `tls_key` (PEM) are required for any address
    but this machine's. `kind_modules` are as in the hub's: those of which the region makes something.
    """

    name: str
    environment: str = "production"
    zones: list[ZoneConfig] = Field(min_length=1, default_factory=lambda: [ZoneConfig(name="a")])
    data: Path = Path()
    workloads: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8481, ge=0, le=65535)
    log_key_file: Path | None = None
    log_trust: Path | None = None
    log: str = ""  # behind what it is checked with
    link_key_hash: str | None = Field(default=None, pattern=_SHA256_HEX)
    gateway_key_hash: str | None = Field(default=None, pattern=_SHA256_HEX)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    kind_modules: list[str] = Field(default_factory=list)
    heartbeat_seconds: float = Field(default=2.0, ge=0.1, le=3600)
    clean_seconds: float = Field(default=300.0, ge=1, description="between two cleanings of the log")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    _names = field_validator("name", "environment")(label)

    @field_validator("log")
    @classmethod
    def _is_kafka(cls, log: str, others: ValidationInfo) -> str:
        return own_address(log, others.data.get("log_key_file"), others.data.get("log_trust"))

    @field_validator("zones")
    @classmethod
    def _distinct(cls, zones: list[ZoneConfig]) -> list[ZoneConfig]:
        if len({zone.name for zone in zones}) != len(zones):
            raise ValueError("two zones have the same name")
        return zones

    @model_validator(mode="after")
    def _both_or_none(self) -> "RegionConfig":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or none")
        if not self.log and self.link_key_hash is None:
            raise ValueError("link_key_hash is missing: without it the hub cannot reach the region's log")
        return self
