"""A gateway in front of small apps, all in this process, over real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from dataclasses import replace as altered
from typing import Any

from transom.region.gateway.access_log import AccessLog
from transom.region.gateway.connection import Connection
from transom.region.gateway.decision import Endpoint
from transom.region.gateway.fakes import FakeDecider, FakeEndpoints
from transom.region.gateway.grants import Rights, grant_of
from transom.region.gateway.limits import GatewayLimits, Rate
from transom.region.gateway.server import GatewayServer
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

ACME = grant_of(Rights("acme", ("read", "write"), "vc1"), "ci")
OTHER = grant_of(Rights("other", ()), "ops")
KEY, OTHER_KEY, SLOW_KEY = b"tsm_acme", b"tsm_other", b"tsm_slow"

App = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Client:
    """A client that sends and sees bytes as they are."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self, target: str, *headers: str, method: str = "GET", body: bytes = b"", key: bytes | None = KEY
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request and read its answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: gw.example", *headers]
        if key is not None:
            lines.append(f"Authorization: Bearer {key.decode()}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join((*lines, "", "")).encode() + body)
        return await self.answer(head_only=method == "HEAD")

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = text.split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in rest]
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), names
        return int(first.split()[1]), dict((name, value) for name, value in pairs)  # noqa: C402

    async def answer(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Read a whole answer."""
        status, headers = await self.head()
        if head_only or status in {204, 304} or status < 200:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return status, headers, body
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, await self.reader.read()

    async def closed(self) -> bytes:
        """What is left until the gateway closes the connection."""
        left = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(1 << 16):
                left += data
        return left


@dataclass
class World:
    """A gateway, its clock and what it was told."""

    server: GatewayServer
    clock: ManualClock
    decider: FakeDecider
    endpoints: FakeEndpoints
    port: int
    running: asyncio.Task[None]
    stack: contextlib.AsyncExitStack
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    app_writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def client(self, **options: Any) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self.writers.append(writer)
        return Client(reader, writer)

    async def app(
        self, serve: App, *, app: str = "shop", tenant: str = "acme", instance: str = "", port: int = 0
    ) -> Endpoint:
        """Have `serve` talk with whoever connects, and be an instance of `app`."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.app_writers.append(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", port)
        self.stack.push_async_callback(_closed, server, self.app_writers)
        here = self.endpoints.instances.get((tenant, app), ())
        name = instance or f"{app}-{len(here)}"
        endpoint = Endpoint(name, "127.0.0.1", server.sockets[0].getsockname()[1])
        self.endpoints.instances[tenant, app] = (*here, endpoint)
        self.decider.owners[app] = tenant
        return endpoint

    @property
    def connections(self) -> list[Connection]:
        return list(self.server._desk.connections)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until `holds`."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.001)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


async def _closed(server: asyncio.Server, writers: list[asyncio.StreamWriter]) -> None:
    server.close()
    for writer in writers:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def gateway(
    *, access_log: AccessLog | None = None, clock: ManualClock | None = None, tls: Any = None, **limits: Any
) -> AsyncGenerator[World]:
    clock = clock or ManualClock()
    slow = grant_of(Rights("acme", (), key_rate=Rate(1.0)), "slow")  # with a bucket of its own
    decider = FakeDecider({KEY: ACME, OTHER_KEY: OTHER, SLOW_KEY: slow}, {})
    endpoints = FakeEndpoints()
    server = GatewayServer(
        decider,
        endpoints,
        clock=clock,
        randomness=Randomness(1),
        limits=altered(GatewayLimits(), **limits),
        access_log=access_log,
        knows=lambda: "revision=7",
        health=lambda: (503, {"status": "filling"}),
    )
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.serve("127.0.0.1", 0, ready=port.set_result, tls=tls))
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        world = World(server, clock, decider, endpoints, await port, running, stack)
        try:
            yield world
        finally:
            for writer in world.writers:
                writer.transport.abort()
            await world.until(lambda: running.done() or not server.connections)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, list[str]], bytes]:
    """What an app gets: the request line, the headers by name, the body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.split("\r\n")[:-2]
    headers: dict[str, list[str]] = {}
    for line in rest:
        name, _, value = line.partition(": ")
        headers.setdefault(name, []).append(value)
    body = b""
    if "transfer-encoding" in headers:
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"][0]))
    return first, headers, body


def echo(seen: list[tuple[str, dict[str, list[str]], bytes]] | None = None, name: str = "") -> App:
    """An app that answers every request with its own name, the request line and the body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if seen is not None:
                seen.append(request)
            first, _, body = request
            answer = f"{name}{first}|".encode() + body
            shown = b"" if first.startswith("HEAD ") else answer
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), shown))
            await writer.drain()

    return serve


def answering(data: bytes, *, then_close: bool = True, after: asyncio.Event | None = None) -> App:
    """An app that answers each request with these bytes, whatever they are."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            if after is not None:
                await after.wait()
            writer.write(data)
            await writer.drain()
            if then_close:
                return

    return serve


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
