"""Serving HTTP from inside a task group: cancelled means stopped, with nothing left behind.

uvicorn speaks HTTP; this module decides what it may do: no signal handlers, no access log, heads of a
bounded size, no plain HTTP beyond this machine. Used by the hub's API, a region's log and its gateway.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from transom.model.errors import InvalidError, Problem
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

AsgiMessage = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEAD_BYTES_MAX = 64 * 1024
_CONNECTIONS_MAX = 4096
_BACKLOG = 1024
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep theirs, so that they never send into a closing connection
_STOP_SECONDS = 2


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
        http=_BoundedHeads,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # `_told_to_leave` logs what an app raises
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    config.load()
    config.ssl = tls
    server = _Server(config, leaving)
    running = asyncio.create_task(server.serve(sockets=[listener]), name=f"http {port}")
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
    def __init__(self, config: uvicorn.Config, leaving: asyncio.Event) -> None:
        super().__init__(config)
        self._leaving = leaving

    async def main_loop(self) -> None:
        """Sleep until it is time to leave; once a second the Date header needs a look at the clock."""
        while not self._leaving.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals belong to the process."""
        yield


class _BoundedHeads(HttpToolsProtocol):
    """Refuses a request whose line and headers are over 64 KiB, before they fill the memory."""

    _head_bytes = 0
    _in_head = False

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
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        super().on_headers_complete()
