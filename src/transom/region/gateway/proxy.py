"""One request on its way to an app, and its answer on the way back: streamed, never hoarded.

A request is tried again only where that is safe: when no connection was made, so that nothing was sent, or
when a connection that had been kept died before a byte of the answer, the method is idempotent and there is
no body. An answer that breaks off is never made to look whole.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from transom.region.gateway.connection import HOLD_BODY, HOLD_UPSTREAM, Connection
from transom.region.gateway.decision import Endpoint, Refusal
from transom.region.gateway.frames import CLOSED_BY_POLICY, Frames
from transom.region.gateway.grants import Grant
from transom.region.gateway.http1 import (
    CONTINUE,
    IDEMPOTENT,
    LAST_CHUNK,
    Headers,
    Request,
    answer_head,
    has_no_body,
    request_head,
    wants_websocket,
)
from transom.region.gateway.limits import GatewayLimits
from transom.region.gateway.stats import Stats
from transom.region.gateway.upstream import Backend, Upstream, Upstreams
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

_SWITCHING = 101
_FINAL = 200


class Office(Protocol):
    """What exchanges share: the server's side of them."""

    limits: GatewayLimits
    now: float
    date: bytes
    scheme: bytes
    stats: Stats
    upstreams: Upstreams

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run what `work` returns in the server's task group."""
        ...


class Exchange:
    """One proxied request. Both connections call it; it calls them."""

    def __init__(
        self,
        office: Office,
        client: Connection,
        request: Request,
        forward: bytes,
        grant: Grant,
    ) -> None:
        self.method = request.method
        self._office = office
        self._client = client
        self._request = request
        self._forward = forward
        self._tenant = grant.rights.tenant
        self._identity = grant.lines
        self._websocket = wants_websocket(request)
        self._backend: Backend | None = None
        self._upstream: Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried: set[Endpoint] = set()
        self._tries = 0
        self._keep = False  # the instance would take another request
        self._chunked = False  # the answer goes out in chunks
        self._until_end = False  # the answer's end is the connection's
        self._tunnel: Frames | None = None
        self._out: list[bytes] = []

    # Finding an instance

    def start(self, *, fresh: bool = False) -> None:
        """Send the request to an instance; `fresh`: on a new connection."""
        office = self._office
        backend = office.upstreams.choose(self._tenant, self._request.app, self._tried, office.now)
        if backend is None or self._tries >= office.limits.tries_max:
            self._nowhere()
            return
        self._tries += 1
        self._backend = backend
        backend.outstanding += 1
        upstream = None if fresh else backend.take()
        if upstream is not None:
            self._attach(upstream)
        else:
            self._client.deadline = office.now + office.limits.connect_seconds
            self._connecting = office.spawn(partial(self._connect, backend))

    def _nowhere(self) -> None:
        self._office.stats.upstream_errors["none"] += not self._tried
        if self._tried:
            self._refuse(502, "bad_gateway", "no instance of the app accepts connections")
        else:
            self._refuse(503, "no_instance", "the app has no healthy instance here now; try again soon", 1)

    async def _connect(self, backend: Backend) -> None:
        try:
            upstream = await self._office.upstreams.connect(backend)
        except OSError as error:
            self._not_connected(backend, str(error))
            return
        if self._backend is backend:
            self._connecting = None
            self._attach(upstream)
        else:
            upstream.abort()

    def _not_connected(self, backend: Backend, why: str) -> None:
        if self._backend is not backend:
            return
        office = self._office
        self._connecting = None
        office.stats.upstream_errors["connect"] += 1
        log.warning("no connection to an instance", instance=backend.endpoint.instance, error=why)
        office.upstreams.put_aside(backend, office.now)
        self._tried.add(backend.endpoint)
        self._let_go_of_backend()
        office.stats.retries += 1
        self.start()

    def _attach(self, upstream: Upstream) -> None:
        request, client, office = self._request, self._client, self._office
        self._upstream = upstream
        upstream.use(self)
        request.instance = upstream.backend.endpoint.instance
        out = [
            request_head(
                request,
                self._forward,
                self._identity,
                client.client.encode(),
                office.scheme,
                websocket=self._websocket,
            )
        ]
        for piece in request.pieces or ():
            out += _chunk(piece) if request.chunked else (piece,)
        if request.complete and request.chunked:
            out.append(LAST_CHUNK)
        told = request.found.get(b"expect", b"").lower() == b"100-continue"
        if told and not request.complete and not request.body_bytes and not request.old:
            client.write(CONTINUE)
        request.pieces, request.sink = None, self
        self._wait()
        upstream.transport.write(b"".join(out) if len(out) > 1 else out[0])
        client.let_go(HOLD_BODY)

    def _wait(self) -> None:
        limits = self._office.limits
        wait = limits.answer_seconds if self._request.complete else limits.body_idle_seconds
        self._client.deadline = self._office.now + wait

    # From the client

    def body(self, data: bytes) -> None:
        """A piece of the request's body, or of the tunnel."""
        upstream = self._upstream
        if upstream is None:
            return
        if self._tunnel:
            self._client.deadline = self._office.now + self._office.limits.tunnel_idle_seconds
            upstream.transport.write(data)
            return
        upstream.transport.writelines(_chunk(data)) if self._request.chunked else upstream.transport.write(
            data
        )
        if not self._request.status:
            self._wait()

    def body_end(self) -> None:
        """The request is complete."""
        if self._upstream is not None and self._request.chunked:
            self._upstream.transport.write(LAST_CHUNK)
        if not self._request.status:
            self._wait()

    def client_full(self, full: bool) -> None:  # noqa: FBT001
        """The client is slow: the instance has to wait."""
        upstream = self._upstream
        if upstream is None or upstream.transport.is_closing():
            return
        if full:
            upstream.transport.pause_reading()
        else:
            upstream.transport.resume_reading()
            self._moved()

    def expired(self) -> None:
        """The connection's deadline has passed."""
        office, request = self._office, self._request
        if self._connecting is not None and self._backend is not None:
            self._connecting.cancel()
            self._not_connected(self._backend, "it did not accept in time")
        elif self._tunnel or request.status:
            self._client.cut(reset=self._until_end)
        elif request.complete or self._client.waits_for_app:
            office.stats.upstream_errors["timeout"] += 1
            self._drop()
            self._refuse(504, "timeout", "the app took too long to answer")
        else:
            self._drop()
            request.keep_alive = False
            self._refuse(408, "timeout", "the request's body took too long")

    def forbid(self, decision: Refusal) -> None:
        """It must not go on."""
        if self._tunnel or self._request.status:
            if self._tunnel and self._tunnel.between:
                self._client.write(CLOSED_BY_POLICY)
            self._client.cut(reset=self._until_end)
        else:
            self._drop()
            self._request.keep_alive = False
            self._refuse(decision.status, decision.error, decision.message, decision.retry_after_seconds)

    def abandon(self) -> None:
        """Nobody wants the answer any more."""
        self._drop()

    # From the instance

    def answer(self, status: int, headers: Headers, found: dict[bytes, bytes], keep: bool) -> None:  # noqa: FBT001
        """A head has come."""
        request, client = self._request, self._client
        if status == _SWITCHING:
            self._switch(headers, found)
            return
        if status < _FINAL:
            # The client was told to go on already; whoever speaks HTTP/1.0 knows no informational answers.
            if status > _SWITCHING and not request.old:
                self._out.append(answer_head(status, headers, found, b"", b""))
            return
        self._keep = keep
        length = found.get(b"content-length")
        framing = b""
        if length is not None and status != 204:  # noqa: PLR2004
            framing = b"content-length: %s\r\n" % length.strip()
        elif not has_no_body(status, request.method):
            if request.old:
                self._until_end, request.keep_alive = True, False
            else:
                self._chunked, framing = True, b"transfer-encoding: chunked\r\n"
        extra = client.keeps(request) + client.knows_line(request)
        if b"date" not in found:
            extra += self._office.date
        request.status = status
        self._out.append(answer_head(status, headers, found, framing, extra))

    def _switch(self, headers: Headers, found: dict[bytes, bytes]) -> None:
        if not self._websocket or self._upstream is None:
            raise ValueError("an upgrade that nobody asked for")  # becomes a parser error, and 502
        self._request.status = _SWITCHING
        self._tunnel = Frames()
        framing = b"connection: Upgrade\r\nupgrade: websocket\r\n"
        self._out.append(
            answer_head(_SWITCHING, headers, found, framing, self._client.knows_line(self._request))
        )
        if early := self._client.tunnel():
            self._upstream.transport.write(early)

    def piece(self, data: bytes) -> None:
        """A piece of the answer's body, or of the tunnel."""
        self._request.sent_bytes += len(data)
        if self._tunnel is not None:
            self._tunnel.follow(data)
        if self._chunked:
            self._out += _chunk(data)
        else:
            self._out.append(data)

    def flush(self) -> None:
        """That was all for now."""
        if self._out:
            out, self._out = self._out, []
            self._moved()
            self._client.write(b"".join(out) if len(out) > 1 else out[0])

    def _moved(self) -> None:
        limits = self._office.limits
        wait = limits.tunnel_idle_seconds if self._tunnel else limits.answer_seconds
        if not self._client.full:
            self._client.deadline = self._office.now + wait

    def answered(self) -> None:
        """The answer is complete."""
        if self._chunked:
            self._out.append(LAST_CHUNK)
        self.flush()
        upstream, self._upstream = self._upstream, None
        self._let_go_of_backend()
        if upstream is not None:
            if self._keep and upstream.reusable and self._request.complete and not self._client.full:
                upstream.listener = None
                self._office.upstreams.keep(upstream, self._office.now)
            else:
                upstream.abort()
        self._client.finish()

    def upstream_lost(self, what: str) -> None:
        """The connection to the instance is gone, or useless."""
        office, request, upstream = self._office, self._request, self._upstream
        self._upstream = None
        backend = self._backend
        self._let_go_of_backend()
        if self._tunnel:
            self._client.cut()
            return
        office.stats.upstream_errors[what] += 1
        if request.status:
            self.flush()
            self._client.cut(reset=self._until_end)
            return
        if what == "lost" and upstream is not None and upstream.uses > 1 and not upstream.heard:
            # It had been kept, and the instance closed it just now: nothing is wrong with the instance.
            if request.method in IDEMPOTENT and not request.has_body:
                office.stats.retries += 1
                self._out.clear()
                self.start(fresh=True)
                return
        elif what == "lost" and backend is not None:
            office.upstreams.put_aside(backend, office.now)
        log.warning("an instance failed", instance=request.instance, what=what)
        self._refuse(502, "bad_gateway", "the app's instance failed before it answered")

    def upstream_full(self, full: bool) -> None:  # noqa: FBT001
        """The instance is slow to take the request: the client has to wait."""
        if full:
            self._client.hold(HOLD_UPSTREAM)
        else:
            self._client.let_go(HOLD_UPSTREAM)

    # The end

    def _refuse(self, status: int, error: str, message: str, retry_after_seconds: int = 0) -> None:
        self._out.clear()
        self._client.refuse(status, error, message, retry_after_seconds)

    def _drop(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._let_go_of_backend()

    def _let_go_of_backend(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.outstanding -= 1


def _chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    return b"%x\r\n" % len(data), data, b"\r\n"
