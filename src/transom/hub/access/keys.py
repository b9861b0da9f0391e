"""The keys to the hub itself, by their hashes; no I/O.

Only hashes are held, and looked up by: a look-up by hash tells nothing of a key through its time, and what is
found is compared in constant time all the same. `table` keeps it up to date.
"""

from hmac import compare_digest
from math import inf

import msgspec

from transom.model.api_keys import hash_of
from transom.model.names import Key
from transom.model.resources import Resource
from transom.model.times import read_time


class HeldKey(msgspec.Struct, frozen=True):
    """A key that may be good: until `expires_at` (seconds since 1970)."""

    name: str
    digest: bytes
    expires_at: float


class HubKeys:
    """Every HubKey that is not revoked."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, dict[Key, HeldKey]] = {}
        self._digests: dict[Key, bytes] = {}

    def put(self, key: Resource) -> None:
        """A HubKey is there, in the place of what it was. Raises `ValueError` for a spec that is none."""
        self.drop(key.key)
        if key.spec["revoked"] or key.deleting:
            return
        expires = key.spec.get("expiresAt")
        digest = bytes.fromhex(key.spec["hash"])
        held = HeldKey(key.metadata.name, digest, inf if expires is None else read_time(expires))
        self._by_digest.setdefault(digest, {})[key.key] = held
        self._digests[key.key] = digest

    def drop(self, key: Key) -> None:
        """A HubKey is gone."""
        digest = self._digests.pop(key, None)
        if digest is not None:
            del self._by_digest[digest][key]
            if not self._by_digest[digest]:
                del self._by_digest[digest]

    def named(self, shown: bytes, now: float) -> str | None:
        """The name of the HubKey that `shown` is; None when it is none that is good `now` (wall seconds).

        One hash under two names is nobody: it cannot be told whose rights are meant.
        """
        digest = hash_of(shown)
        found = list(self._by_digest.get(digest, {}).values())
        if len(found) != 1 or not compare_digest(found[0].digest, digest) or found[0].expires_at <= now:
            return None
        return found[0].name
