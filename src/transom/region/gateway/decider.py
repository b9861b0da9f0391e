"""Decides about requests by what the region knows: is the key good, may it do this, has its tenant that app.

Nothing here asks another region, and nothing takes a failure for an answer (invariant 10): 401 and 404 are
said only of what is known to be bad or, in a table that is complete, known not to be there. Whatever cannot
be told is 503.

A revocation is in the caches before the gateway reports its position (`contexts.table`), so it holds for
every later request. Before it `front`, behind it `proxy`.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Self

import msgspec
from prometheus_client import Counter

from transom.model.access import RouteValue
from transom.model.api_keys import KEY_CHARACTERS, is_well_formed
from transom.model.errors import SaturatedError
from transom.model.names import is_label
from transom.model.records import Record
from transom.model.version import Version
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable
from transom.region.gateway.decision import STALE, WITHHELD, Decision, Refusal
from transom.region.gateway.grants import Grant, Grants, Rights
from transom.runtime.clock import Clock
from transom.runtime.loading_cache import Absent, Found, LoadingCache
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger, is_told, metrics

log_event = get_logger(__name__)

_KEYS = "api_key/"
_ROUTES = "route/"
_FRESH_SECONDS = 600.0
"""Everything held is told of changes, so looking again is only a second pair of eyes."""
_ROUTES_MAX = 50_000
OPEN_MAX = 10_000
_RELIABLE_SECONDS = 1.0
"""Then the cache of routes is asked again: it keeps what is used, and looks it up when that is due."""
_COUNTER_BITS = 60
"""Enough for every counter that a version can have (`model.version`)."""

_MISSING = Refusal(401, None, "unauthorized", "send a key, as: Authorization: Bearer tsm_…")
_MALFORMED = Refusal(401, None, "invalid_token", "this is no key: its shape or its checksum is wrong")
_UNKNOWN = Refusal(401, None, "invalid_token", "no such key")
_GONE = Refusal(401, None, "invalid_token", "there is no such key here any more")
_REVOKED = Refusal(401, None, "invalid_token", "this key was revoked")
_UNREAD = Refusal(
    503, None, WITHHELD, "what was taken away from this key cannot be read here: this gateway is too old", 60
)
_EXPIRED = Refusal(401, None, "invalid_token", "this key has expired")
_BUSY = Refusal(503, None, "busy", "too much is being looked up; try again", 1)
_UNREADABLE = Refusal(503, None, "cannot_tell", "what this region knows cannot be read now; try again", 2)
_UNFINISHED = Refusal(
    503, None, "cannot_tell", "this region does not know all keys and apps yet; try again", 2
)

_failed = Counter(
    "transom_gateway_cannot_tell_total",
    "Requests answered 503 for want of knowledge",
    ["why"],
    registry=metrics,
)


class KeyDecider:
    """`Decider` over a table of contexts; use it as a context, so that nothing it began outlives it.

    `errors` counts look-ups that failed since the start.
    """

    def __init__(
        self,
        table: ContextTable,
        door: Door,
        clock: Clock,
        randomness: Randomness,
        *,
        cache_entries: int = 200_000,
    ) -> None:
        self.errors = 0
        self._table = table
        self._door = door
        self._clock = clock
        self._wall = clock.wall
        self._grants = Grants()
        self._keys: LoadingCache[bytes, Grant] = LoadingCache(
            self._load_key,
            clock=clock,
            randomness=randomness,
            max_entries=cache_entries,
            fresh_seconds=_FRESH_SECONDS,
        )
        self._routes: LoadingCache[str, bool] = LoadingCache(
            self._load_route,
            clock=clock,
            randomness=randomness,
            max_entries=_ROUTES_MAX,
            fresh_seconds=_FRESH_SECONDS,
        )
        # (rights, app, method): that they are allowed, and their tenant has that app, as far as one may
        # rely on it without looking again (seconds since 1970). Empty again when any route changes.
        self._open: dict[tuple[Rights, str, str], float] = {}
        self._peek = self._keys.peek
        self._peek_route = self._routes.peek
        self._listeners: list[Callable[[bytes], None]] = []
        table.listen(self._told)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._keys.aclose()
        await self._routes.aclose()

    def decide_now(self, key: bytes, app: str, method: str) -> Decision | None:
        """See `Decider.decide_now`."""
        if len(key) != KEY_CHARACTERS:
            return _MALFORMED if key else _MISSING
        digest = sha256(key).digest()
        grant = self._peek(digest)
        if grant is not None:
            now = self._wall()
            reliable_until = self._open.get((grant.rights, app, method), 0.0)
            if reliable_until > now < grant.expires_at and compare_digest(grant.digest, digest):
                return grant
            return self._judged(grant, digest, app, method, now)
        if not is_well_formed(key):
            return _MALFORMED
        if self._keys.known_absent(digest):
            return self._absent(_KEYS + digest.hex(), _UNKNOWN, complete=self._table.knows.complete)
        return None

    async def decide(self, key: bytes, app: str, method: str) -> Decision:
        """See `Decider.decide`."""
        try:
            decision = self.decide_now(key, app, method)
            return decision if decision is not None else await self._looked_up(key, app, method)
        except SaturatedError:
            _failed.labels("busy").inc()
            return _BUSY
        except Exception as error:  # noqa: BLE001  # no failure of ours is an answer about a key
            self.errors += 1
            _failed.labels("unreadable").inc()
            # A table that cannot be read fails every request: some lines, not a flood.
            if is_told(self.errors):
                told = f"{type(error).__name__}: {error}"
                log_event.warning("a decision cannot be made", error=told, count=self.errors)
            return _UNREADABLE

    def listen(self, told: Callable[[bytes], None]) -> None:
        """See `Decider.listen`; must not raise."""
        self._listeners.append(told)

    async def _looked_up(self, key: bytes, app: str, method: str) -> Decision:
        digest = sha256(key).digest()
        # Only what a table was before it was asked makes its answer one: it may become complete meanwhile.
        complete = self._table.knows.complete
        grant = await self._keys.get(digest)
        if grant is None:
            return self._absent(_KEYS + digest.hex(), _UNKNOWN, complete=complete)
        decision = self._judged(self._peek(digest) or grant, digest, app, method, self._wall())
        if decision is not None:
            return decision
        # It is a good key, so it was not deleted, and has rights.
        complete = self._table.knows.complete
        route = await self._routes.get(f"{_ROUTES}{grant.rights.tenant}/{app}")
        # What came meanwhile counts.
        newest = self._peek(digest) or grant
        decision = self._judged(newest, digest, app, method, self._wall())
        return decision or self._routed(newest, app, route=route, complete=complete)

    def _judged(  # noqa: C901, PLR0911  # a rule each
        self, grant: Grant, digest: bytes, app: str, method: str, now: float
    ) -> Decision | None:
        """The decision about a key that is held; None when the route must be looked up."""
        rights = grant.rights
        if not compare_digest(grant.digest, digest):
            return _GONE
        if grant.expires_at <= now:
            return _EXPIRED
        if rights.refusal:
            return _refused(grant)
        if rights.max_stale_seconds and (stale := self._too_old(rights.max_stale_seconds)):
            return stale
        if not rights.allow(app, method):
            return Refusal(403, grant, "insufficient_scope", "the scopes of this key do not allow this")
        if not app:
            return grant
        name = f"{_ROUTES}{rights.tenant}/{app}"
        route = self._peek_route(name)
        if route:
            if not rights.max_stale_seconds:
                self._remember(rights, app, method, now)
            return grant
        if route is None and is_label(app):
            if not self._routes.known_absent(name):
                return None
            return self._routed(grant, app, route=None, complete=self._table.knows.complete)
        return self._routed(grant, app, route=False, complete=True)

    def _remember(self, rights: Rights, app: str, method: str, now: float) -> None:
        """That `rights` allow this, so that the next request need not ask for every rule."""
        if len(self._open) >= OPEN_MAX:
            self._open.clear()  # what clients ask for must not fill the memory
        self._open[rights, app, method] = now + _RELIABLE_SECONDS

    def _routed(self, grant: Grant, app: str, *, route: bool | None, complete: bool) -> Decision:
        """The decision once it is known whether the tenant has the app: None is "not in the table"."""
        if route:
            return grant
        missing = Refusal(404, grant, "no_such_app", "this tenant has no such app here")
        if route is None:
            return self._absent(f"{_ROUTES}{grant.rights.tenant}/{app}", missing, complete=complete)
        return missing

    def _absent(self, name: str, otherwise: Refusal, *, complete: bool) -> Refusal:
        """`otherwise` where absence is an answer."""
        if complete and not self._door.doubts(name):
            return otherwise
        _failed.labels("unfinished").inc()
        return _UNFINISHED

    def _too_old(self, max_stale_seconds: float) -> Refusal | None:
        age = self._table.knows.age_seconds(self._clock)
        if age is not None and age <= max_stale_seconds:
            return None
        _failed.labels("stale").inc()
        wish = f"what this region knows is older than the {max_stale_seconds:g} s that this tenant allows"
        return Refusal(503, None, STALE, wish, 2)

    async def _load_key(self, digest: bytes) -> Found[Grant] | Absent:
        record = await self._table.get(_KEYS + digest.hex())
        if record is None:
            return Absent()
        return Found(self._grants.of(digest, record), _order(record.version))

    async def _load_route(self, name: str) -> Found[bool] | Absent:
        record = await self._table.get(name)
        if record is None:
            return Absent()
        return Found(_has_route(record), _order(record.version))

    def _told(self, records: Sequence[Record]) -> None:
        """Take notice of what the table has applied: the caches' only source of news."""
        for record in records:
            try:
                if record.key.startswith(_KEYS):
                    digest = bytes.fromhex(record.key[len(_KEYS) :])
                    # Of a million keys that arrive, a cache holds some: only those are worth decoding.
                    if self._keys.concerns(digest):
                        self._keys.push(digest, self._grants.of(digest, record), _order(record.version))
                    for listener in self._listeners:
                        listener(digest)
                elif record.key.startswith(_ROUTES):
                    self._open.clear()
                    self._routes.push(record.key, _has_route(record), _order(record.version))
            except Exception as error:  # noqa: BLE001  # one value must not keep the rest from arriving
                # The door let it in all the same: it changes nothing held here, and is told of.
                self._door.refuse(record.key, f"cannot be used here: {type(error).__name__}: {error}")


def _refused(grant: Grant) -> Refusal:
    """Why a key may do nothing now."""
    why = grant.rights.refusal
    if why == "suspended":
        return Refusal(403, grant, "tenant_suspended", "this tenant is suspended")
    return {"revoked": _REVOKED, "unread": _UNREAD}.get(why, _GONE)


def _order(version: Version) -> int:
    """A version as one number, which takes a third of the memory. All contexts have one origin, the hub."""
    return version.epoch << _COUNTER_BITS | version.counter


def _has_route(record: Record) -> bool:
    """Whether the tenant has the app. Raises `msgspec.MsgspecError` for a value that is none."""
    if not record.deleted:
        msgspec.json.decode(record.value, type=RouteValue)
    return not record.deleted
