"""Serving HTTP from inside a task group: cancelled means stopped, with nothing left behind.

uvicorn speaks HTTP/1.1; this module decides what it may do: no signal handlers, no access log, heads of a
bounded size, heads, bodies and answers within a bounded time, no plain HTTP beyond this machine. `accepting`
takes the connections in. Used by the hub's API, a region's log and a gateway's metrics.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from transom.model.errors import InvalidError, Problem
from transom.runtime.accepting import Greeter, HttpLimits, Room
from transom.runtime.clock import SystemClock
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

AsgiMessage = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEAD_BYTES_MAX = 64 * 1024
_BACKLOG = 1024
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep theirs, so that they never send into a closing connection
_STOP_SECONDS = 2
_LIMITS = HttpLimits()
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 27\r\n\r\n"
    b"The request took too long.\n"
)


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_free(host: str, port: int) -> None:
    """Raises `InvalidError` when `host` and `port` cannot be listened on now.

    For whoever wants to know before making anything; `serve` refuses it in any case.
    """
    _listen(host, port).close()


async def serve(
    app: AsgiApp,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[int], None] | None = None,
    limits: HttpLimits = _LIMITS,
) -> None:
    """Serve `app` until cancelled. `ready` is called with the port (a free one for 0) once it accepts.

    When cancelled, apps that wait for their client see it leave (`http.disconnect`), others have 2 s to
    finish; then every connection is closed. Raises `InvalidError` when the port is in use, the host is not
    one of this machine's, or is reachable from outside without `tls`.
    """
    listener = listening_socket(host, port, tls=tls)
    leaving = asyncio.Event()
    config = uvicorn.Config(
        _told_to_leave(app, leaving),
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # `_told_to_leave` logs what an app raises
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    config.load()
    server = _Server(config, leaving, listener, tls, limits)
    running = asyncio.create_task(server.serve(), name=f"http {port}")
    try:
        if ready is not None:
            ready(listener.getsockname()[1])
        await asyncio.shield(running)
    finally:
        leaving.set()
        try:
            await _ended(running)
        finally:
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await server.ended()


async def _ended(running: asyncio.Task[None]) -> None:
    """Wait for the server's end; whoever is in a greater hurry cancels once more."""
    try:
        await asyncio.wait({running})
    except asyncio.CancelledError:
        running.cancel()
        raise
    if not running.cancelled() and (error := running.exception()) is not None:
        raise error


def listening_socket(host: str, port: int, *, tls: ssl.SSLContext | None) -> socket.socket:
    """A socket that listens on `host` and `port` (0: a free one).

    Raises `InvalidError` when that cannot be, or when the host is reachable from outside without `tls`.
    """
    if tls is None and not is_loopback(host):
        what = "is not this machine alone; give a certificate and key, or listen on 127.0.0.1"
        raise InvalidError(f"address {host}:{port}", [Problem("", what)])
    return _listen(host, port)


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # The protocol is named, because asyncio turns Nagle's delay off only for sockets that say TCP.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except socket.gaierror:
        wrong = f"{host!r} is not a host this machine knows"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            wrong = f"port {port} is in use; stop what uses it or choose another"
        else:
            wrong = f"cannot be listened on: {error.strerror}"
    else:
        return listener
    raise InvalidError(f"address {host}:{port}", [Problem("", wrong)])


def _told_to_leave(app: AsgiApp, leaving: asyncio.Event) -> AsgiApp:
    """`app`, logging what it raises, and told that its client has left as soon as the server stops."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        body_read = False

        async def receive_or_leave() -> AsgiMessage:
            nonlocal body_read
            if body_read:
                return await _first(receive, leaving)
            message = await receive()
            body_read = not message.get("more_body", False)
            return message

        try:
            await app(scope, receive_or_leave, send)
        except Exception:
            log.exception("request failed", path=scope.get("path", ""))
            raise

    return told


async def _first(receive: Receive, leaving: asyncio.Event) -> AsgiMessage:
    message = asyncio.ensure_future(receive())
    left = asyncio.ensure_future(leaving.wait())
    try:
        await asyncio.wait({message, left}, return_when=asyncio.FIRST_COMPLETED)
        return message.result() if message.done() else {"type": "http.disconnect"}
    finally:
        message.cancel()
        left.cancel()
        await asyncio.gather(message, left, return_exceptions=True)


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        leaving: asyncio.Event,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        limits: HttpLimits,
    ) -> None:
        super().__init__(config)
        self._leaving = leaving
        self._listener = listener
        self._tls = tls
        self._limits = limits
        self._room = Room(limits.connections_max)
        self._greeter: Greeter | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        del sockets
        self._greeter = Greeter(self._listener, self._connection, self._tls, self._room, self._limits)
        self.servers = cast("list[asyncio.base_events.Server]", [self._greeter])
        self.started = True

    async def ended(self) -> None:
        """Until no connection is being accepted any more."""
        self._listener.close()
        if self._greeter is not None:
            self._greeter.close()
            await self._greeter.wait_closed()

    def _connection(self, through: Callable[[], None]) -> asyncio.Protocol:
        made = _Connection(self.config, self.server_state, {})
        made.through, made.room, made.limits = through, self._room, self._limits
        return made

    async def main_loop(self) -> None:
        """Sleep until it is time to leave; once a second the Date header needs a look at the clock, and those
        who take too long to be told.
        """
        while not self._leaving.is_set():
            await self.on_tick(0)
            now = SystemClock.monotonic()
            for connection in tuple(cast("set[_Connection]", self.server_state.connections)):
                if connection.deadline <= now:
                    connection.expired()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals belong to the process."""
        yield


class _Connection(HttpToolsProtocol):
    """Refuses a request whose line and headers are over 64 KiB, before they fill the memory, and who takes
    longer than the limits for a head, a body, or to take an answer.
    """

    through: Callable[[], None]
    room: Room
    limits: HttpLimits

    _head_bytes = 0
    _in_head = False
    _asked = float("inf")
    """When what the client is sending must be here."""
    _taken = float("inf")
    """When it must have taken some of what it is sent."""

    @property
    def deadline(self) -> float:
        """When its client has taken too long, in monotonic seconds."""
        return min(self._asked, self._taken)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client, its handshake done."""
        super().connection_made(transport)
        self._asked = SystemClock.monotonic() + self.limits.head_seconds
        self.through()
        self.room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self.room.leave(self)

    def cut(self) -> None:
        """Close it now, for one that is more likely to ask something."""
        self.transport.abort()

    def expired(self) -> None:
        """Its time is up: it is closed, and cut off a moment later. Who has sent half a head is told."""
        if self.transport.is_closing():
            self.transport.abort()
            return
        if self._in_head:
            self.transport.write(_TOO_SLOW)
        self._asked = 0.0
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what it takes before a head is complete."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX:
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        self._asked = SystemClock.monotonic() + self.limits.head_seconds
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        self._asked = SystemClock.monotonic() + self.limits.body_seconds
        self.room.busy(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._asked = float("inf")
        super().on_message_complete()
        if self.cycle.response_complete:
            self.room.idle(self)

    def on_response_complete(self) -> None:
        """It is answered, and may go if somebody needs its place."""
        super().on_response_complete()
        if not self.pipeline and self.cycle.response_complete and self._asked == float("inf"):
            self.room.idle(self)

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        self._taken = SystemClock.monotonic() + self.limits.take_seconds
        super().pause_writing()

    def resume_writing(self) -> None:
        """It took some."""
        self._taken = float("inf")
        super().resume_writing()
