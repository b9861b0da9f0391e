"""What regions know of a tenant."""

from transom.catalog.tenant.kind import TENANT, TenantSpec
from transom.model.access import TenantValue
from transom.model.contexts import ContextKind, regions_of_tenant
from transom.model.errors import InvalidError, Problem
from transom.model.resources import Resource


class TenantContext(ContextKind[TenantValue]):
    """`tenant/NAME`, in the regions the tenant is in."""

    name = "tenant"
    value = TenantValue
    subject = TENANT.name

    def key_of(self, subject: Resource) -> str:
        """By name."""
        return f"{self.name}/{subject.metadata.name}"

    def build(self, subject: Resource, tenant: Resource | None) -> TenantValue:
        """What its spec says."""
        del tenant  # a tenant is nobody's
        spec: TenantSpec = TENANT.parse(subject)
        return TenantValue(
            name=subject.metadata.name,
            suspended=spec.suspended,
            max_stale_seconds=spec.max_stale_seconds,
            requests_per_second=spec.requests_per_second,
        )

    def regions(self, subject: Resource, tenant: Resource | None) -> frozenset[str]:
        """Its own."""
        del tenant
        return regions_of_tenant(subject)

    def restricts(self, value: TenantValue) -> bool:
        """Whether it is suspended."""
        return value.suspended


def spec_of(tenant: Resource | None, subject: Resource) -> TenantSpec:
    """What the tenant of `subject` says. Raises `InvalidError`, also when there is none.

    A context made without its tenant would be one that nobody can suspend.
    """
    if tenant is None or tenant.metadata.name != subject.metadata.namespace:
        missing = Problem("metadata.namespace", f"tenant {subject.metadata.namespace!r} is not known")
        raise InvalidError(str(subject.key), [missing])
    return TENANT.parse(tenant)
