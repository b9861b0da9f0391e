"""A gateway's way to its region's log: the file itself, the server before it, or Kafka.

A gateway never makes the log: a file that is missing is the region's to make, and until then there is none.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from transom.logs.opening import LogPlace, open_log
from transom.logs.protocol import Log
from transom.logs.sqlite import SqliteLog
from transom.model.errors import UnreachableError
from transom.region.gateway.config import GatewayConfig
from transom.region.log_file import FileIdentity, identity_of, until_replaced
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness


class RegionLog:
    """Opens the log that a gateway's configuration names, each time it is asked to."""

    def __init__(self, config: GatewayConfig, clock: Clock, randomness: Randomness) -> None:
        self._config = config
        self._clock = clock
        self._randomness = randomness
        self._opened: FileIdentity | None = None

    async def check(self) -> None:
        """Raises `InvalidError` for what no trying again mends: a server's key file that is missing, or
        open to others; certificates that cannot be read; an address that the key must not go to. Asks nobody.
        """
        place = self._config.log
        if not isinstance(place, Path):
            await (await self._address(place)).close()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Log]:
        """The log, open inside the block. Raises `UnreachableError` when there is none, `InvalidError` when
        its key or its certificate cannot be read.
        """
        place = self._config.log
        log = await self._file(place) if isinstance(place, Path) else await self._address(place)
        try:
            yield log
        finally:
            await log.close()

    async def until_replaced(self) -> None:
        """Wait until the file is another than the one that was opened, which goes on being read without
        anybody writing to it; `UnreachableError` then. Whoever has an address speaks for itself: then this
        waits for ever.
        """
        place = self._config.log
        if not isinstance(place, Path):
            await asyncio.Event().wait()
            return
        await until_replaced(place, self._opened, self._clock)
        raise UnreachableError(f"log {place} was taken away or replaced; it is opened anew")

    async def _file(self, path: Path) -> Log:
        self._opened = await asyncio.to_thread(identity_of, path)
        if self._opened is None:
            raise UnreachableError(f"there is no log at {path}; the region's own process makes it")
        return await SqliteLog.open(path, self._clock)

    async def _address(self, url: str) -> Log:
        place = LogPlace(url, self._config.log_key_file, self._config.log_trust)
        return await open_log(place, self._clock, self._randomness)
