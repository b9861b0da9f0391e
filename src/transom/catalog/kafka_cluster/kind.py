"""What a KafkaCluster is."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from transom.catalog.rules import A_SET, RegionNames, distinct
from transom.model.kinds import Column, Kind, Spec
from transom.model.regional import to_regions

SERVERS_MAX = 64
_PORT_MAX = 65_535


def _server(text: str) -> str:
    rule = f"{text!r} must be HOST:PORT, an IPv6 address in brackets"
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(rule) from None
    if not parts.hostname or not port or parts.netloc != text or "@" in text or not text.isascii():
        raise ValueError(rule)
    return text


Servers = Annotated[
    list[Annotated[str, Field(max_length=261, pattern=r"^\S+\z"), AfterValidator(_server)]],
    Field(min_length=1, max_length=SERVERS_MAX, json_schema_extra=A_SET),
    AfterValidator(distinct),
]


class KafkaClusterSpec(Spec):
    """Where a cluster of Apache Kafka is and how to speak to it."""

    title: str = Field(default="", max_length=200)
    """What it is called, for people."""
    bootstrap_servers: Servers
    """Where clients ask first: HOST:PORT, an IPv6 address in brackets."""
    security: Literal["plaintext", "tls"] = "tls"
    """How clients speak to it."""
    regions: RegionNames | None = None
    """The regions that know of it; its tenant's when it is left out."""


KAFKA_CLUSTER = Kind(
    name="KafkaCluster",
    plural="kafkaclusters",
    short_names=("kc",),
    spec=KafkaClusterSpec,
    references=to_regions,
    columns=(
        Column("TITLE", lambda cluster: str(cluster.spec.get("title", ""))),
        Column("SECURITY", lambda cluster: str(cluster.spec.get("security", ""))),
        Column("SERVERS", lambda cluster: ",".join(cluster.spec.get("bootstrapServers", []))),
    ),
)
