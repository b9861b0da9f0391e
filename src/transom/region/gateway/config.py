"""A gateway's configuration file (TOML)."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from transom.logs.opening import LogPlace, check_place, is_address
from transom.model.errors import InvalidError
from transom.region.gateway.limits import THIS_MACHINE
from transom.runtime.config import Config, label


def _path_unless_address(value: object) -> object:
    """What is no address is a file's name, so that it begins beside the configuration like every other."""
    return Path(value) if isinstance(value, str) and not is_address(value) else value


class GatewayConfig(Config):
    """`region` is whose gateway it is, `name` tells it from the region's others; `data` is its own folder.

    `log` is the file of the region's log, the address of its server, with the key in `log_key_file`, or the
    Kafka cluster (`kafka+tls://USER@HOST:PORT`), with the password there; `log_trust` (PEM) is for whom to
    trust there (by default whom the system trusts).

    `trusted_signers` are the public keys of the hub (`transom contexts signer FILE` prints one), two while
    one replaces the other: what none of them has signed for this region is refused. `context_modules` list
    context kinds of one's own; the same as the hub's.

    `cache_entries` bounds how many keys are held in memory (about 400 bytes each), `rows` how many contexts
    are taken into the table. One address may hold a quarter of the `connections`; those in `fronts`, being
    proxies, may hold all (addresses and networks). `access_log` is a file ("/dev/stdout" will do); without it
    there is none. `metrics_host` and `metrics_port` are where it serves its metrics, not for clients; without
    a port, nowhere. `tls_cert` and `tls_key` (PEM) are required for any address but this machine's.
    The other limits are those of `limits.GatewayLimits`.
    """

    region: str
    name: str = "gateway"
    data: Path = Path()
    host: str = "127.0.0.1"
    port: int = Field(default=8581, ge=0, le=65535)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log: Annotated[Path | str, BeforeValidator(_path_unless_address)]
    log_key_file: Path | None = None
    log_trust: Path | None = None
    trusted_signers: list[str] = Field(min_length=1)
    context_modules: list[str] = Field(default=[])
    cache_entries: int = Field(default=200_000, ge=100, le=10_000_000)
    rows: int = Field(default=5_000_000, ge=1)
    access_log: Path | None = None
    heartbeat_seconds: float = Field(default=2.0, ge=0.1, le=3600)
    connections: int = Field(default=4096, ge=1, le=100_000)
    fronts: tuple[str, ...] = THIS_MACHINE
    body_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    answer_seconds: float = Field(default=60.0, gt=0, le=86_400)
    drain_seconds: float = Field(default=10.0, ge=0, le=3600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    _names = field_validator("region", "name")(label)

    @field_validator("fronts")
    @classmethod
    def _networks(cls, fronts: tuple[str, ...]) -> tuple[str, ...]:
        for front in fronts:
            ip_network(front)  # says itself what is wrong
        return fronts

    @model_validator(mode="after")
    def _belonging_together(self) -> "GatewayConfig":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or none")
        if isinstance(self.log, Path):
            if self.log_key_file is not None:
                raise ValueError("log_key_file belongs to a log that is an address, and only there")
            return self
        try:
            check_place(LogPlace(self.log, self.log_key_file, self.log_trust))
        except InvalidError as error:
            raise ValueError(str(error)) from None
        return self
