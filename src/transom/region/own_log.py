"""A region's own log: an embedded one with the server before it, or Kafka, which others reach themselves.

Next on the data's way: `service`.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from transom.logs.opening import LogPlace, open_log
from transom.logs.protocol import KeptLog, Log
from transom.logs.server import log_server
from transom.logs.sqlite import SqliteLog
from transom.model.errors import Advice, TransomError
from transom.region.config import RegionConfig
from transom.region.log_file import FileIdentity, identity_of, until_replaced
from transom.region.topics import GATEWAY_RIGHTS, LINK_RIGHTS
from transom.runtime.clock import Clock
from transom.runtime.http import AsgiApp, Receive, Scope, Send
from transom.runtime.randomness import Randomness

_LINK_KEY = "link"
_GATEWAY_KEY = "gateway"


class LogLostError(TransomError):
    """The file of the region's log is not the one that was opened: what is written now, nobody will read."""

    advice = Advice.CRASH


class OwnLog(NamedTuple):
    """The log, what must be done for it all the time, by name, and what serves it to others."""

    log: Log
    chores: Mapping[str, Callable[[], Awaitable[None]]]
    served: AsgiApp


@contextlib.asynccontextmanager
async def own_log(config: RegionConfig, clock: Clock, randomness: Randomness) -> AsyncGenerator[OwnLog]:
    """The log of `config`'s region, open inside the block."""
    if config.log:
        log = await open_log(LogPlace(config.log, config.log_key_file, config.log_trust), clock, randomness)
        opened = OwnLog(log, {}, _nothing)
    else:
        opened = await _embedded(config, clock, randomness)
    try:
        yield opened
    finally:
        await opened.log.close()


async def _embedded(config: RegionConfig, clock: Clock, randomness: Randomness) -> OwnLog:
    file = config.data / "log.db"
    log = await SqliteLog.open(file, clock)
    identity = identity_of(file)
    hashes = {_LINK_KEY: config.link_key_hash, _GATEWAY_KEY: config.gateway_key_hash}
    keys = {name: hashed for name, hashed in hashes.items() if hashed is not None}
    chores = {
        "log cleaning": lambda: _clean(log, config.clean_seconds, clock, randomness),
        "log file": lambda: _watch(file, identity, clock),
    }
    return OwnLog(log, chores, log_server(log, keys, {_LINK_KEY: LINK_RIGHTS, _GATEWAY_KEY: GATEWAY_RIGHTS}))


async def _watch(file: Path, opened: FileIdentity | None, clock: Clock) -> None:
    await until_replaced(file, opened, clock)
    raise LogLostError(
        f"log {file} was removed or replaced while the region ran; if that was a mistake, put it back. "
        "Then start the region again: it reads what is there, or makes a new log that the hub fills"
    )


async def _clean(log: KeptLog, every_seconds: float, clock: Clock, randomness: Randomness) -> None:
    while True:
        await clock.sleep(randomness.jitter(every_seconds))
        await log.clean(clock)


async def _nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    """What is asked of the server of a log that has none."""
    if scope["type"] == "http":
        body = b"this region's log is in Kafka; there is only /healthz and /metrics here\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})
