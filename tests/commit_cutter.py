"""A connection to PostgreSQL that breaks at the commit of a write: just before it, or before its answer."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

BEFORE = "before the commit"
AFTER = "before its answer"

_COMMIT = b"COMMIT\0"
"""The statement, and what the server says when it is done; one that begins says READ COMMITTED."""


class CommitCutter:
    """Stands before the server at `port`; `cut` says what happens to the next write's commit."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.port = 0
        self.cut = ""
        self.cuts = 0

    async def serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        replies, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        back = asyncio.create_task(pass_on(replies, answers))
        writing = False
        try:
            while data := await client.read(1 << 16):
                writing = writing or b"FOR UPDATE" in data
                if self.cut and writing and _COMMIT in data:
                    self.cuts += 1
                    how, self.cut = self.cut, ""
                    back.cancel()
                    await asyncio.wait([back])
                    if how is AFTER:
                        server.write(data)
                        await replies.readuntil(_COMMIT)
                    return
                writing = writing and _COMMIT not in data
                server.write(data)
        finally:
            for end in (answers, server):
                end.transport.abort()
            await asyncio.gather(back, return_exceptions=True)


async def pass_on(replies: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await replies.read(1 << 16):
            answers.write(data)
    answers.transport.abort()


@contextlib.asynccontextmanager
async def commit_cutter(server_port: int) -> AsyncGenerator[CommitCutter]:
    cutter = CommitCutter(server_port)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    cutter.port = server.sockets[0].getsockname()[1]
    try:
        yield cutter
    finally:
        server.close()
