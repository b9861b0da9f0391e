"""What a Tenant is."""

from pydantic import Field

from transom.catalog.rules import RegionNames
from transom.model.kinds import Column, Kind, Spec
from transom.model.regional import to_regions
from transom.model.resources import Resource


class TenantSpec(Spec):
    """Whose something is: a team or a customer, whether it is served, where, and how much."""

    title: str = Field(default="", max_length=200)
    """What it is called, for people."""
    suspended: bool = False
    """Refuses every request with one of its keys."""
    regions: RegionNames | None = None
    """The regions that know of it; every region when it is left out."""
    max_stale_seconds: float | None = Field(default=None, gt=0)
    """Refuses its requests in a region that has heard nothing from the hub for so long. Left out, a region
    serves for ever.
    """
    requests_per_second: float | None = Field(default=None, gt=0)
    """A limit of each gateway."""


def _state(tenant: Resource) -> str:
    if tenant.deleting:
        return "Terminating"
    return "Suspended" if tenant.spec.get("suspended") else "Active"


TENANT = Kind(
    name="Tenant",
    plural="tenants",
    spec=TenantSpec,
    namespaced=False,
    guards="namespace",
    write_by="operator",
    references=to_regions,
    columns=(
        Column("TITLE", lambda tenant: str(tenant.spec.get("title", ""))),
        Column("STATE", _state),
        Column("REGIONS", lambda tenant: ",".join(tenant.spec.get("regions", ["*"]))),
    ),
)
