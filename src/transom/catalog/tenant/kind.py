"""What a Tenant is."""

from pydantic import Field

from transom.model.kinds import Column, Kind, Spec


class TenantSpec(Spec):
    """A tenant has a name and, for people, a title."""

    title: str = Field(default="", max_length=200)


TENANT = Kind(
    name="Tenant",
    plural="tenants",
    spec=TenantSpec,
    namespaced=False,
    guards="namespace",
    columns=(Column("TITLE", lambda tenant: str(tenant.spec.get("title", ""))),),
)
