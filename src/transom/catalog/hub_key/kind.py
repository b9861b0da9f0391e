"""What a HubKey is: everything about a key to the hub but the key."""

from collections.abc import Iterator

from pydantic import Field

from transom.catalog.rules import Time
from transom.model.errors import Problem
from transom.model.kinds import Column, Kind, Spec
from transom.model.resources import Resource


class HubKeySpec(Spec):
    """A key to the hub: everything about it but the key itself. Who shows it is the user `key:NAME`."""

    hash: str = Field(pattern=r"^[0-9a-f]{64}\z")
    """The key's SHA-256 in hexadecimal. Cannot be changed."""
    expires_at: Time | None = None
    """When it ends, with its offset (RFC 3339). Left out, it is good until it is revoked."""
    revoked: bool = False
    """Refuses every request with it. Never goes back."""


def _check_update(held: Resource, wanted: Resource) -> Iterator[Problem]:
    if wanted.spec["hash"] != held.spec.get("hash"):
        yield Problem("spec.hash", "cannot be changed; make another key and revoke this one")
    if held.spec.get("revoked") and not wanted.spec["revoked"]:
        yield Problem("spec.revoked", "a revoked key stays revoked; make another key")


def _state(key: Resource) -> str:
    if key.deleting:
        return "Terminating"
    return "Revoked" if key.spec.get("revoked") else "Issued"


HUB_KEY = Kind(
    name="HubKey",
    plural="hubkeys",
    spec=HubKeySpec,
    namespaced=False,
    check_update=_check_update,
    read_by="operator",
    write_by="operator",
    columns=(
        Column("EXPIRES", lambda key: str(key.spec.get("expiresAt", "never"))),
        Column("STATE", _state),
    ),
)
