"""One process of a real part: started under a guard, watched through its output, stopped, killed, frozen.

Used by `kafka.py` and `postgres.py`, which are `Engine`s. Everything here blocks; asynchronous callers go
through `asyncio.to_thread`.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

START_SECONDS = 90.0
"""Far more than a start takes, even with every core busy; what fails says so earlier."""
GUARD = Path(__file__).with_name("guard.py")
_MEMORY_FREE_MIN = 2 << 30
PORTS = range(15_000, 30_000)
"""Below what systems give to outgoing connections: a part that is down for a while finds its port free
again."""


class EngineError(Exception):
    """A real part did not do what it was told: the message ends with the last lines that it wrote."""


class MissingEngineError(Exception):
    """A real part cannot be had on this machine: the message says what is missing and how to get it."""


def memory_folder() -> str | None:
    """A folder in memory with much space: a commit there waits for no disk, and a database is made in 10 ms
    instead of 250.
    """
    place = "/dev/shm"  # noqa: S108
    with contextlib.suppress(OSError):
        if shutil.disk_usage(place).free > _MEMORY_FREE_MIN and os.access(place, os.W_OK):
            return place
    return None


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row on which nobody listens."""
    while True:
        first = random.choice(PORTS[: len(PORTS) - count + 1])  # noqa: S311 - two starters rarely meet
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what is left of old connections is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def until_ended(processes: Sequence[psutil.Process], seconds: float = 10.0) -> None:
    """Wait until they run no more. Whoever inherits orphans may take seconds to ask how they ended."""
    end = time.monotonic() + seconds
    while any(_runs(process) for process in processes) and time.monotonic() < end:
        time.sleep(0.005)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class GuardedProcess:
    """A process with its log file. `signal_at_end` is what its guard sends when the starter is gone."""

    def __init__(
        self,
        name: str,
        log: Path,
        *,
        home: Path,
        signal_at_end: signal.Signals = signal.SIGKILL,
        user: str = "",
    ) -> None:
        self.name, self.log, self._home = name, log, home
        self._signal_at_end, self._user = signal_at_end, user
        self._guard: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self._from = 0
        """Where in the log this start began, in bytes."""

    def launch(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start the command; `ready` waits until it is up."""
        if self.is_running():
            raise EngineError(f"{self.name} runs already")
        self._from = self.log.stat().st_size if self.log.exists() else 0
        words = [f"{self._signal_at_end.value}", self._user, str(self._home), *command]
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for whoever started us
            )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise self.failed("cannot be started")
        self.pid = int(line)

    def ready(self, sign: str, seconds: float = START_SECONDS) -> None:
        """Wait until the log says `sign`; raises `EngineError` with the log's end if it never does."""
        end = time.monotonic() + seconds
        while sign not in self.written():
            if not self.is_running():
                raise self.failed("ended while it started")
            if time.monotonic() > end:
                raise self.failed(f"was not up after {seconds:.0f} s")
            time.sleep(0.01)

    def written(self) -> str:
        """What was written to the log since the last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def failed(self, what: str, lines: int = 20) -> EngineError:
        """An error that shows the log's end, without Java's stack frames: the causes stand between them."""
        said = [line for line in self.written().splitlines() if not line.startswith("\tat ")]
        tail = "\n".join(said[-lines:])
        return EngineError(f"{self.name} {what}; its log ({self.log}) ends:\n{tail or '(nothing)'}")

    def is_running(self) -> bool:
        """Whether the process has not ended; a frozen one has not."""
        return self._guard is not None and self._guard.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        if not self.is_running():
            raise EngineError(f"{self.name} does not run")
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> None:
        """Ask it to end and wait; kill it if it does not. Nothing to do when it does not run."""
        if not self.is_running():
            return
        self.thaw()
        with contextlib.suppress(ProcessLookupError):
            self.send(number)
        if not self._ended(seconds):
            self.kill()

    def kill(self) -> None:
        """End it at once, as a power cut would, but for what the operating system still writes."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):  # it is just ending
                self.send(signal.SIGKILL)
            if not self._ended(10.0):
                raise self.failed("was killed and did not end")

    def freeze(self) -> None:
        """Stop it in its tracks, its children too: connections stay open and nothing answers."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                while process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
                    time.sleep(0.001)

    def thaw(self) -> None:
        """Let it go on from where it was frozen."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def memory_bytes(self) -> int:
        """What it and its children hold in memory."""
        return sum(process.memory_info().rss for process in self._family())

    def cpu_seconds(self) -> float:
        """Processor time spent by it and its living children."""
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    def _family(self) -> list[psutil.Process]:
        """The process first, so that a frozen one starts no further children."""
        if not self.is_running():
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _ended(self, seconds: float) -> bool:
        assert self._guard is not None
        try:
            self._guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Its code once it has ended by itself: 128 and the signal if one ended it."""
        if not self._ended(seconds):
            raise self.failed(f"did not end in {seconds:.0f} s")
        assert self._guard is not None
        return self._guard.returncode

    def close(self) -> None:
        """Forget the guard, which must have ended."""
        if self._guard is not None:
            for pipe in (self._guard.stdin, self._guard.stdout):
                if pipe is not None:
                    pipe.close()
            self._guard.wait(10.0)
            self._guard = None


class Engine(ABC):
    """A real part that runs inside a block: `with`, or `async with`, which does not hold up the loop."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what it needs before it can start."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers."""

    @abstractmethod
    def close(self) -> None:
        """End it and what it made; also after a start that failed half-way."""

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)
