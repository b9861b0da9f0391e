"""Taking connections in, without letting those who only hold them keep others out.

What a client may cost before it has sent one whole request is bounded: the time for its TLS handshake, for a
head and for a body, how long it may leave an answer untaken, and how many connections there are at all. Where
there is no room for one more, the connection goes that has waited longest without a request under way: who
opens thousands and says nothing, or says it byte by byte, closes their own. Whoever speaks plain HTTP where
TLS is spoken is told so. Next on the data's way: `http` has uvicorn speak on what was taken in.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from transom.runtime.clock import SystemClock
from transom.runtime.tasks import OwnTasks
from transom.runtime.telemetry import get_logger, is_told

log = get_logger(__name__)

_ACCEPTED_AT_ONCE = 64
_TRY_SECONDS = 0.2
_FILES_SHARE = 2
"""Of the files that a process may open, connections get one part of so many."""
_HANDSHAKE = 0x16
"""The first byte of TLS (RFC 8446, section 5.1: ContentType.handshake)."""
_READ_AWAY_BYTES = 65_536
_WRONG = b"Client sent an HTTP request to an HTTPS server.\n"
_PLAIN_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_WRONG), _WRONG)
)


@dataclass(frozen=True)
class HttpLimits:
    """What a server bears from each client. Times in seconds, looked at once a second."""

    connections: int = 4096
    """At once, at most; half of the files that the process may open if that is less."""
    handshake_seconds: float = 10.0
    """From connecting to the end of the TLS handshake."""
    head_seconds: float = 10.0
    """From connecting, or from a head's first byte, to its last."""
    body_seconds: float = 60.0
    """From the end of a head to the end of its body."""
    take_seconds: float = 60.0
    """For a client to take some of an answer that waits."""

    @property
    def connections_max(self) -> int:
        """`connections`, as far as this process may have them."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return self.connections if files < 0 else min(self.connections, max(1, files // _FILES_SHARE))


class Expendable(Protocol):
    """A connection without a request under way."""

    def cut(self) -> None:
        """Close it now."""
        ...


class Room:
    """The connections there are, and which of them may go. One more than the most is never there."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: set[Expendable] = set()
        self._idle: OrderedDict[Expendable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, connection: Expendable) -> None:
        """Count one more, cutting off the one that has waited longest if there is no room; perhaps itself."""
        self._held.add(connection)
        self._idle[connection] = None
        while len(self._held) > self.most:
            longest = next(iter(self._idle))
            self.leave(longest)
            longest.cut()

    def busy(self, connection: Expendable) -> None:
        """It has a request under way."""
        self._idle.pop(connection, None)

    def idle(self, connection: Expendable) -> None:
        """It has none any more."""
        if connection in self._held:
            self._idle[connection] = None
            self._idle.move_to_end(connection)

    def leave(self, connection: Expendable) -> None:
        """It is gone."""
        self._held.discard(connection)
        self._idle.pop(connection, None)


class Greeter:
    """Accepts on `listener`, and has what `protocol` makes speak on a connection once its handshake is done.

    A protocol counts for itself in `room` from then on, and calls what it was made with. Made inside a
    running loop; `close` ends it, and every handshake, at once.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        room: Room,
        limits: HttpLimits,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._room = room
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._tasks = OwnTasks()
        self._greetings: set[_Greeting] = set()
        self._failures = 0
        self._closed = False
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more, and drop what is not through its handshake."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            for greeting in tuple(self._greetings):
                greeting.cut()

    async def wait_closed(self) -> None:
        """Until nothing of it runs any more."""
        await self._tasks.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            greeting = _Greeting()
            greeting.task = self._tasks.start(self._greet(client, greeting))
            self._greetings.add(greeting)
            self._room.enter(greeting)

    def _rest(self, error: OSError) -> None:
        """No file or no memory is left for a connection: those that wait, wait, until some are gone."""
        self._failures += 1
        if is_told(self._failures):
            log.warning("no connection can be accepted", error=str(error))
        self._loop.remove_reader(self._listener.fileno())
        self._tasks.start(self._go_on())

    async def _go_on(self) -> None:
        await SystemClock().sleep(_TRY_SECONDS)
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    async def _greet(self, client: socket.socket, greeting: "_Greeting") -> None:
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                if self._tls is None or await self._speaks_tls(client):
                    await self._loop.connect_accepted_socket(
                        lambda: self._protocol(lambda: self._room.leave(greeting)), client, ssl=self._tls
                    )
                else:
                    client.close()
        except (OSError, TimeoutError):
            client.close()
        except asyncio.CancelledError:
            client.close()
            raise
        finally:
            self._greetings.discard(greeting)
            self._room.leave(greeting)

    async def _speaks_tls(self, client: socket.socket) -> bool:
        """Whether a handshake begins. Who speaks HTTP instead is told what to do."""
        await self._readable(client)
        first = client.recv(1, socket.MSG_PEEK)
        if not first or first[0] == _HANDSHAKE:
            return bool(first)
        if first.isalpha():
            # Read away, because closing over what is unread would take the answer back.
            client.recv(_READ_AWAY_BYTES)
            client.send(_PLAIN_ANSWER)
            client.shutdown(socket.SHUT_WR)
        return False

    async def _readable(self, client: socket.socket) -> None:
        woken: asyncio.Future[None] = self._loop.create_future()
        number = client.fileno()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        self._loop.add_reader(number, wake)
        try:
            await woken
        finally:
            self._loop.remove_reader(number)


class _Greeting:
    """A connection that is not through its handshake."""

    task: asyncio.Task[None] | None = None

    def cut(self) -> None:
        """Close it now."""
        if self.task is not None:
            self.task.cancel()
