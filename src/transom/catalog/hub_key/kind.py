"""What a HubKey is: everything about a key to the hub but the key."""

from transom.catalog.keys import Hash, check_update, state
from transom.catalog.rules import Time
from transom.model.kinds import Column, Kind, Spec


class HubKeySpec(Spec):
    """A key to the hub: everything about it but the key itself. Who shows it is the user `key:NAME`."""

    hash: Hash
    """The key's SHA-256 in hexadecimal. Cannot be changed."""
    expires_at: Time | None = None
    """When it ends, with its offset (RFC 3339). Left out, it is good until it is revoked."""
    revoked: bool = False
    """Refuses every request with it. Never goes back."""


HUB_KEY = Kind(
    name="HubKey",
    plural="hubkeys",
    spec=HubKeySpec,
    namespaced=False,
    check_update=check_update,
    read_by="operator",
    write_by="operator",
    columns=(
        Column("EXPIRES", lambda key: str(key.spec.get("expiresAt", "never"))),
        Column("STATE", state),
    ),
)
