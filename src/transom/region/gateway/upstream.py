"""Connections to the instances of apps: chosen, opened, kept for a while, used again.

The instance with the fewest requests under way is chosen, beginning at random; one that failed is passed over
for a short time, but never all of them. A kept connection belongs to one instance of one tenant: nobody
else's request ever travels on it.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

import httptools

from transom.region.gateway.decision import Endpoint, Endpoints
from transom.region.gateway.http1 import Headers, found_in, has_no_body
from transom.region.gateway.limits import GatewayLimits
from transom.runtime.randomness import Randomness


class Listener(Protocol):
    """Who gets what comes from an instance: one exchange at a time."""

    method: str

    def answer(self, status: int, headers: Headers, found: dict[bytes, bytes], keep: bool) -> None:  # noqa: FBT001
        """A head has come; informational ones too."""
        ...

    def piece(self, data: bytes) -> None:
        """A piece of the answer's body, or of the tunnel."""
        ...

    def flush(self) -> None:
        """That was all for now."""
        ...

    def answered(self) -> None:
        """The answer is complete."""
        ...

    def upstream_lost(self, what: str) -> None:
        """The connection is gone ("lost"), or is not speaking HTTP ("invalid")."""
        ...

    def upstream_full(self, full: bool) -> None:  # noqa: FBT001
        """The instance reads more slowly than it is written to; or no longer."""
        ...


class Upstream(asyncio.Protocol):
    """One connection to one instance."""

    def __init__(self, backend: "Backend", limits: GatewayLimits) -> None:
        self.backend = backend
        self.listener: Listener | None = None
        self.transport: asyncio.Transport = None  # pyright: ignore[reportAttributeAccessIssue]
        self.uses = 0
        self.heard = False
        """Whether a byte of the present answer has come."""
        self.reusable = True
        self.idle_until = 0.0
        self._limits = limits
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._in_head = True
        self._until_end = False
        self._finished = False
        self._tunnel = False
        self._overhead = 0
        self._body_bytes = 0

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The instance has accepted."""
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        self.transport.set_write_buffer_limits(self._limits.buffer_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. Some answers end that way, if it was not broken."""
        self.backend.forget(self)
        listener, self.listener = self.listener, None
        if listener is None:
            return
        if self._until_end and exc is None:
            self.reusable = False
            listener.answered()
        else:
            listener.upstream_lost("lost")

    def eof_received(self) -> None:
        """The instance has said all it will say; the loop closes the connection."""

    def data_received(self, data: bytes) -> None:
        """Read on. What comes when nobody asked ends the connection."""
        listener = self.listener
        if listener is None:
            self.abort()
            return
        self.heard = True
        if self._tunnel:
            listener.piece(data)
            listener.flush()
            return
        before = self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._tunnel, self._finished = True, False
            if rest := data[upgrade.args[0] :]:
                listener.piece(rest)
        except httptools.HttpParserError:
            if not self._finished:
                self._fail(listener)
                return
            self.reusable = False  # something follows a complete answer
        self._overhead += len(data) - (self._body_bytes - before)
        if self._overhead > self._limits.answer_head_bytes + 16 * self._body_bytes:
            self._fail(listener)
            return
        if self.listener is listener:
            listener.flush()
            if self._finished:
                self._finished = False
                listener.answered()

    def pause_writing(self) -> None:
        """The instance does not keep up."""
        if self.listener is not None:
            self.listener.upstream_full(True)

    def resume_writing(self) -> None:
        """The instance has caught up."""
        if self.listener is not None:
            self.listener.upstream_full(False)

    # From the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which is dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is complete."""
        listener = self.listener
        if listener is None or self._finished:
            self.reusable = False
            return
        headers, self._headers = self._headers, []
        found = found_in(headers)
        parser = self._parser
        status = parser.get_status_code()
        coding = found.get(b"transfer-encoding")
        strange = not 100 <= status <= 599 or (status == 101 and not parser.should_upgrade())  # noqa: PLR2004
        if strange or (coding is not None and coding.strip().lower() != b"chunked"):
            raise ValueError("an answer that cannot be passed on")  # becomes a parser error, and 502
        bodiless = has_no_body(status, listener.method)
        self._in_head = status < 200 and status != 101  # noqa: PLR2004  # another head follows
        self._until_end = not bodiless and coding is None and b"content-length" not in found
        keep = parser.should_keep_alive() and not self._until_end
        listener.answer(status, headers, found, keep)
        if bodiless and listener.method == "HEAD" and not self._in_head:
            # The parser does not know that a HEAD was asked, and waits for a body.
            self._finished = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(data)
        if self._finished or self.listener is None:
            self.reusable = False  # a body where there is none
            return
        self.listener.piece(data)

    def on_message_complete(self) -> None:
        """An answer is complete; an informational one is not the last."""
        if not self._in_head:
            self._finished = True

    # From the exchange

    def use(self, listener: Listener) -> None:
        """Begin an exchange."""
        if self.uses:
            self._begin()
        self.uses += 1
        self.heard = False
        self.listener = listener

    def abort(self) -> None:
        """End it at once; nobody is told."""
        self.listener = None
        self.transport.abort()

    def _fail(self, listener: Listener) -> None:
        self.abort()
        listener.upstream_lost("invalid")


class Backend:
    """One instance: its kept connections, and how it does."""

    def __init__(self, endpoint: Endpoint, pool: "Upstreams") -> None:
        self.endpoint = endpoint
        self.outstanding = 0
        self.aside_until = 0.0
        self.idle: list[Upstream] = []
        self._pool = pool

    def take(self) -> Upstream | None:
        """A kept connection, the one used last; None when there is none."""
        while self.idle:
            upstream = self.idle.pop()
            self._pool.idle -= 1
            if not upstream.transport.is_closing():
                return upstream
        return None

    def forget(self, upstream: Upstream) -> None:
        """Keep this connection no longer."""
        if upstream in self.idle:
            self.idle.remove(upstream)
            self._pool.idle -= 1


class Upstreams:
    """All connections to instances."""

    def __init__(self, endpoints: Endpoints, limits: GatewayLimits, randomness: Randomness) -> None:
        self._endpoints = endpoints
        self._limits = limits
        self._randomness = randomness
        self._backends: dict[tuple[str, Endpoint], Backend] = {}
        self.idle = 0

    def choose(self, tenant: str, app: str, tried: set[Endpoint], now: float) -> Backend | None:
        """The instance to ask next, of those not tried yet; None when there is none."""
        healthy = self._endpoints.healthy(tenant, app)
        if tried:
            healthy = tuple(each for each in healthy if each not in tried)
        if not healthy:
            return None
        if len(healthy) == 1:
            return self._backend(tenant, healthy[0])
        first = int(self._randomness.below(len(healthy)))
        turned = [self._backend(tenant, each) for each in (*healthy[first:], *healthy[:first])]
        well = [each for each in turned if each.aside_until <= now] or turned
        return min(well, key=_outstanding)

    def _backend(self, tenant: str, endpoint: Endpoint) -> Backend:
        key = (tenant, endpoint)
        backend = self._backends.get(key)
        if backend is None:
            backend = self._backends[key] = Backend(endpoint, self)
        return backend

    async def connect(self, backend: Backend) -> Upstream:
        """A new connection. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(
            lambda: Upstream(backend, self._limits), backend.endpoint.host, backend.endpoint.port
        )
        return upstream

    def keep(self, upstream: Upstream, now: float) -> None:
        """Keep a connection whose exchange went well, if there is room."""
        limits, idle = self._limits, upstream.backend.idle
        if (
            upstream.transport.is_closing()
            or len(idle) >= limits.upstream_idle_max
            or self.idle >= limits.upstream_idle_total
        ):
            upstream.abort()
            return
        upstream.idle_until = now + limits.upstream_idle_seconds
        idle.append(upstream)
        self.idle += 1

    def put_aside(self, backend: Backend, now: float) -> None:
        """Pass an instance over for a while: it failed. Its kept connections are worth nothing either."""
        backend.aside_until = now + self._randomness.jitter(self._limits.aside_seconds)
        for upstream in tuple(backend.idle):
            upstream.abort()
            backend.forget(upstream)

    def tick(self, now: float) -> None:
        """Close what was idle for too long, and forget instances that nothing is known of."""
        for key, backend in tuple(self._backends.items()):
            for upstream in [each for each in backend.idle if each.idle_until <= now]:
                upstream.abort()
                backend.forget(upstream)
            if not backend.idle and not backend.outstanding and backend.aside_until <= now:
                del self._backends[key]

    def close(self) -> None:
        """Close every kept connection."""
        for upstream in tuple(self._kept()):
            upstream.abort()
            upstream.backend.forget(upstream)

    def _kept(self) -> Iterator[Upstream]:
        for backend in self._backends.values():
            yield from backend.idle


def _outstanding(backend: Backend) -> int:
    return backend.outstanding
