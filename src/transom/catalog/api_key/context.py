"""What regions know of a key."""

from transom.catalog.api_key.kind import API_KEY, ApiKeySpec
from transom.catalog.tenant.context import spec_of
from transom.model.access import ApiKeyValue
from transom.model.contexts import ContextKind
from transom.model.resources import Resource
from transom.model.times import read_time


class ApiKeyContext(ContextKind[ApiKeyValue]):
    """`api_key/HASH`, in the regions of its tenant; the suspension of the tenant is written into it."""

    name = "api_key"
    value = ApiKeyValue
    subject = API_KEY.name
    deletes_for_good = True

    def key_of(self, subject: Resource) -> str:
        """By hash: that is what a gateway has when it looks a key up."""
        spec: ApiKeySpec = API_KEY.parse(subject)
        return f"{self.name}/{spec.hash}"

    def build(self, subject: Resource, tenant: Resource | None) -> ApiKeyValue:
        """What the key and its tenant say. A key whose deletion waits for somebody is revoked already."""
        spec: ApiKeySpec = API_KEY.parse(subject)
        of_tenant = spec_of(tenant, subject)
        return ApiKeyValue(
            name=subject.metadata.name,
            tenant=subject.metadata.namespace,
            scopes=tuple(spec.scopes),
            expires_at=None if spec.expires_at is None else read_time(spec.expires_at),
            revoked=spec.revoked or subject.deleting,
            suspended=of_tenant.suspended,
            virtual_cluster=spec.virtual_cluster,
            requests_per_second=spec.requests_per_second,
            tenant_requests_per_second=of_tenant.requests_per_second,
            max_stale_seconds=of_tenant.max_stale_seconds,
        )

    def restricts(self, value: ApiKeyValue) -> bool:
        """Whether it refuses every request: revoked, or its tenant suspended."""
        return value.revoked or value.suspended

    def is_final(self, value: ApiKeyValue) -> bool:
        """Whether it was revoked."""
        return value.revoked
