"""What a Tenant is."""

from pydantic import Field

from transom.catalog.rules import RegionNames, references_to_regions
from transom.model.kinds import Column, Kind, Spec
from transom.model.resources import Resource


class TenantSpec(Spec):
    """A tenant: a title for people, whether it is served, where, how old knowledge may be, and how much.

    `suspended` refuses every request with one of its keys. `regions` are those that know of it; every region
    when it is left out. `max_stale_seconds` refuses its requests in a region that has heard nothing from the
    hub for so long; left out, a region serves for ever. `requests_per_second` is a limit of each gateway.
    """

    title: str = Field(default="", max_length=200)
    suspended: bool = False
    regions: RegionNames | None = None
    max_stale_seconds: float | None = Field(default=None, gt=0)
    requests_per_second: float | None = Field(default=None, gt=0)


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
    references=references_to_regions,
    columns=(
        Column("TITLE", lambda tenant: str(tenant.spec.get("title", ""))),
        Column("STATE", _state),
        Column("REGIONS", lambda tenant: ",".join(tenant.spec.get("regions", ["*"]))),
    ),
)
