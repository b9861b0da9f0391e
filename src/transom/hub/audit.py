"""The audit, as the hub gives it away: lines of the chain, and where it ends, signed with the hub's key.

A head that is kept elsewhere is what a rewritten store cannot take back: every export ends with one, and one
may be asked for at any time. Next on the data's way: `hub.api.audit`; `client.audit` verifies.
"""

import base64
import hashlib
from collections.abc import AsyncGenerator
from functools import partial

from transom.hub import store_audit
from transom.hub.store import Store
from transom.hub.store_audit import AuditPage, Place
from transom.model.audit import Head, Scope, SignedHead, head_line, scope_line, signed
from transom.runtime.clock import Clock, rfc3339, timestamp
from transom.runtime.signing import Signer

_PAGE = 500


class _Given:
    """The lines of one export that were given away: how many, and the digest of their bytes."""

    def __init__(self) -> None:
        self.changes = self.shown = self.purged = 0
        self.lines = hashlib.sha256()

    def add(self, page: AuditPage) -> None:
        """Some more were."""
        self.changes += page.changes
        self.shown += page.shown
        self.purged += page.purged
        self.lines.update(page.lines)


class Audit:
    """The audit of one store."""

    def __init__(self, store: Store, signer: Signer, clock: Clock) -> None:
        self._store = store
        self._signer = signer
        self._clock = clock

    async def head(self, revision: int | None = None) -> SignedHead:
        """Where the chain was at `revision`, or is now: an export without changes, signed.

        Raises `ExpiredError` when that is forgotten.
        """
        _, newest = await self._store.standing()
        upto = newest if revision is None else min(revision, newest)
        place = await self._store.read(partial(store_audit.place_at, revision=upto))
        scope = Scope(after=place.revision, base=place.hash.hex())
        return self._signed(scope, place, _Given())

    async def since(self, revision: int) -> Place:
        """The place behind `revision`. Raises `ExpiredError` when that is forgotten."""
        return await self._store.read(partial(store_audit.place_at, revision=revision))

    async def since_time(self, seconds: float) -> Place:
        """The place before the first change that is kept and not older than `seconds` since 1970."""
        return await self._store.read(partial(store_audit.place_before, time=rfc3339(seconds)))

    async def since_beginning(self) -> Place:
        """The place before all that is kept."""
        return await self._store.read(store_audit.begins)

    async def export(self, begin: Place, tenant: str = "") -> AsyncGenerator[bytes]:
        """The lines after `begin`, up to the newest revision of now, some at a time; see `model.audit`.

        Raises `ExpiredError` when they are forgotten meanwhile: then the end is missing.
        """
        _, upto = await self._store.standing()
        scope = Scope(after=begin.revision, base=begin.hash.hex(), tenant=tenant)
        yield scope_line(scope)
        end, given, more = begin, _Given(), True
        while more:
            page = await self._store.read(
                partial(store_audit.page, after=end.revision, upto=upto, most=_PAGE, tenant=tenant)
            )
            end, more = page.end, page.more
            given.add(page)
            yield page.lines
        yield head_line(self._signed(scope, end, given))

    def _signed(self, scope: Scope, end: Place, given: _Given) -> SignedHead:
        head = Head(
            scope=scope,
            revision=end.revision,
            hash=end.hash.hex(),
            changes=given.changes,
            shown=given.shown,
            purged=given.purged,
            lines=given.lines.hexdigest(),
            at=timestamp(self._clock),
        )
        return signed(head, self._sign, self._signer.key_id, self._signer.public_text)

    def _sign(self, data: bytes) -> str:
        return base64.b64encode(self._signer.sign(data)).decode()
