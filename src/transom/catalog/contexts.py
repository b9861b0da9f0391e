"""Every context kind that ships, in one list; hubs and gateways add those of modules they are told of."""

from collections.abc import Iterable

from transom.catalog.api_key.context import ApiKeyContext
from transom.catalog.deployment.context import RouteContext
from transom.catalog.kafka_cluster.context import ClusterContext
from transom.catalog.tenant.context import TenantContext
from transom.model.contexts import ContextKinds, contexts_in

CONTEXTS = (TenantContext(), ApiKeyContext(), RouteContext(), ClusterContext())


def shipped_contexts(modules: Iterable[str] = ()) -> ContextKinds:
    """The context kinds that ship, and those listed as CONTEXTS in `modules`. Raises `InvalidError`."""
    return ContextKinds((*CONTEXTS, *contexts_in(modules)))
