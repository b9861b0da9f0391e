"""The gateway's server: listens, keeps time for its connections, and stops without cutting anybody off."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from transom.region.gateway.access_log import AccessLog
from transom.region.gateway.connection import Connection
from transom.region.gateway.decision import Decider, Endpoints
from transom.region.gateway.desk import GatewayDesk
from transom.region.gateway.lasting import LastingRequests
from transom.region.gateway.limits import GatewayLimits
from transom.runtime.clock import Clock
from transom.runtime.http import listening_socket
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger, metrics

log = get_logger(__name__)

_TICK_SECONDS = 0.25
_BACKLOG = 1024


class GatewayServer:
    """Serves the decision endpoint, the apps, and its own health, over HTTP/1.1.

    `knows` is what the header `transom-knows` says to who asks for it; `health` gives the status and the body
    of `/readyz`. One server serves once.
    """

    def __init__(
        self,
        decider: Decider,
        endpoints: Endpoints,
        *,
        clock: Clock,
        randomness: Randomness,
        limits: GatewayLimits | None = None,
        access_log: AccessLog | None = None,
        knows: Callable[[], str] = str,
        health: Callable[[], tuple[int, dict[str, Any]]] = lambda: (200, {"status": "ok"}),
    ) -> None:
        self._clock = clock
        self._access_log = access_log
        desk = self._desk = GatewayDesk(
            decider,
            endpoints,
            clock=clock,
            randomness=randomness,
            limits=limits or GatewayLimits(),
            access_log=access_log,
            knows=knows,
            health=health,
        )
        self._lasting = LastingRequests(decider, desk.connections, clock)

    @property
    def errors(self) -> int:
        """How many requests failed for the gateway's own fault: it could not tell."""
        return self._desk.stats.errors

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._desk.connections)

    async def serve(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        ready: Callable[[int], None] | None = None,
    ) -> None:
        """Serve until cancelled. `ready` is called with the port (a free one for 0) once it accepts.

        When cancelled, it accepts no more, closes idle connections, and gives requests under way
        `drain_seconds`; cancelled again, it closes everything at once. Raises `InvalidError` when the port is
        in use, the host is not one of this machine's, or is reachable from outside without `tls`.
        """
        desk = self._desk
        listener = listening_socket(host, port, tls=tls)
        desk.scheme = b"https" if tls is not None else b"http"
        self._look_at_the_clock()
        async with asyncio.TaskGroup() as group:
            desk.group = group
            helpers = [
                group.create_task(self._tick_for_ever(), name="gateway clock"),
                group.create_task(self._lasting.run(), name="gateway lasting requests"),
            ]
            if self._access_log is not None:
                helpers.append(group.create_task(self._access_log.run(), name="gateway access log"))
            metrics.register(desk.stats)
            try:
                loop = asyncio.get_running_loop()
                server = await loop.create_server(
                    lambda: Connection(desk), sock=listener, ssl=tls, backlog=_BACKLOG
                )
                try:
                    if ready is not None:
                        ready(listener.getsockname()[1])
                    await loop.create_future()
                finally:
                    server.close()
                    await self._drain()
            finally:
                metrics.unregister(desk.stats)
                await self._close()
                for helper in helpers:
                    helper.cancel()

    async def _drain(self) -> None:
        desk = self._desk
        desk.draining = True
        for connection in tuple(desk.connections):
            connection.drain()
        desk.drained_by = self._clock.monotonic() + desk.limits.drain_seconds
        if desk.connections:
            await desk.drained.wait()
        if desk.connections:
            log.warning("requests cut off after the time to drain", connections=len(desk.connections))

    async def _close(self) -> None:
        for connection in tuple(self._desk.connections):
            connection.transport.abort()
        self._desk.upstreams.close()
        for _ in range(3):
            await asyncio.sleep(0)  # connections hear that they are gone, and what they had is logged

    async def _tick_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_TICK_SECONDS)
            self._look_at_the_clock()
            now = self._desk.now
            for connection in tuple(self._desk.connections):
                if connection.deadline <= now:
                    with contextlib.suppress(OSError):
                        connection.expired()
            self._desk.upstreams.tick(now)
            if now >= self._desk.drained_by:
                self._desk.drained.set()

    def _look_at_the_clock(self) -> None:
        desk, wall = self._desk, self._clock.wall()
        desk.now = self._clock.monotonic()
        desk.wall_offset = wall - desk.now
        desk.date = b"date: %s\r\n" % formatdate(wall, usegmt=True).encode()
