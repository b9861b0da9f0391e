"""The access log: one JSON object a line, written in batches, away from the requests.

It never holds key material or a query string. A disk that is slow or full costs lines, which are counted,
and never a request. Files are opened to append, so that `logrotate` with copytruncate works.
"""

import os
import re
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from transom.model.api_keys import PREFIXES
from transom.model.errors import InvalidError, Problem
from transom.region.gateway.grants import Grant
from transom.runtime.clock import Clock
from transom.runtime.telemetry import get_logger
from transom.runtime.threads import SerialThread

log = get_logger(__name__)

_WAITING_MAX = 16_384
_BATCH = 256  # small enough for the processor's caches: half the time a line that 2,048 take
_EVERY_SECONDS = 0.25
PATH_BYTES_MAX = 1024
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE = 0o640
_KEY = re.compile(f"(?:{'|'.join(PREFIXES)})[0-9A-Za-z]*")


Ended: TypeAlias = tuple[float, float, str, str, str, str, bytes, int, Grant | None, str, int, int]
"""A request that has ended, as `add` takes it: when its head was complete (seconds since 1970), the seconds
until its answer's last byte was written, the client's address, method, route, app, path, status, under which
grant, instance, and the bytes of both bodies. The path may be followed by a query, which is not written.
"""


class Line(msgspec.Struct, gc=False):
    """One request, as it is written."""

    time: datetime
    ms: float
    client: str
    method: str
    route: str
    app: str
    path: str
    status: int
    tenant: str
    key: str
    instance: str
    bytes_in: int
    bytes_out: int


class AccessLog:
    """Writes lines to `path`, or to standard output without one."""

    def __init__(self, path: Path | None, clock: Clock, *, waiting_max: int = _WAITING_MAX) -> None:
        self._path = path
        self._clock = clock
        self._waiting: deque[Ended] = deque()
        self._most = waiting_max
        self._encoder = msgspec.json.Encoder()
        self.dropped = 0
        """Lines that found no room, or that could not be written."""

    def check(self, what: str) -> None:
        """Raises `InvalidError` about `what` when the file's place is wrong; not for a disk that is full."""
        if self._path is None:
            return
        try:
            # A pipe that nobody reads yet is no reason to wait, or to refuse.
            os.close(os.open(self._path, _OPEN_FLAGS | os.O_NONBLOCK, _MODE))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            wrong = f"{self._path} cannot be written to: {error.strerror}; make its folder, or name another"
            raise InvalidError(what, [Problem("access_log", wrong)]) from None
        except OSError as error:
            log.warning("access log cannot be opened yet", path=str(self._path), error=str(error))

    def add(self, ended: Ended) -> None:
        """Have a line about it written soon; never waits."""
        if len(self._waiting) < self._most:
            self._waiting.append(ended)
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Write until cancelled; then write what waits."""
        thread = SerialThread("access-log")
        try:
            while True:
                await self._clock.sleep(_EVERY_SECONDS)
                if self._waiting:
                    await thread.run(self._write)
        finally:
            thread.post(self._write)
            await thread.close()

    def _write(self) -> None:
        # The lines are taken here, on the thread: of a call that is cancelled none is lost.
        while self._waiting:
            self._write_batch([self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))])

    def _write_batch(self, ended: list[Ended]) -> None:
        data = self._encoder.encode_lines(_lines(ended))
        try:
            if self._path is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
                return
            # Opened anew for each batch: a file that was moved away is not written to for ever.
            file = os.open(self._path, _OPEN_FLAGS, _MODE)
            try:
                while data:
                    data = data[os.write(file, data) :]
            finally:
                os.close(file)
        except OSError as error:
            self.dropped += len(ended)
            log.warning("access log not written", lines=len(ended), error=str(error))


def _lines(batch: list[Ended]) -> list[Line]:
    """What is written about each: times as RFC 3339, paths without query and what looks like a key."""
    lines: list[Line] = []
    for began, seconds, client, method, route, app, asked, status, grant, instance, came, sent in batch:
        time = datetime.fromtimestamp(began, UTC)
        path = _KEY.sub("[secret]", asked.partition(b"?")[0].decode("latin-1"))
        tenant, key = (grant.rights.tenant, grant.key) if grant is not None else ("", "")
        ms = int(1_000_000 * seconds) / 1000
        lines.append(
            Line(time, ms, client, method, route, app, path, status, tenant, key, instance, came, sent)
        )
    return lines
