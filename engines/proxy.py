"""A bad road to a real part: a proxy on loopback, in the test's own event loop, that cuts, delays and stalls.

    async with before(brokers) as (proxy,):
        producer = AIOKafkaProducer(bootstrap_servers=proxy.address)
        done = proxy.cut_at(kafka_request(PRODUCE), in_answer=True)
        await producer.send_and_wait(…)      # the broker has it, the answer never came: it is sent again
        assert done.is_set()

Brokers advertise their proxy to whoever came through it (`Ports.proxied`), so every later connection of such
a client comes through as well; brokers among themselves, and other clients, do not notice. In front of
PostgreSQL: `Proxy(postgres.port, POSTGRES)`.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from engines.kafka import Brokers

PRODUCE, FETCH, METADATA, JOIN_GROUP, HEARTBEAT = 0, 1, 3, 11, 12
END_TXN, ADD_PARTITIONS_TO_TXN, TXN_OFFSET_COMMIT = 26, 24, 28
"""Keys of Kafka's requests, see the list of API keys in Kafka's protocol guide."""
_CHUNK_BYTES = 1 << 16
_CHUNKS_MAX = 1024
_SIZE_BYTES = 4


class Frames(Protocol):
    """How requests and answers follow one another on a connection."""

    def request_bytes(self, sent: bytearray) -> int | None:
        """The size of the request at the beginning of what a client sent, once that can be told."""
        ...

    def answer_bytes(self, sent: bytearray) -> int | None:
        """The same of an answer."""
        ...

    def is_answer(self, answer: bytes, request: bytes) -> bool:
        """Whether this is the request's answer."""
        ...


class _Kafka:
    """Four bytes of size; key, version and correlation id of a request; the same id before an answer."""

    def request_bytes(self, sent: bytearray) -> int | None:
        return 4 + struct.unpack_from(">i", sent)[0] if len(sent) >= _SIZE_BYTES else None

    answer_bytes = request_bytes

    def is_answer(self, answer: bytes, request: bytes) -> bool:
        return answer[4:8] == request[8:12]


class _Postgres:
    """A type byte and four bytes of size; what opens a connection has no type, and a size below 16 MiB."""

    def request_bytes(self, sent: bytearray) -> int | None:
        start = 0 if sent[0] == 0 else 1
        return start + struct.unpack_from(">i", sent, start)[0] if len(sent) >= start + _SIZE_BYTES else None

    def answer_bytes(self, sent: bytearray) -> int | None:
        # The answer to a wish for TLS is one byte without a frame; nobody here looks into answers.
        return len(sent)

    def is_answer(self, answer: bytes, request: bytes) -> bool:
        return bool(answer and request)  # answers come in order, and clients wait for them


KAFKA: Frames = _Kafka()
POSTGRES: Frames = _Postgres()
Match = Callable[[bytes], bool]


def kafka_request(key: int) -> Match:
    """Requests with this key."""
    return lambda request: struct.unpack_from(">h", request, 4)[0] == key


def postgres_query(words: str) -> Match:
    """Messages of a client that have these words in them: `COMMIT`, a statement's beginning."""
    return lambda request: words.encode() in request


@dataclass(slots=True)
class _Cut:
    """A cut that is planned: at the `left`-th request that matches, in the middle of it or of its answer."""

    matches: Match
    left: int
    in_answer: bool
    done: asyncio.Event = field(default_factory=asyncio.Event)


class _Connection:
    """A client's connection and the one that was opened for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.awaited: tuple[bytes, _Cut] | None = None
        """The request whose answer is to be cut."""

    def abort(self) -> None:
        """Drop both at once; what was not sent yet is lost."""
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """One port before another, both on loopback. Unhurt as long as nothing else is asked for."""

    def __init__(self, target: int, frames: Frames = KAFKA, port: int = 0) -> None:
        """`port`: where to listen, 0 for any."""
        self.port = port
        self.delay_seconds = 0.0
        """How long everything takes on its way, in either direction; it overtakes nothing and nothing is
        dropped."""
        self.accepted = 0
        """Connections so far."""
        self._target, self._frames = target, frames
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cuts: list[_Cut] = []
        self._connections: dict[_Connection, None] = {}
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        self.flow()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def accept(self) -> None:
        """Take connections (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no connections, and cut those there are: nobody seems to be there."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Drop every connection; new ones are taken."""
        for connection in self._connections:
            connection.abort()

    def stall(self) -> None:
        """Let nothing pass, in either direction; connections stay open, and new ones are taken."""
        self._flowing.clear()

    def flow(self) -> None:
        """End a stall: what was held up goes on its way."""
        self._flowing.set()

    def cut_at(self, matches: Match, nth: int = 1, *, in_answer: bool = False) -> asyncio.Event:
        """Drop the connection in the middle of the `nth` request from now that matches: half of it is sent
        on. Or in the middle of its answer: then the part has done what it was asked, and the client cannot
        know. The event is set when that has happened.
        """
        cut = _Cut(matches, nth, in_answer)
        self._cuts.append(cut)
        return cut.done

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            client.transport.abort()
            return
        self.accepted += 1
        connection = _Connection(client, server)
        self._connections[connection] = None
        there, back = _Road(server, self), _Road(client, self)
        try:
            # Ended by the proxy's own end only, and then quietly: to streams a cancelled handler is an error.
            async with asyncio.TaskGroup() as group:
                group.create_task(there.run())
                group.create_task(back.run())
                group.create_task(self._requests(reader, there, connection))
                group.create_task(self._answers(answers, back, connection))
        except* (OSError, _EndedError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[connection]
            connection.abort()

    async def _requests(self, reader: asyncio.StreamReader, road: "_Road", connection: _Connection) -> None:
        """Pass on what the client sends."""
        async for request in _framed(reader, self._frames.request_bytes):
            cut = self._due_at(request)
            if cut is not None and not cut.in_answer:
                await road.send(request[: len(request) // 2])
                await road.arrived()
                cut.done.set()
                raise _EndedError
            if cut is not None:
                connection.awaited = (request, cut)
            await road.send(request)
        await road.arrived()
        raise _EndedError

    async def _answers(self, reader: asyncio.StreamReader, road: "_Road", connection: _Connection) -> None:
        """Pass on what the part answers."""
        async for answer in _framed(reader, self._frames.answer_bytes):
            if connection.awaited is not None and self._frames.is_answer(answer, connection.awaited[0]):
                await road.send(answer[: len(answer) // 2])
                await road.arrived()
                connection.awaited[1].done.set()
                raise _EndedError
            await road.send(answer)
        await road.arrived()
        raise _EndedError

    def _due_at(self, request: bytes) -> _Cut | None:
        """The planned cut that this request brings about."""
        for cut in self._cuts:
            if cut.matches(request):
                cut.left -= 1
                if cut.left == 0:
                    self._cuts.remove(cut)
                    return cut
        return None

    async def passable(self) -> None:
        """Wait for the end of a stall."""
        await self._flowing.wait()


class _EndedError(Exception):
    """One side is done, or is to be cut: both are."""


class _Road:
    """One direction of a connection: what is sent first arrives first, each chunk after the proxy's delay."""

    def __init__(self, writer: asyncio.StreamWriter, proxy: Proxy) -> None:
        self._writer, self._proxy = writer, proxy
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)
        writer.transport.set_write_buffer_limits(high=0)  # drained means gone

    async def send(self, chunk: bytes) -> None:
        """Put a chunk on its way; waits while very many are."""
        due = asyncio.get_running_loop().time() + self._proxy.delay_seconds
        await self._under_way.put((due, chunk))

    async def arrived(self) -> None:
        """Wait until everything is handed to the system."""
        await self._under_way.join()

    async def run(self) -> None:
        """Deliver, for ever."""
        while True:
            due, chunk = await self._under_way.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await self._proxy.passable()
            if self._writer.is_closing():  # to write then is an error of uvloop's own
                raise _EndedError
            self._writer.write(chunk)
            await self._writer.drain()
            self._under_way.task_done()


async def _framed(
    reader: asyncio.StreamReader, size: Callable[[bytearray], int | None]
) -> AsyncGenerator[bytes]:
    """Whole frames until the sender's end."""
    sent = bytearray()
    while chunk := await reader.read(_CHUNK_BYTES):
        sent += chunk
        while sent and (needed := size(sent)) is not None and needed <= len(sent):
            yield bytes(sent[:needed])
            del sent[:needed]


@contextlib.asynccontextmanager
async def before(brokers: Brokers) -> AsyncGenerator[list[Proxy]]:
    """A proxy before every broker. Clients that begin with one of their addresses go through them for
    good.
    """
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Proxy(ports.proxied, KAFKA, ports.proxy))
            for ports in brokers.ports
        ]
