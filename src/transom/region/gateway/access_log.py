"""The access log: one JSON object a line, written in batches, away from the requests.

It never holds key material or a query string. A disk that is slow or full costs lines, which are counted,
and never a request. Files are opened to append, so that `logrotate` with copytruncate works.
"""

import os
import re
import sys
from collections import deque
from pathlib import Path

import msgspec

from transom.model.errors import InvalidError, Problem
from transom.runtime.clock import Clock, rfc3339
from transom.runtime.telemetry import get_logger
from transom.runtime.threads import SerialThread

log = get_logger(__name__)

_WAITING_MAX = 16_384
_BATCH = 2048
_EVERY_SECONDS = 0.25
_PATH_CHARACTERS_MAX = 1024
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE = 0o640
_KEY = re.compile(r"tsm_[0-9A-Za-z]*")


class Line(msgspec.Struct, gc=False):
    """One request, as it is written. `ms` until its answer's last byte was written; `bytes` are of bodies."""

    time: float | str
    """When its head was complete: seconds since 1970 until it is written, as RFC 3339."""
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
        self._waiting: deque[Line] = deque()
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

    def add(self, line: Line) -> None:
        """Have `line` written soon; never waits."""
        if len(self._waiting) < self._most:
            self._waiting.append(line)
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

    def _write_batch(self, lines: list[Line]) -> None:
        _make_fit(lines)
        data = self._encoder.encode_lines(lines)
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
            self.dropped += len(lines)
            log.warning("access log not written", lines=len(lines), error=str(error))


def _make_fit(lines: list[Line]) -> None:
    """Write the times out, and blank what looks like a key in paths."""
    second, shown = -1, ""
    for line in lines:
        began = float(line.time)
        whole = int(began)
        if whole != second:
            second, shown = whole, rfc3339(whole)[:-7]  # without ".000000Z" but its point
        line.time = f"{shown}{int((began - whole) * 1_000_000):06d}Z"
        line.ms = round(line.ms, 3)
        if len(line.path) > _PATH_CHARACTERS_MAX:
            line.path = line.path[:_PATH_CHARACTERS_MAX]
        if "tsm_" in line.path:
            line.path = _KEY.sub("[secret]", line.path)
