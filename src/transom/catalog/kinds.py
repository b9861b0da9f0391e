"""Every kind that ships, in one catalog."""

from transom.catalog.deployment.kind import DEPLOYMENT, REGIONAL_DEPLOYMENT
from transom.catalog.instance.kind import INSTANCE
from transom.catalog.region.kind import REGION
from transom.catalog.tenant.kind import TENANT
from transom.model.kinds import Catalog


def shipped() -> Catalog:
    """The catalog of the kinds that ship."""
    return Catalog((TENANT, REGION, DEPLOYMENT, REGIONAL_DEPLOYMENT, INSTANCE))
