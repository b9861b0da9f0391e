"""The processes that `transom up` looks after: found, started, asked whether they are ready, stopped.

A part is known by the lock on its data folder: whoever holds it is the part, started by `up`, by an earlier
`up`, or by hand. So what is printed when a part has died, and typed by somebody, is noticed and stopped like
the rest.
"""

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from transom.model.errors import InvalidError, Problem
from transom.runtime.clock import Clock
from transom.runtime.processes import LocalProcess, bound_output, last_output, minimal_environment

GRACE_SECONDS = 5.0
LOOK_SECONDS = 0.1

_READY_SECONDS = 30.0
_ASK_SECONDS = 1.0


@dataclass
class Part:
    """The hub or a region: `arguments` of `transom` start it, `data` is its folder, `run` its process's.

    `tls` says whom to trust at its address, by default what the system trusts.
    """

    name: str
    arguments: tuple[str, ...]
    address: str
    data: Path
    run: Path
    clock: Clock
    tls: ssl.SSLContext | None = None
    process: LocalProcess | None = field(default=None, init=False)

    @property
    def command_line(self) -> str:
        """What to type to start it by hand."""
        return f"{program()} {shlex.join(self.arguments)}"

    @property
    def log(self) -> Path:
        """What it wrote, when `up` started it."""
        return self.run / "output.log"

    def pid(self) -> int:
        """Who holds its data folder; 0 when nobody does."""
        path = self.data / "owner.lock"
        try:
            said = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return 0
        # The lock is tried only when it is surely held: a part that starts now must not find it taken by us.
        if not said.isdigit() or not _is_alive(int(said)):
            return 0
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(said)
        else:
            return 0
        finally:
            os.close(lock)

    async def adopt(self) -> bool:
        """Whether it runs already; then it is looked after like one that was started."""
        self.process = await LocalProcess.find(self.run, self.clock)
        return self.process is not None or self.pid() != 0

    def start(self) -> None:
        """Start it. Blocks for a few ms."""
        self.bound_log()
        command = [sys.executable, "-m", "transom", *self.arguments]
        # Modules of contexts and kinds are found where this process would find them.
        path = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        environment = minimal_environment({"PYTHONUNBUFFERED": "1", **path})
        about = {"part": self.name}
        self.process = LocalProcess.launch(self.run, command, environment=environment, about=about)

    async def ready(self, http: aiohttp.ClientSession) -> None:
        """Wait until it answers. Raises `InvalidError` when it ends, or does not answer in 30 s."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self.answers(http):
                    if self.process is not None and not self.process.is_alive() and not self.pid():
                        raise self._failed("ended while starting")
                    await self.clock.sleep(LOOK_SECONDS / 2)
        except TimeoutError:
            raise self._failed(f"does not answer at {self.address}") from None

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when it is not gone soon."""
        pid = self.pid()
        process = self.process
        if process is not None:
            await process.stop(self.clock, GRACE_SECONDS)
        if pid and (process is None or pid != process.record.pid):
            await self._stop_by_hand(pid)

    def bound_log(self) -> None:
        """Cut its log when it has become long."""
        bound_output(self.run)

    async def reap(self) -> None:
        """Take note of the end of the process that was started, so that no zombie is left."""
        if self.process is not None and not self.process.is_alive():
            await self.process.ended(self.clock)
            self.process = None

    async def _stop_by_hand(self, pid: int) -> None:
        # The lock says that this pid is alive and is the part: no other process can have taken the number.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    while self.pid() == pid:
                        await self.clock.sleep(LOOK_SECONDS / 2)
            if self.pid() != pid:
                return

    async def answers(self, http: aiohttp.ClientSession) -> bool:
        """Whether it runs and its server answers."""
        if not self.pid():
            return False
        try:
            timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
            async with http.get(f"{self.address}/healthz", timeout=timeout, ssl=self.tls or True) as response:
                return response.ok
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _failed(self, what: str) -> InvalidError:
        said = last_output(self.run) or f"nothing; see {self.log}"
        return InvalidError(self.name, [Problem("", f"{what}; it said last:\n{said}")])


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def program() -> str:
    """How to call this program from where we are."""
    called = Path(sys.argv[0])
    if called.name != "transom":
        return f"{shlex.quote(sys.executable)} -m transom"
    found = shutil.which("transom")
    if found and called.exists() and Path(found).samefile(called):
        return "transom"
    here = Path.cwd()
    absolute = called.absolute()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))
