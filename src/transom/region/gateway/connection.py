"""One connection of a client: requests in, answers out, one at a time and in order.

Requests that come while one is under way wait, and nothing more is read until they have had their turn; so
is reading stopped while nobody takes a body, while the app is slow to take it, and while the client is slow
to take its answers. Whatever breaks, the connection is closed so that the client sees it: no byte of one
exchange can be taken for another's. Next on the data's way: `desk`, which says what happens to a request.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from http import HTTPStatus
from typing import Protocol

from transom.region.gateway.front import RefusedError
from transom.region.gateway.handler import Handler
from transom.region.gateway.http1 import Request, broken_request, refusal, wants_websocket
from transom.region.gateway.limits import GatewayLimits
from transom.region.gateway.reading import Reader, too_large
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

HOLD_QUEUE, HOLD_BODY, HOLD_UPSTREAM, HOLD_WRITE = 1, 2, 4, 8
"""Why a connection is not read: requests wait; nobody takes the body yet; the app, or the client, is slow."""

_RESET = struct.pack("ii", 1, 0)


class Desk(Protocol):
    """What connections ask of their server."""

    limits: GatewayLimits
    now: float
    """Monotonic seconds, a fraction of a second old at most."""
    draining: bool
    date: bytes
    """The Date header's line."""

    def arrived(self, connection: "Connection") -> bool:
        """A connection has been made; False when it is one too many."""
        ...

    def left(self, connection: "Connection") -> None:
        """A connection is gone."""
        ...

    def begin(self, connection: "Connection", request: Request) -> None:
        """It is this request's turn."""
        ...

    def ended(self, connection: "Connection", request: Request) -> None:
        """A request has had its answer, or never will."""
        ...

    def knows(self) -> str:
        """What the header `transom-knows` says."""
        ...


class Connection(Reader):
    """Speaks HTTP/1.1 with one client."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk.limits)
        self._desk = desk
        self.transport: asyncio.Transport = None  # pyright: ignore[reportAttributeAccessIssue]
        self.client = ""
        self.deadline = desk.now + self._limits.head_seconds
        self.full = False
        self.current: Request | None = None
        self.handler: Handler | None = None
        self._queue: deque[Request] = deque()
        self._holds = 0
        self._out: list[bytes] = []
        self._feeding = self._turning = self._close_after = self._unread = self._lingering = False
        self._early: bytes | None = None  # what follows the head of a request for an upgrade
        self._tunnel = False

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""
        self.transport.set_write_buffer_limits(self._limits.buffer_bytes)
        if not self._desk.arrived(self):
            self._deaf = self._close_after = True
            head, body = refusal(503, "overloaded", "too many connections; try again soon", 1)
            self.transport.write(b"".join((head, self._desk.date, b"connection: close\r\n\r\n", body)))
            self._linger()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why it is gone changes nothing
        """The client is gone."""
        self._desk.left(self)
        self._deaf = True
        self._queue.clear()
        self._stop_handler()
        if self.current is not None and not self.current.answered:
            self._desk.ended(self, self.current)
        self.current = None

    def eof_received(self) -> None:
        """The client has said all it will say: the loop closes the connection."""

    def pause_writing(self) -> None:
        """The client is slow to take what is written."""
        self.full = True
        self.deadline = self._desk.now + self._limits.body_idle_seconds
        self.hold(HOLD_WRITE)
        if self.handler is not None:
            self.handler.client_full(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.full = False
        if self.current is None and not self._lingering and not self.transport.is_closing():
            self.deadline = self._desk.now + self._limits.idle_seconds
        self.let_go(HOLD_WRITE)
        if self.handler is not None:
            self.handler.client_full(False)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._tunnel and self.handler is not None:
            self.handler.body(data)
            return
        if self._deaf:
            return
        if self._early is not None:
            self._early += data
            self.hold(HOLD_BODY)
            return
        self._feeding = True
        try:
            self._feed(data)
        finally:
            self._feeding = False
        self._flush()
        if self._close_after and self.current is None:
            self._end()

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            if not self.transport.is_closing():
                self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    # From the reader

    def _came(self, request: Request) -> None:
        if self.current is None and not self._queue:
            self._begin(request)
        else:
            self._queue.append(request)
            self.hold(HOLD_QUEUE)

    def _piece(self, request: Request, data: bytes) -> None:
        if request.answered:
            self.deadline = self._desk.now + self._limits.body_idle_seconds
        elif request.sink is not None:
            request.sink.body(data)
        else:
            if request.pieces is None:
                request.pieces = []
            request.pieces.append(data)
            self.hold(HOLD_BODY)

    def _end_of(self, request: Request) -> None:
        if request.answered:
            self._turn_over()
        elif request.sink is not None:
            request.sink.body_end()

    def _half_a_head(self) -> None:
        if self.current is None:
            self.deadline = self._desk.now + self._limits.head_seconds

    def _upgrading(self, rest: bytes) -> bool:
        waiting = self._queue[-1] if self._queue else self.current
        if waiting is None or waiting.answered or not wants_websocket(waiting):
            return False
        waiting.keep_alive = False  # it becomes a tunnel, or it is closed
        self._early = rest
        return True

    def _break(self, error: RefusedError) -> None:
        # Refused in its turn; then the connection is closed.
        self._deaf = self._unread = True
        broken, self._receiving = self._receiving, None
        if broken is None:
            broken = broken_request(error)
            if self.current is None:
                self._begin(broken)
            else:
                self._queue.append(broken)
        elif broken is not self.current:
            broken.error, broken.keep_alive = error, False
        elif broken.status >= HTTPStatus.OK:
            self.cut()
        else:
            self._stop_handler()
            broken.keep_alive, broken.sink = False, None
            self.refuse(error.status, error.error, error.message)

    # Turns

    def _begin(self, request: Request) -> None:
        self.current = request
        if request.error is None and request.length > self._limits.body_bytes:
            request.error = too_large(self._limits)
        if request.error is not None:
            request.keep_alive = False
            self.refuse(request.error.status, request.error.error, request.error.message)
        else:
            try:
                self._desk.begin(self, request)
            except Exception:
                log.exception("a request failed", route=request.route, app=request.app)
                self._stop_handler()
                if self.current is request and not request.answered:
                    request.keep_alive = False
                    self.refuse(500, "internal", "the gateway failed; this is a fault of its own")

    def _turn_over(self) -> None:
        """The present exchange is over on both sides: the next one's turn."""
        self.current = None
        self.deadline = self._desk.now + self._limits.idle_seconds
        if self._turning:
            return  # the loop below goes on
        self._turning = True
        while self._queue and self.current is None and not self._close_after:
            self._begin(self._queue.popleft())
        self._turning = False
        self._close_after |= self._desk.draining
        if not self._close_after:
            if not self._queue:
                self.let_go(HOLD_QUEUE)
        elif self.current is None and not self._feeding:
            self._end()

    def keeps(self, request: Request) -> bytes:
        """The answer's Connection line; decides whether the connection is kept after it."""
        keep = request.keep_alive and not self._desk.draining and not self._close_after
        if not request.complete:
            # A decision's body may never come (auth_request keeps the client's Content-Length), nor may one
            # that waits to be told to go on. Others are read away if that is cheap.
            left = request.length - request.body_bytes
            come = request.route != "decide" and b"expect" not in request.found
            keep = keep and come and 0 < left <= self._limits.drained_bytes
            self._unread |= not keep
        if not keep:
            self._close_after = True
            return b"connection: close\r\n"
        return b"connection: keep-alive\r\n" if request.old else b""

    def respond(self, request: Request, head: bytes, body: bytes = b"", status: int = 0) -> None:
        """Answer the present request, all at once, with `http1.own_head` and a body."""
        request.status = status or int(head[9:12])
        extra = self.knows_line(request) + self.keeps(request)
        if request.method == "HEAD":
            body = b""
        request.sent_bytes = len(body)
        self.write(b"%s%s%s\r\n%s" % (head, self._desk.date, extra, body))
        self.finish()

    def refuse(self, status: int, error: str, message: str, retry_after_seconds: int = 0) -> None:
        """Answer the present request with a refusal."""
        if self.current is not None:
            self.respond(self.current, *refusal(status, error, message, retry_after_seconds))

    def knows_line(self, request: Request) -> bytes:
        """The header `transom-knows`, for who asks for it."""
        if request.found.get(b"x-transom-knows") != b"1":
            return b""
        return b"transom-knows: %s\r\n" % self._desk.knows().encode("ascii", "replace")

    def write(self, data: bytes) -> None:
        """Send; what is written while a read is looked at goes out in one piece."""
        if self._feeding:
            self._out.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def finish(self) -> None:
        """The present request's answer is complete."""
        request = self.current
        if request is None:
            return
        request.answered = True
        request.pieces = request.sink = self.handler = None
        if self._holds:
            self.let_go(HOLD_BODY | HOLD_UPSTREAM)
        self._desk.ended(self, request)
        if request.complete or self._close_after:
            self._turn_over()
        else:
            self.deadline = self._desk.now + self._limits.body_idle_seconds

    def cut(self, *, reset: bool = False) -> None:
        """End the present exchange unfinished, visibly: `reset` where closing alone would look proper."""
        request, self.current = self.current, None
        self._deaf = self._close_after = True
        self._queue.clear()
        self._stop_handler()
        self._flush()
        if request is not None and not request.answered:
            request.answered = True
            self._desk.ended(self, request)
        if reset or self.full:
            if made := self.transport.get_extra_info("socket"):
                with contextlib.suppress(OSError):
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self._close()

    # Tunnels

    def tunnel(self) -> bytes:
        """From now on the handler gets what the client sends, as it is; what had come early is returned."""
        early, self._early, self._tunnel = self._early or b"", None, True
        self.let_go(HOLD_BODY)
        return early

    def _stop_handler(self) -> None:
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.abandon()

    # Time and the end

    def expired(self) -> None:
        """The deadline has passed."""
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
        elif self.handler is not None:
            self.handler.expired()
        elif self.full:
            self.transport.abort()
        elif self.current is None and self._head_bytes:
            self._break(RefusedError(408, "timeout", "the request's head took too long"))
        else:
            self._close()

    def drain(self) -> None:
        """The server stops: a connection between two requests is closed, others after the present answer."""
        if self.current is None:
            self._close()

    def _end(self) -> None:
        if self._unread or (self._last_seen and self._heads_read > 1):
            self._linger()
        else:
            self._close()

    def _close(self) -> None:
        # What is written already still goes out, to a client that takes it.
        self.deadline = self._desk.now + self._limits.body_idle_seconds
        self.transport.close()

    def _linger(self) -> None:
        """Close after the client has seen the answer: closing with unread data could take it away again."""
        if self._lingering or self.transport.is_closing():
            return
        self._lingering = self._deaf = True
        self._queue.clear()
        self._receiving = None
        limits = self._limits
        self.deadline = self._desk.now + (limits.body_idle_seconds if self.full else limits.linger_seconds)
        self.let_go(HOLD_QUEUE | HOLD_BODY | HOLD_UPSTREAM | HOLD_WRITE)
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self.current is None and not self._lingering and not self.transport.is_closing()

    @property
    def waits_for_app(self) -> bool:
        """Whether the client is not read because the app is slow to take its body."""
        return bool(self._holds & HOLD_UPSTREAM)

    def hold(self, why: int) -> None:
        """Stop reading from the client."""
        if not self._holds and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds |= why

    def let_go(self, why: int) -> None:
        """Read on, if nothing else stands against it."""
        if self._holds:
            self._holds &= ~why
            if not self._holds and not self.transport.is_closing():
                self.transport.resume_reading()
