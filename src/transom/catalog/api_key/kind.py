"""What an ApiKey is: everything about a key but the key."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from transom.catalog.rules import A_SET, LabelName, Time, distinct
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
    Field(min_length=1, max_length=SCOPES_MAX, json_schema_extra=A_SET),
    AfterValidator(distinct),
]


class ApiKeySpec(Spec):
    """A key to a tenant's apps: everything about it but the key itself, which is shown where it is made."""

    hash: str = Field(pattern=r"^[0-9a-f]{64}\z")
    """The key's SHA-256 in hexadecimal. Cannot be changed."""
    scopes: Scopes = Field(default_factory=lambda: [EVERYTHING])
    """What it may do: '*', 'app:*' or 'app:NAME', each with ':read' behind it for reading alone."""
    virtual_cluster: LabelName | None = None
    """The part of its tenant that it is for."""
    expires_at: Time | None = None
    """When it ends, with its offset (RFC 3339). Left out, it is good until it is revoked."""
    revoked: bool = False
    """Refuses every request with it. Never goes back."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """A limit of each gateway."""


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
    read_by="editor",
    columns=(
        Column("SCOPES", lambda key: ",".join(key.spec.get("scopes", []))),
        Column("EXPIRES", lambda key: str(key.spec.get("expiresAt", "never"))),
        Column("STATE", _state),
    ),
)
