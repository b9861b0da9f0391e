"""What a Quota is."""

from typing import Annotated

from pydantic import AfterValidator, Field

from transom.catalog.statuses import Status
from transom.model.kinds import Column, Kind, Spec
from transom.model.quotas import LIMIT_MAX, Measure
from transom.model.resources import Resource

STORE = "store"
"""Who writes the status of a Quota: the store itself, in the transaction that changes what is used."""


def _measure(name: str) -> str:
    return str(Measure.parse(name))


class QuotaSpec(Spec):
    """The most that a tenant may have. Several quotas of a tenant hold at once.

    What is there already stays, also when a limit is below it.
    """

    hard: dict[Annotated[str, AfterValidator(_measure)], Annotated[int, Field(ge=0, le=LIMIT_MAX)]] = Field(
        min_length=1, max_length=100
    )
    """Limits by what they limit: `count/PLURAL.GROUP`, the number of resources of a kind, or
    `sum/PLURAL.GROUP/spec.FIELD`, the sum of a field over them: of a number, or of the length of a list or
    map.
    """


class QuotaStatus(Status):
    """What is limited, and what is used of it, as of the revision that the status has."""

    hard: dict[str, int]
    """The limits, as they hold."""
    used: dict[str, int]
    """What is used of each."""


def _limits(quota: Resource) -> dict[str, int]:
    return quota.spec["hard"]


def _told(quota: Resource) -> str:
    """Used and hard of each, as `kubectl get resourcequota` shows them."""
    used = quota.status.get("used", {})
    return ", ".join(f"{name}: {used.get(name, '?')}/{most}" for name, most in sorted(_limits(quota).items()))


QUOTA = Kind(
    name="Quota",
    plural="quotas",
    spec=QuotaSpec,
    status=QuotaStatus,
    status_owner=STORE,
    dotted_names=True,
    limits=_limits,
    write_by="operator",
    columns=(Column("USED", _told),),
)
