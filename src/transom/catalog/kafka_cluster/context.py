"""What regions know of a Kafka cluster: what a service there needs to begin."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from transom.catalog.kafka_cluster.kind import KAFKA_CLUSTER, KafkaClusterSpec
from transom.catalog.tenant.context import spec_of
from transom.model.access import Name
from transom.model.contexts import ContextKind, regions_of_tenant
from transom.model.resources import Resource


class ClusterValue(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A cluster. `id` is the uid of its resource: one of the same name made later has another."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    name: Name
    tenant: Name
    bootstrap_servers: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]
    security: Literal["plaintext", "tls"]
    suspended: bool


class ClusterContext(ContextKind[ClusterValue]):
    """`cluster/TENANT/NAME`, in the regions it names, else in those of its tenant."""

    name = "cluster"
    value = ClusterValue
    subject = KAFKA_CLUSTER.name

    def build(self, subject: Resource, tenant: Resource | None) -> ClusterValue:
        """What the cluster says, and whether its tenant is suspended."""
        spec: KafkaClusterSpec = KAFKA_CLUSTER.parse(subject)
        return ClusterValue(
            id=subject.metadata.uid,
            name=subject.metadata.name,
            tenant=subject.metadata.namespace,
            bootstrap_servers=tuple(spec.bootstrap_servers),
            security=spec.security,
            suspended=spec_of(tenant, subject).suspended,
        )

    def regions(self, subject: Resource, tenant: Resource | None) -> frozenset[str]:
        """Its own, or its tenant's."""
        spec: KafkaClusterSpec = KAFKA_CLUSTER.parse(subject)
        return frozenset(spec.regions) if spec.regions else regions_of_tenant(tenant)

    def restricts(self, value: ClusterValue) -> bool:
        """Whether its tenant is suspended."""
        return value.suspended
