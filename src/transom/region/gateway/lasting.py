"""Requests that last (a WebSocket, a long answer): whether they may go on is asked again while they do.

That a key has changed is heard at once, and noticed within a second; what changes by time alone (a key that
expires, knowledge that grows too old) by asking again every few seconds. What a new request would be refused
for ends those under way. That it cannot be told now ends none (invariant 10). Before it `decider`, which
tells; behind it `proxy`, which ends.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from math import inf

from transom.region.gateway.connection import Connection
from transom.region.gateway.decision import Decider
from transom.region.gateway.front import key_of
from transom.region.gateway.grants import Grant
from transom.region.gateway.http1 import Request
from transom.region.gateway.proxy import Exchange
from transom.runtime.clock import Clock
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

_LONG_SECONDS = 1.0
"""Younger requests are left alone: they are over before anybody could look."""
_EVERY_SECONDS = 0.5
_AGAIN_SECONDS = 5.0
_BREATH = 100
"""So many are looked at in one go: requests are served in between."""


@dataclass(slots=True)
class _Lasting:
    connection: Connection
    digest: bytes
    asked_at: float = -inf


class LastingRequests:
    """Watches over what the `connections` of one server have under way; at most one request each."""

    def __init__(self, decider: Decider, connections: Collection[Connection], clock: Clock) -> None:
        self._decider = decider
        self._connections = connections
        self._clock = clock
        self._known: dict[Request, _Lasting] = {}
        self._digests: set[bytes] = set()
        self._changed: set[bytes] = set()
        decider.listen(self._told)

    async def run(self) -> None:
        """Look at them until cancelled."""
        while True:
            await self._clock.sleep(_EVERY_SECONDS)
            await self._look()

    def _told(self, digest: bytes) -> None:
        # What is not watched yet is asked about when it is first seen, after this.
        if digest in self._digests:
            self._changed.add(digest)

    async def _look(self) -> None:
        now = self._clock.monotonic()
        changed, self._changed = self._changed, set()
        self._known = self._under_way(now)
        self._digests = {each.digest for each in self._known.values()}
        ended = 0
        for number, (request, each) in enumerate(self._known.items(), start=1):
            if each.digest in changed or now - each.asked_at >= _AGAIN_SECONDS:
                each.asked_at = now
                ended += await self._ask(each.connection, request)
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        if ended:
            log.info("requests under way were ended: they are not allowed any more", count=ended)

    def _under_way(self, now: float) -> dict[Request, _Lasting]:
        found: dict[Request, _Lasting] = {}
        for connection in self._connections:
            request = connection.current
            if (
                request is not None
                and now - request.began >= _LONG_SECONDS
                and _exchange(connection, request)
            ):
                known = self._known.get(request)
                found[request] = known or _Lasting(connection, sha256(key_of(request.found)).digest())
        return found

    async def _ask(self, connection: Connection, request: Request) -> bool:
        """Whether the request was ended."""
        asked = key_of(request.found), request.app, request.method
        decision = self._decider.decide_now(*asked) or await self._decider.decide(*asked)
        exchange = _exchange(connection, request)
        if exchange is None or isinstance(decision, Grant) or not decision.is_final:
            return False
        exchange.forbid(decision)
        return True


def _exchange(connection: Connection, request: Request) -> Exchange | None:
    """What forwards `request`, while it does."""
    handler = connection.handler
    return handler if connection.current is request and isinstance(handler, Exchange) else None
