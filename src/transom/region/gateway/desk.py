"""What happens to each request: it is judged, forwarded, or answered here. Next on the data's way: `proxy`.

The way of a request whose key is known is synchronous from its last byte to its answer: no task is made,
and nothing is looked up but what is at hand.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from math import ceil, inf
from typing import Any

import msgspec

from transom.region.gateway.access_log import PATH_BYTES_MAX, AccessLog
from transom.region.gateway.connection import Connection
from transom.region.gateway.crowd import Crowd
from transom.region.gateway.decision import Decider, Decision, Endpoints, Refusal
from transom.region.gateway.front import (
    APPS,
    DECIDE,
    RefusedError,
    asked_of,
    asked_plainly,
    key_of,
    target_of,
)
from transom.region.gateway.grants import Grant
from transom.region.gateway.handler import Waiting
from transom.region.gateway.http1 import Request, own_head
from transom.region.gateway.limits import GatewayLimits
from transom.region.gateway.proxy import Exchange
from transom.region.gateway.stats import Stats
from transom.region.gateway.upstream import Upstreams
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

_OK = 200
_UNAVAILABLE = 503
_PATH_FROM, _PATH_TO = len(DECIDE), len(DECIDE) + PATH_BYTES_MAX
_ALLOWED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"
_CANNOT_TELL = Refusal(_UNAVAILABLE, None, "unavailable", "cannot tell now whether this is allowed", 1)
_REFUSED_EXTRA = 256  # connections beyond the limit that are told so, before more are simply closed

Then = Callable[[Connection, Request, Grant], None]
"""What follows when a request is allowed."""


class GatewayDesk:
    """Takes requests from all connections of one gateway."""

    def __init__(
        self,
        decider: Decider,
        endpoints: Endpoints,
        *,
        clock: Clock,
        randomness: Randomness,
        limits: GatewayLimits,
        access_log: AccessLog | None,
        knows: Callable[[], str],
        health: Callable[[], tuple[int, dict[str, Any]]],
    ) -> None:
        self.limits = limits
        self.now = clock.monotonic()
        self.date = b""
        self.wall_offset = clock.wall() - clock.monotonic()
        self.scheme = b"http"
        self.draining = False
        self.drained = asyncio.Event()
        self.drained_by = inf
        self.knows = knows
        self.upstreams = Upstreams(endpoints, limits, randomness)
        self.stats = Stats(lambda: access_log.dropped if access_log is not None else 0)
        self.connections: set[Connection] = set()
        self._crowd = Crowd(limits.connections_max, limits.fronts)
        self.group: asyncio.TaskGroup | None = None
        self._decider = decider
        self._clock = clock
        self._monotonic = clock.monotonic
        self._access_log = access_log
        self._health = health

    # Connections

    def arrived(self, connection: Connection) -> bool:
        """A connection has been made; False when it is one too many."""
        accepted = not self.draining and self._crowd.admit(connection, self.now)
        if not accepted:
            self.stats.refused_connections += 1
        if accepted or len(self.connections) < len(self._crowd) + _REFUSED_EXTRA:
            self.connections.add(connection)
        else:
            connection.transport.abort()
        self.stats.connections = len(self.connections)
        return accepted

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self._crowd.left(connection)
        self.stats.connections = len(self.connections)
        if self.draining and not self.connections:
            self.drained.set()

    def ended(self, connection: Connection, request: Request) -> None:
        """A request has had its answer, or never will (its status is 0 then, or that of half an answer)."""
        began = request.began
        seconds = self._monotonic() - began if began else 0.0
        self.stats.note(request.route, request.status, seconds)
        if self._access_log is not None:
            path = request.path
            self._access_log.add(
                (
                    (began or self._monotonic()) + self.wall_offset,
                    seconds,
                    connection.client,
                    request.method,
                    request.route,
                    request.app,
                    request.target[_PATH_FROM:_PATH_TO] if path is None else path[:PATH_BYTES_MAX],
                    request.status,
                    request.grant,
                    request.instance,
                    request.body_bytes,
                    request.sent_bytes,
                )
            )

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run what `work` returns in the server's task group."""
        assert self.group is not None, "connections exist only while the server runs"  # noqa: S101
        return self.group.create_task(_on_its_own(work))

    # Requests

    def begin(self, connection: Connection, request: Request) -> None:
        """It is this request's turn."""
        request.began = self._monotonic()
        target = request.target
        try:
            plain = asked_plainly(target)
            if plain is not None:
                request.route, request.app, request.path = "decide", plain[1].decode(), None
                self._judge(connection, request, request.method, _allow)
            elif target.startswith(DECIDE):
                request.route = "decide"
                request.app, method, request.path = asked_of(target, request.method, request.found)
                self._judge(connection, request, method, _allow)
            elif target.startswith(APPS):
                request.route = "proxy"
                request.app, forward, request.path = target_of(target)
                self._judge(connection, request, request.method, partial(self._forward, forward))
            else:
                self._own(connection, request)
        except RefusedError as error:
            connection.refuse(error.status, error.error, error.message)

    def _judge(self, connection: Connection, request: Request, method: str, then: Then) -> None:
        key = key_of(request.found)
        decision = self._decider.decide_now(key, request.app, method)
        if decision is not None:
            self._decided(connection, request, decision, then)
            return
        task = self.spawn(partial(self._look_up, connection, request, (key, request.app, method), then))
        connection.deadline = self.now + self.limits.answer_seconds
        connection.handler = Waiting(task, partial(self._decided, connection, request, _CANNOT_TELL, then))

    async def _look_up(
        self, connection: Connection, request: Request, asked: tuple[bytes, str, str], then: Then
    ) -> None:
        try:
            decision = await self._decider.decide(*asked)
        except Exception:
            # A decider does not raise; if one does, nobody is let in, and nobody else is disturbed.
            log.exception("a decision failed", app=request.app)
            decision = _CANNOT_TELL
        if connection.current is request and not request.answered:
            connection.handler = None
            self._decided(connection, request, decision, then)

    def _decided(self, connection: Connection, request: Request, decision: Decision, then: Then) -> None:
        if type(decision) is Grant:
            request.grant = decision
            wait = decision.take(request.began) if decision.rights.limited else 0.0
            if wait > 0:
                connection.refuse(429, "rate_limited", "too many requests; slow down", ceil(wait))
            else:
                then(connection, request, decision)
        elif isinstance(decision, Refusal):
            status, request.grant, error, message, retry_after_seconds = decision
            if status == _UNAVAILABLE:
                self.stats.errors += 1
                retry_after_seconds = retry_after_seconds or 1
            connection.refuse(status, error, message, retry_after_seconds)

    def _forward(self, forward: bytes, connection: Connection, request: Request, grant: Grant) -> None:
        exchange = Exchange(self, connection, request, forward, grant)
        connection.handler = exchange
        exchange.start()

    def _own(self, connection: Connection, request: Request) -> None:
        path = request.target.partition(b"?")[0]
        if path not in {b"/healthz", b"/readyz"}:
            raise RefusedError(404, "not_found", "there is nothing here; apps are at /apps/NAME/")
        request.route, request.path = "own", path
        if request.method not in {"GET", "HEAD"}:
            head = own_head(405, 0, "", b"allow: GET, HEAD\r\n")
            connection.respond(request, head)
        else:
            status, said = self._health() if path == b"/readyz" else (_OK, {"status": "ok"})
            body = msgspec.json.encode(said)
            connection.respond(request, own_head(status, len(body), "application/json"), body)


async def _on_its_own(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("a request failed")  # and nobody else's with it; its deadline ends it


def _allow(connection: Connection, request: Request, grant: Grant) -> None:
    connection.respond(request, b"%s%s%s\r\n" % (_ALLOWED, grant.rights.lines, grant.name), b"", _OK)
