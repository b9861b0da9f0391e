"""A gateway's way to its region's log: the file itself, or the server before it.

A gateway never makes the log: a file that is missing is the region's to make, and until then there is none.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from transom.logs.protocol import Log
from transom.logs.remote import RemoteLog
from transom.logs.sqlite import SqliteLog
from transom.model.errors import InvalidError, Problem, UnreachableError
from transom.region.gateway.config import GatewayConfig
from transom.runtime.clock import Clock
from transom.runtime.secret_files import read_secret

_LOOK_SECONDS = 1.0


class RegionLog:
    """Opens the log that a gateway's configuration names, each time it is asked to."""

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._opened: tuple[int, int] | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Log]:
        """The log, open inside the block. Raises `UnreachableError` when there is none, `InvalidError` when
        its key or its certificate cannot be read.
        """
        place = self._config.log
        log = await self._file(place) if isinstance(place, Path) else await self._server(place)
        try:
            yield log
        finally:
            await log.close()

    async def until_replaced(self) -> None:
        """Wait until the file is another than the one that was opened, which goes on being read without
        anybody writing to it; `UnreachableError` then. A server speaks for itself: this waits for ever.
        """
        place = self._config.log
        if not isinstance(place, Path):
            await asyncio.Event().wait()
            return
        while await asyncio.to_thread(_identity, place) == self._opened:
            await self._clock.sleep(_LOOK_SECONDS)
        raise UnreachableError(f"log {place} was taken away or replaced; it is opened anew")

    async def _file(self, path: Path) -> Log:
        self._opened = await asyncio.to_thread(_identity, path)
        if self._opened is None:
            raise UnreachableError(f"there is no log at {path}; the region's own process makes it")
        return await SqliteLog.open(path, self._clock)

    async def _server(self, url: str) -> Log:
        key_file, trust = self._config.log_key_file, self._config.log_trust
        if key_file is None:
            raise InvalidError(f"log {url}", [Problem("log_key_file", "is missing")])
        key = await asyncio.to_thread(read_secret, key_file)
        tls = None
        if trust is not None:
            try:
                tls = await asyncio.to_thread(ssl.create_default_context, cafile=str(trust))
            except OSError as error:
                wrong = Problem("log_trust", f"cannot be read as certificates: {error}")
                raise InvalidError(f"log {url}", [wrong]) from None
        return RemoteLog(url, key, tls=tls)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is; None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # one call, whatever the path is
    except OSError:
        return None
    return found.st_dev, found.st_ino
