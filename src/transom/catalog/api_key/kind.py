"""What an ApiKey is: everything about a key but the key."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from transom.catalog.rules import LabelName, Time, distinct
from transom.model.access import EVERYTHING, SCOPE_RULE, SCOPES_MAX, is_scope
from transom.model.errors import Problem
from transom.model.kinds import Column, Kind, Spec
from transom.model.resources import Resource


def _scope(text: str) -> str:
    if not is_scope(text):
        raise ValueError(f"{text!r} {SCOPE_RULE}")
    return text


Scopes = Annotated[
    list[Annotated[str, AfterValidator(_scope)]],
    Field(min_length=1, max_length=SCOPES_MAX),
    AfterValidator(distinct),
]


class ApiKeySpec(Spec):
    """`hash` is the key's SHA-256 in hexadecimal (`model.api_keys`), for good. `revoked` never goes back.

    `scopes` are what it may do (`model.access.allows`), `virtual_cluster` what part of its tenant it is for,
    `requests_per_second` a limit of each gateway.
    """

    hash: str = Field(pattern=r"^[0-9a-f]{64}\z")
    scopes: Scopes = Field(default_factory=lambda: [EVERYTHING])
    virtual_cluster: LabelName | None = None
    expires_at: Time | None = None
    revoked: bool = False
    requests_per_second: float | None = Field(default=None, gt=0)


def _check_update(held: Resource, wanted: Resource) -> Iterator[Problem]:
    if wanted.spec["hash"] != held.spec.get("hash"):
        yield Problem("spec.hash", "cannot be changed; make another key and revoke this one")
    if held.spec.get("revoked") and not wanted.spec["revoked"]:
        yield Problem("spec.revoked", "a revoked key stays revoked; make another key")


def _state(key: Resource) -> str:
    if key.deleting:
        return "Terminating"
    return "Revoked" if key.spec.get("revoked") else "Issued"


API_KEY = Kind(
    name="ApiKey",
    plural="apikeys",
    short_names=("key", "keys"),
    spec=ApiKeySpec,
    check_update=_check_update,
    columns=(
        Column("SCOPES", lambda key: ",".join(key.spec.get("scopes", []))),
        Column("EXPIRES", lambda key: str(key.spec.get("expiresAt", "never"))),
        Column("STATE", _state),
    ),
)
