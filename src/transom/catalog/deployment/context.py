"""What regions know of an app: that a tenant has it there."""

from transom.catalog.deployment.kind import DEPLOYMENT, DeploymentSpec
from transom.model.access import RouteValue
from transom.model.contexts import ContextKind
from transom.model.resources import Resource


class RouteContext(ContextKind[RouteValue]):
    """`route/TENANT/DEPLOYMENT`, in the regions of the Deployment. Its instances the region itself knows."""

    name = "route"
    value = RouteValue
    subject = DEPLOYMENT.name

    def build(self, subject: Resource, tenant: Resource | None) -> RouteValue:
        """The tenant, and the name under which instances report (the Deployment's)."""
        del tenant  # its keys say whether it is suspended
        DEPLOYMENT.parse(subject)  # a spec that lost its regions takes the app out of none
        return RouteValue(tenant=subject.metadata.namespace, app=subject.metadata.name)

    def regions(self, subject: Resource, tenant: Resource | None) -> frozenset[str]:
        """Where it is deployed."""
        del tenant
        spec: DeploymentSpec = DEPLOYMENT.parse(subject)
        return frozenset(spec.regions)
