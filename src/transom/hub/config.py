"""The hub's configuration file (TOML)."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from transom.hub.access.limits import LimitsConfig
from transom.hub.access.tokens import OidcConfig, check_distinct
from transom.hub.store_address import postgres_address
from transom.logs.opening import own_address
from transom.model.errors import InvalidError
from transom.runtime.authority import ca_file_beside
from transom.runtime.config import Config


class ContextsConfig(Config):
    """How contexts are guarded and published.

    What changes or deletes more than `max_share` of a kind's rows, or of a tenant's of one kind, and more
    than `min_rows`, within `share_seconds`, is held until somebody allows it. A cause that changes more than
    `bulk_rows` contexts goes in bulk: to one region first (`soak_region`, or the first where a gateway is
    heard), and after `soak_seconds` of good service there to the others. `fast_rate` is in records a second
    to each region, `canary_seconds` how often a region is told that nothing is new.
    """

    max_share: float = Field(default=0.2, gt=0.0, le=1.0)
    min_rows: int = Field(default=10, ge=0)
    share_seconds: float = Field(default=10.0, ge=0.0, le=3600.0)
    bulk_rows: int = Field(default=100, ge=0)
    soak_seconds: float = Field(default=60.0, ge=0.0, le=86_400.0)
    soak_region: str = ""
    fast_rate: float = Field(default=2000.0, ge=1.0)
    canary_seconds: float = Field(default=2.0, ge=0.1, le=60.0)


class HubConfig(Config):
    """`data` is the hub's folder, `link_keys` the folder with `<region>.key` for each region.

    Relative paths begin at the file's folder. `trust` is a file of certificates (PEM) that regions' log
    servers are checked against instead of the system's. `tls_cert` and `tls_key` are this server's own;
    without them `tls_authority` issues it certificates for `host`, `address` and this machine: a file made at
    the first start, by default `authority.pem` in `data`. `address` is where others reach this process
    (`https://host:port`), when it is not `host` and `port`. `store` is the PostgreSQL database that holds
    everything declared, `postgresql://user@host:port/database`; without it that is a SQLite file in `data`.
    Its user's password is in `store_password_file`, and a server that is not this machine must be one that
    the certificates in `store_trust` (PEM) stand for. `signing_key` is what contexts are signed with, made at
    the first start and never again. `context_modules` are modules whose list `CONTEXTS` names further kinds
    of contexts, `kind_modules` those whose list `KINDS` names further kinds (`model.own`): what can be
    imported, or a file that ends in ".py".
    People come in with tokens of the issuers in `oidc`; `limits` bounds what callers ask.
    For `retention_days` the history is kept, and what was deleted can be brought back.
    """

    data: Path = Path()
    host: str = "127.0.0.1"
    port: int = Field(default=8480, ge=0, le=65535)
    address: str = ""
    store_password_file: Path | None = None
    store_trust: Path | None = None  # before `store`, which is checked with it
    store: str = ""
    log_key_file: Path | None = None
    log_trust: Path | None = None
    log: str = ""  # behind what it is checked with
    link_keys: Path = Path("link-keys")
    signing_key: Path = Path("signing.key")
    context_modules: list[str] = Field(default_factory=list)
    kind_modules: list[str] = Field(default_factory=list)
    contexts: ContextsConfig = ContextsConfig()
    oidc: list[OidcConfig] = Field(default_factory=list, max_length=20)
    limits: LimitsConfig = LimitsConfig()
    sweep_seconds: float = Field(default=600.0, ge=1.0)
    clean_seconds: float = Field(default=60.0, ge=1.0)
    retention_days: float = Field(default=30.0, ge=1.0, le=36_500.0)
    trust: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_authority: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("oidc")
    @classmethod
    def _are_distinct(cls, issuers: list[OidcConfig]) -> list[OidcConfig]:
        check_distinct(issuers)
        return issuers

    @field_validator("address")
    @classmethod
    def _is_safe(cls, address: str) -> str:
        parts = urlsplit(address)
        if address and (parts.scheme != "https" or not parts.hostname or parts.path):
            raise ValueError("expected https://HOST:PORT")
        return address

    @model_validator(mode="after")
    def _can_be_reached(self) -> "HubConfig":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or none")
        if self.tls_cert is not None and self.tls_authority is not None:
            raise ValueError("tls_authority is for servers without tls_cert: give one of them")
        nowhere = self.host in ("0.0.0.0", "::")  # refused here
        if nowhere and not self.address and (self.store or self.tls_cert is None):
            raise ValueError("address is missing: from this host nobody can tell where this process is")
        return self

    @property
    def authority_file(self) -> Path:
        """Where this server's own authority is, unless the operator has brought certificates."""
        return self.tls_authority or self.data / "authority.pem"

    @property
    def ca_file(self) -> Path | None:
        """Whom clients, and the hub's other processes, are to trust; None for what the system trusts."""
        return self.trust if self.tls_cert else ca_file_beside(self.authority_file)

    @property
    def called(self) -> list[str]:
        """The hosts by which clients call this process."""
        named = urlsplit(self.address).hostname or ""
        return [host for host in (named, self.host) if host not in ("", "0.0.0.0", "::")]

    @field_validator("store")
    @classmethod
    def _is_an_address(cls, store: str, others: ValidationInfo) -> str:
        try:
            if store:
                postgres_address(store, others.data.get("store_trust"))
        except InvalidError as error:
            raise ValueError("; ".join(str(problem) for problem in error.problems)) from None
        return store

    @field_validator("log")
    @classmethod
    def _is_kafka(cls, log: str, others: ValidationInfo) -> str:
        return own_address(log, others.data.get("log_key_file"), others.data.get("log_trust"))
