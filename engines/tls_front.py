"""TLS before a PostgreSQL that was built without: a proxy that answers a client's wish for TLS and decrypts.

    async with TlsFront(postgres.port, authority.issue("postgres")) as front:
        psycopg.connect(f"postgresql://…@localhost:{front.port}/db?sslmode=verify-full&sslrootcert={authority.trust}")

What a client sees is a server with TLS: its certificate, its refusal to speak without. See "SSL Session
Encryption" in PostgreSQL's documentation of its protocol.
"""

import asyncio
import ssl
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

SSL_REQUEST = 80877103
_CHUNK_BYTES = 1 << 16


class TlsFront:
    """One port with TLS before one without, both on loopback, in the running event loop."""

    def __init__(self, target: int, keys: Path) -> None:
        """`keys`: a private key and its certificate in one PEM file."""
        self.port = 0
        self._target = target
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(keys)
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        try:
            if not await self._greeted(reader, client):
                return
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, server))
                    group.create_task(_pump(answers, client))
            finally:
                server.transport.abort()
        except* (OSError, EOFError):
            pass
        finally:
            client.transport.abort()

    async def _greeted(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> bool:
        """Whether the client asked for TLS and took our certificate; who does not ask is told why not."""
        size, wish = struct.unpack(">ii", await reader.readexactly(8))
        if wish != SSL_REQUEST:
            words = b"SFATAL\0C28000\0Mthis server speaks TLS only\0\0"
            await reader.readexactly(max(0, size - 8))
            client.write(b"E" + struct.pack(">i", 4 + len(words)) + words)
            await client.drain()
            client.close()
            await client.wait_closed()
            return False
        client.write(b"S")
        await client.drain()
        await client.start_tls(self._tls)
        return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on; the end of one side is the end of both."""
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    raise EOFError
