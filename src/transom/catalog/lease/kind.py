"""What a Lease is: the record by which the processes of a client agree on who of them leads.

https://kubernetes.io/docs/concepts/architecture/leases/. It is renewed every few seconds, so it is fleeting.
"""

from pydantic import Field

from transom.catalog.rules import MicroTime
from transom.model.kinds import Column, Fleeting, Kind, Spec


class LeaseSpec(Spec):
    """Who holds it, since when, and until when others leave it alone."""

    holder_identity: str | None = Field(default=None, max_length=1024)
    """Who holds it; empty when nobody does."""
    lease_duration_seconds: int | None = Field(default=None, gt=0, le=2**31 - 1)
    """How long others wait after `renewTime` before they take it."""
    acquire_time: MicroTime | None = None
    """When it was taken by whoever holds it."""
    renew_time: MicroTime | None = None
    """When it was renewed last."""
    lease_transitions: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """How often its holder changed."""
    strategy: str | None = Field(default=None, max_length=256)
    """How a coordinated election picks its leader."""
    preferred_holder: str | None = Field(default=None, max_length=1024)
    """To whom its holder is asked to give it."""


LEASE = Kind(
    name="Lease",
    plural="leases",
    group="coordination.k8s.io",
    spec=LeaseSpec,
    dotted_names=True,
    fleeting=Fleeting(),
    columns=(Column("HOLDER", lambda lease: str(lease.spec.get("holderIdentity", ""))),),
)
