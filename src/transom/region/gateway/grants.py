"""What a gateway holds in memory of a key: small, as there are many, and ready to be judged and answered.

Keys of one tenant are mostly alike, so what they share stands in one `Rights`, what an allowed request is
answered with among it. Next on the data's way: `decider`.
"""

import math
from typing import ClassVar
from weakref import WeakValueDictionary

import msgspec

from transom.model.access import EVERYTHING, ApiKeyValue, allows
from transom.model.contexts import takes_rights
from transom.model.errors import UNREADABLE
from transom.model.names import LABEL_CHARACTERS_MAX
from transom.model.records import Record
from transom.region.gateway.limits import Bucket, Rate

_decode = msgspec.json.Decoder(ApiKeyValue).decode
_ANSWERS_MAX = 256


def _shown(text: str) -> str:
    if not text.isprintable():
        raise ValueError("an identity holds characters that no header may hold")
    return text


class Rights:
    """What keys may do, shared by all that may do the same. `refusal` is why they may do nothing now: "gone",
    "revoked", "suspended" or "unread" (rights were taken away, and this release cannot read which); empty
    when they may.

    `lines` are the identity headers as far as they are alike, up to where the key's name follows: all four
    always, so that proxies overwrite what a client sent under these names. Raises `ValueError` when a value
    holds what no header may.
    """

    __slots__ = (
        "__weakref__", "_answers", "everything", "key_rate", "limited", "lines", "max_stale_seconds",
        "refusal", "scopes", "tenant", "tenant_rate", "virtual_cluster",
    )  # fmt: skip

    def __init__(
        self,
        tenant: str,
        scopes: tuple[str, ...],
        virtual_cluster: str = "",
        *,
        key_rate: Rate | None = None,
        tenant_rate: tuple[Rate, Bucket] | None = None,
        max_stale_seconds: float = 0.0,
        refusal: str = "",
    ) -> None:
        listed = " ".join(scopes)
        self.tenant = tenant
        self.scopes = scopes
        self.virtual_cluster = virtual_cluster
        self.key_rate = key_rate
        self.tenant_rate = tenant_rate
        self.limited = key_rate is not None or tenant_rate is not None
        self.max_stale_seconds = max_stale_seconds
        self.everything = EVERYTHING in scopes
        self.refusal = refusal
        self.lines = (
            f"x-transom-tenant: {_shown(tenant)}\r\nx-transom-scopes: {_shown(listed)}\r\n"
            f"x-transom-virtual-cluster: {_shown(virtual_cluster)}\r\nx-transom-key: "
        ).encode()
        self._answers: dict[tuple[str, str], bool] = {}

    def allow(self, app: str, method: str) -> bool:
        """Whether the scopes do; see `model.access.allows`."""
        if self.everything:
            return True
        if len(app) > LABEL_CHARACTERS_MAX:
            return allows(self.scopes, app, method)  # no app is called so; not worth remembering
        answer = self._answers.get((app, method))
        if answer is None:
            if len(self._answers) >= _ANSWERS_MAX:
                self._answers.clear()  # what clients ask for must not fill the memory
            answer = self._answers[app, method] = allows(self.scopes, app, method)
        return answer


class Grant(msgspec.Struct, gc=False, eq=False):
    """One key: its rights, its name (as bytes, which are smaller), its hash, and until when it is good
    (seconds since 1970). Also the answer about a request that it allows, and whose request that is.

    `full_at` is the key's own bucket, as `limits.Bucket`; a change of the key begins a new one.
    """

    status: ClassVar[int] = 200

    rights: Rights
    name: bytes
    digest: bytes = b""
    expires_at: float = math.inf
    full_at: float = 0.0

    @property
    def key(self) -> str:
        """The key's name."""
        return self.name.decode()

    @property
    def lines(self) -> bytes:
        """The identity headers."""
        return b"%s%s\r\n" % (self.rights.lines, self.name)

    def take(self, now: float) -> float:
        """Take a token of the key and one of its tenant, where they have a rate; 0.0, or the seconds until
        both have one.

        Nothing is taken unless both have one, so that a tenant at its limit does not use up its keys' own.
        """
        own, shared = self.rights.key_rate, self.rights.tenant_rate
        wait = own_full_at = shared_full_at = 0.0
        if own is not None:
            own_full_at = (max(now, self.full_at)) + own.token_seconds
            wait = own_full_at - now - own.bucket_seconds
        if shared is not None:
            rate, bucket = shared
            shared_full_at = (max(now, bucket.full_at)) + rate.token_seconds
            wait = max(wait, shared_full_at - now - rate.bucket_seconds)
        if wait > 0:
            return wait
        if own is not None:
            self.full_at = own_full_at
        if shared is not None:
            shared[1].full_at = shared_full_at
        return 0.0


def grant_of(rights: Rights, name: str, digest: bytes = b"", expires_at: float = math.inf) -> Grant:
    """A grant to the key `name`. Raises `ValueError` when the name holds what no header may."""
    return Grant(rights, _shown(name).encode(), digest, expires_at)


_GONE = Rights("", (), refusal="gone")
_UNREAD = Rights("", (), refusal="unread")


class Grants:
    """Makes grants of records."""

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[object, ...], Rights] = WeakValueDictionary()
        self._buckets: WeakValueDictionary[str, Bucket] = WeakValueDictionary()

    def of(self, digest: bytes, record: Record) -> Grant:
        """The grant in a record of the key with this hash. Raises `ValueError` and what `UNREADABLE` has."""
        if record.deleted:
            return Grant(_GONE, b"", digest)
        try:
            value = _decode(record.value)
        except UNREADABLE:
            if not takes_rights(record.value):
                raise
            return Grant(_UNREAD, b"", digest)
        if not (value.revoked or value.suspended) and takes_rights(record.value):
            return Grant(_UNREAD, b"", digest)
        expires_at = math.inf if value.expires_at is None else value.expires_at
        return grant_of(self._rights(value), value.name, digest, expires_at)

    def _rights(self, value: ApiKeyValue) -> Rights:
        alike = (
            value.tenant,
            value.scopes,
            value.virtual_cluster,
            value.requests_per_second,
            value.tenant_requests_per_second,
            value.max_stale_seconds,
            value.revoked,
            value.suspended,
        )
        rights = self._shared.get(alike)
        if rights is None:
            rights = self._shared[alike] = self._made(value)
        return rights

    def _made(self, value: ApiKeyValue) -> Rights:
        of_key, of_tenant = value.requests_per_second, value.tenant_requests_per_second
        bucket = self._buckets.get(value.tenant)
        if bucket is None:
            bucket = self._buckets[value.tenant] = Bucket()
        return Rights(
            value.tenant,
            value.scopes,
            value.virtual_cluster or "",
            key_rate=Rate(of_key) if of_key else None,
            tenant_rate=(Rate(of_tenant), bucket) if of_tenant else None,
            max_stale_seconds=value.max_stale_seconds or 0.0,
            refusal="revoked" if value.revoked else "suspended" if value.suspended else "",
        )
