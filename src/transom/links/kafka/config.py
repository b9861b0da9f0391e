"""A mirror's configuration file (TOML): two clusters, which topics, which groups."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from transom.logs.kafka_address import is_kafka
from transom.logs.opening import LogPlace, check_place
from transom.model.errors import InvalidError
from transom.runtime.config import Config, label

_PORT_MAX = 65535


class ClusterConfig(Config):
    """A Kafka cluster: what it is called in names, where it is (`kafka+tls://USER@HOST:PORT,…`), the file
    with the user's password, and whom to trust (PEM).
    """

    name: str
    key_file: Path | None = None
    trust: Path | None = None
    address: str  # behind what it is checked with

    @field_validator("address")
    @classmethod
    def _is_kafka(cls, address: str, others: ValidationInfo) -> str:
        if not is_kafka(address):
            raise ValueError("expected kafka+tls://USER@HOST:PORT, or kafka://HOST:PORT on this machine")
        try:
            check_place(LogPlace(address, others.data.get("key_file"), others.data.get("trust")))
        except InvalidError as error:
            told = "; ".join(str(problem) for problem in error.problems)
            raise ValueError(told.replace("log_key_file", "key_file")) from None
        return address


class TopicsConfig(Config):
    """Which topics are mirrored, by regular expressions on their whole names, and what copies are called:
    `prefix` SOURCE.TOPIC, `suffix` TOPIC.ENVIRONMENT-SOURCE, `identity` TOPIC.

    `when_lost` and `when_recreated` say whether a partition stops until somebody says where to go on, or
    continues and keeps a record of the gap, when the source no longer has what comes next, or its topic was
    made anew.
    """

    include: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = ()
    names: Literal["prefix", "suffix", "identity"] = "prefix"
    environment: str = "production"
    replication_factor: int | None = Field(default=None, ge=1, le=32767)
    when_lost: Literal["stop", "continue"] = "stop"
    when_recreated: Literal["stop", "continue"] = "stop"


class GroupsConfig(Config):
    """Whose places are carried, by regular expressions on groups' whole names, and how often."""

    include: tuple[str, ...] = (".*",)
    exclude: tuple[str, ...] = ()
    every_seconds: float = Field(default=0.5, ge=0.1, le=3600)


class MirrorConfig(Config):
    """`name` is the mirror's: processes that have the same name and target share the work. `data` is this
    process's folder; relative paths begin at the file's folder. `listen` (HOST:PORT of this machine, "" for
    none) serves `/metrics` and `/healthz`. `bytes_per_second` bounds what this process fetches; 0: nothing.
    """

    name: str
    source: ClusterConfig
    target: ClusterConfig
    topics: TopicsConfig
    groups: GroupsConfig = GroupsConfig()
    listen: str = ""
    bytes_per_second: int = Field(default=0, ge=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    _label = field_validator("name")(label)

    @field_validator("listen")
    @classmethod
    def _place(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        is_port = port.isdecimal() and 0 < int(port) <= _PORT_MAX
        if listen and (host not in {"127.0.0.1", "localhost", "[::1]"} or not is_port):
            raise ValueError(f"{listen!r} is no HOST:PORT of this machine; write 127.0.0.1:PORT")
        return listen

    @model_validator(mode="after")
    def _two_names(self) -> "MirrorConfig":
        if self.source.name == self.target.name:
            raise ValueError("source and target have the same name; each cluster has its own")
        return self
