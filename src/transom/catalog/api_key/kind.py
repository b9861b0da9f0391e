"""What an ApiKey is: everything about a key but the key."""

from typing import Annotated

from pydantic import AfterValidator, Field

from transom.catalog.keys import Hash, check_update, state
from transom.catalog.rules import A_SET, LabelName, Time, distinct
from transom.model.access import EVERYTHING, SCOPE_RULE, SCOPES_MAX, is_scope
from transom.model.kinds import Column, Kind, Spec


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

    hash: Hash
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


API_KEY = Kind(
    name="ApiKey",
    plural="apikeys",
    short_names=("key", "keys"),
    spec=ApiKeySpec,
    check_update=check_update,
    read_by="editor",
    columns=(
        Column("SCOPES", lambda key: ",".join(key.spec.get("scopes", []))),
        Column("EXPIRES", lambda key: str(key.spec.get("expiresAt", "never"))),
        Column("STATE", state),
    ),
)
