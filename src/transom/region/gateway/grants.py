"""What a gateway holds in memory of a key: small, because there are many, and ready to be judged.

Keys of one tenant are mostly alike, so what they share stands in one `Rights`. Next on the data's way:
`decider`.
"""

import math
from collections.abc import Callable
from weakref import WeakValueDictionary

import msgspec

from transom.model.access import EVERYTHING, ApiKeyValue, allows
from transom.model.names import LABEL_CHARACTERS_MAX
from transom.model.records import Record
from transom.region.gateway.decision import Decision, Identity

_decode = msgspec.json.Decoder(ApiKeyValue).decode
_new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_ANSWERS_MAX = 256

GONE = Decision(401, None, "invalid_token", "there is no such key here any more")
REVOKED = Decision(401, None, "invalid_token", "this key was revoked")
SUSPENDED = "tenant_suspended"


class Rights:
    """What keys may do, shared by all that may do the same. `refusal` is why they may do nothing now."""

    __slots__ = (
        "__weakref__", "_answers", "everything", "key_limit", "max_stale_seconds", "refusal", "scopes",
        "tenant", "tenant_limit", "virtual_cluster",
    )  # fmt: skip

    def __init__(self, value: ApiKeyValue) -> None:
        self.tenant = value.tenant
        self.scopes = value.scopes
        self.virtual_cluster = value.virtual_cluster or ""
        self.key_limit = value.requests_per_second or 0.0
        self.tenant_limit = value.tenant_requests_per_second or 0.0
        self.max_stale_seconds = value.max_stale_seconds or 0.0
        self.everything = EVERYTHING in value.scopes
        self._answers: dict[tuple[str, str], bool] = {}
        self.refusal: Callable[[Identity], Decision] | None = None
        if value.revoked:
            self.refusal = _revoked
        elif value.suspended:
            self.refusal = _suspended

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


class Grant(msgspec.Struct, frozen=True, gc=False):
    """One key: its hash, its name (as bytes, which are smaller), until when it is good (seconds since 1970),
    and its rights; None for a key that was deleted.
    """

    digest: bytes
    name: bytes
    expires_at: float
    rights: Rights | None

    def identity(self, rights: Rights) -> Identity:
        """Whose requests they are."""
        # Made with every decision: this way in half the time.
        return _new(
            Identity,
            (
                rights.tenant,
                self.name.decode(),
                rights.scopes,
                rights.virtual_cluster,
                rights.key_limit,
                rights.tenant_limit,
            ),
        )

    def good(self, rights: Rights) -> Decision:
        """That the request may go on."""
        return _new(Decision, (200, self.identity(rights), "", "", 0))


class Grants:
    """Makes grants of records."""

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[object, ...], Rights] = WeakValueDictionary()

    def of(self, digest: bytes, record: Record) -> Grant:
        """The grant in a record of the key with this hash. Raises `msgspec.MsgspecError`."""
        if record.deleted:
            return Grant(digest, b"", math.inf, None)
        value = _decode(record.value)
        expires_at = math.inf if value.expires_at is None else value.expires_at
        return Grant(digest, value.name.encode(), expires_at, self._rights(value))

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
            rights = self._shared[alike] = Rights(value)
        return rights


def _revoked(_identity: Identity) -> Decision:
    return REVOKED


def _suspended(identity: Identity) -> Decision:
    return Decision(403, identity, SUSPENDED, "this tenant is suspended")
