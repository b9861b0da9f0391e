"""Every kind that ships, in one catalog."""

from collections.abc import Iterable

from transom.catalog.api_key.kind import API_KEY
from transom.catalog.context_control.kind import CONTEXT_FREEZE, CONTEXT_OVERRIDE
from transom.catalog.deployment.kind import DEPLOYMENT, REGIONAL_DEPLOYMENT
from transom.catalog.event.kind import EVENT, GROUP_EVENT
from transom.catalog.hub_key.kind import HUB_KEY
from transom.catalog.instance.kind import INSTANCE
from transom.catalog.kafka_cluster.kind import KAFKA_CLUSTER
from transom.catalog.lease.kind import LEASE
from transom.catalog.namespace.kind import NAMESPACE
from transom.catalog.quota.kind import QUOTA
from transom.catalog.region.kind import REGION
from transom.catalog.role_binding.kind import HUB_ROLE_BINDING, ROLE_BINDING
from transom.catalog.tenant.kind import TENANT
from transom.model.kinds import Catalog, Kind


def shipped(own: Iterable[Kind] = ()) -> Catalog:
    """The catalog of the kinds that ship, and of those that somebody adds. Raises `InvalidError`."""
    return Catalog(
        (
            TENANT,
            QUOTA,
            REGION,
            API_KEY,
            KAFKA_CLUSTER,
            DEPLOYMENT,
            REGIONAL_DEPLOYMENT,
            INSTANCE,
            CONTEXT_FREEZE,
            CONTEXT_OVERRIDE,
            NAMESPACE,
            LEASE,
            EVENT,
            GROUP_EVENT,
            HUB_KEY,
            ROLE_BINDING,
            HUB_ROLE_BINDING,
            *own,
        )
    )
