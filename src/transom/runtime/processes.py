"""Local processes with an identity: started once, found again, ended whole.

A process outlives whoever started it. Each has a folder with a small record, a lock and its output; from
these a later starter knows whether it still runs, so that nothing is ever started twice:

1. The lock is taken and the intent {nonce, about} is on disk: `driver.intended`.
2. The process is spawned with the nonce in its environment and the locked file inherited. The lock is held
   for as long as it lives, from before `exec` on: `driver.spawned`.
3. Its pid and start time are on disk: `driver.recorded`.

Who finds an intent without a pid asks the lock first and then looks for the nonce among the processes; a
lock that is held by nobody, and a nonce that nobody carries, mean that nothing runs.

The process driver (`region.drivers.process`) and `transom up` stand on this.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from transom.model.errors import UNREADABLE, ConflictError, ExistsError, InvalidError, Problem
from transom.model.resources import JsonObject, to_json
from transom.runtime.clock import Clock
from transom.runtime.randomness import new_secret
from transom.runtime.secret_files import write_private
from transom.runtime.steps import step

NONCE = "TRANSOM_NONCE"
RECORD_FILE = "process.json"
OUTPUT_BYTES_MAX = 10 * 1024 * 1024

_LOCK_FILE = "lock"
_OUTPUT_FILE = "output.log"
_OUTPUT_BYTES_KEPT = 256 * 1024
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_LOOK_SECONDS = 0.02
_LOOKS_MAX = 250
_START_FIELD = 19  # of /proc/PID/stat, counted after the program's name: field 22 of proc(5)


class ProcessRecord(msgspec.Struct, frozen=True):
    """What is remembered of a process. `pid` 0: an intent, whose process was not recorded yet.

    `started` is the kernel's start time (ticks since boot: no clock can change it). `about` is the
    starter's own.
    """

    nonce: str
    pid: int = 0
    started: float = 0.0
    stopping: bool = False
    about: JsonObject = {}


def minimal_environment(declared: Mapping[str, str]) -> dict[str, str]:
    """What a child gets: where programs and files are, and what was declared; never all of ours."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(declared)


def recall(folder: Path) -> ProcessRecord | None:
    """The record in `folder`; None when nothing was ever intended there. Raises `InvalidError`."""
    try:
        return msgspec.json.decode((folder / RECORD_FILE).read_bytes(), type=ProcessRecord)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise InvalidError(f"process record {folder / RECORD_FILE}", [Problem("", str(error))]) from None


class LocalProcess:
    """One process and its folder. Made by `launch` and `find`."""

    def __init__(self, folder: Path, record: ProcessRecord) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def launch(
        cls,
        folder: Path,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        about: JsonObject,
        cwd: Path | None = None,
    ) -> "LocalProcess":
        """Start `command` with `environment` alone, in a session of its own. Blocks (fsync, exec): a few ms.

        Raises `ConflictError` when something of the folder's former process is still alive, `OSError` when
        the program cannot be started.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take(lock, f"something that was started in {folder} is still alive; end it first")
            process = cls(folder, ProcessRecord(new_secret(), about=about))
            process._remember()
            step("driver.intended")
            process._spawn(lock, command, environment, cwd)
        finally:
            os.close(lock)
        return process

    @classmethod
    async def find(cls, folder: Path, clock: Clock) -> "LocalProcess | None":
        """The process of the folder's record if it is alive, its pid recorded if it was not yet."""
        record = await asyncio.to_thread(recall, folder)
        if record is None:
            return None
        process = cls(folder, record)
        if record.pid:
            return process if await asyncio.to_thread(process.is_alive) else None
        for _ in range(_LOOKS_MAX):
            # The lock first: what holds none now either carries the nonce already or is gone.
            held = process.is_locked()
            leader = await asyncio.to_thread(process._leader)
            if leader is not None:
                await asyncio.to_thread(process._record_pid, leader)
                return process
            if not held:
                return None
            await clock.sleep(_LOOK_SECONDS)  # between fork and exec the nonce cannot be seen yet
        return None  # the lock is still held, so `launch` will refuse to start a second one

    def is_alive(self) -> bool:
        """Whether pid, start time and nonce are those of a running process; a zombie is dead.

        A program may overwrite its environment (to show a title in `ps`); then the held lock vouches for it.
        """
        pid = self.record.pid
        if pid == 0:
            return False
        try:
            found = psutil.Process(pid)
            # Older kernels show a zombie's environment as empty, and a child of it may hold the lock.
            if found.status() == psutil.STATUS_ZOMBIE or _started(pid) != self.record.started:
                return False
            nonce = _nonce_of(found)
        except psutil.NoSuchProcess:
            return False
        return self.is_locked() if nonce is None else nonce == self.record.nonce

    def is_locked(self) -> bool:
        """Whether anything that inherited the folder's lock is alive."""
        try:
            lock = os.open(self.folder / _LOCK_FILE, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who look at once do not see each other.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(lock)

    async def ended(self, clock: Clock) -> int | None:
        """Wait until it is dead, which is noticed at once; its exit code if it was our child, else None."""
        if self.record.pid == 0:
            return None
        try:
            handle = os.pidfd_open(self.record.pid)
        except ProcessLookupError:
            return None
        except (AttributeError, OSError):  # not Linux 5.3 or newer
            while await asyncio.to_thread(self.is_alive):
                await clock.sleep(_LOOK_SECONDS * 10)
            return self._reap()
        try:
            # The handle stays with this process; the start time tells that it is ours, up to its last moment.
            if _started(self.record.pid) == self.record.started:
                await _readable(handle)
        except psutil.NoSuchProcess:
            return None
        finally:
            os.close(handle)
        return self._reap()

    async def stop(self, clock: Clock, grace_seconds: float) -> None:
        """End it: SIGTERM to its process group, then, after `grace_seconds`, SIGKILL to all that is left."""
        self.record = msgspec.structs.replace(self.record, stopping=True)
        with contextlib.suppress(OSError):  # without room for the mark it is stopped all the same
            await asyncio.to_thread(self._remember)
        step("driver.stopping")
        if await asyncio.to_thread(self.is_alive):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.record.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self.ended(clock)
        await asyncio.to_thread(self.kill)
        await self.ended(clock)
        step("driver.stopped")

    def kill(self) -> None:
        """SIGKILL to everything that carries the nonce, children included."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.record.pid, signal.SIGKILL)
        for process in _carriers(self.record.nonce):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove a folder whose process is gone; the record first, so that half a removal is no process."""
        (folder / RECORD_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _spawn(
        self, lock: int, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None
    ) -> None:
        with (self.folder / _OUTPUT_FILE).open("ab") as output:
            child = subprocess.Popen(  # noqa: S603  # running what was declared is what this is for
                command,
                env={**environment, NONCE: self.record.nonce},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,
            )
        step("driver.spawned")
        try:
            self._record_pid(child.pid)
        except BaseException:
            child.kill()
            child.wait()
            raise
        # From here on it is watched and reaped by pid; Popen would complain that it still runs.
        child.returncode = 0
        step("driver.recorded")

    def _record_pid(self, pid: int) -> None:
        self.record = msgspec.structs.replace(self.record, pid=pid, started=_started(pid))
        self._remember()

    def _remember(self) -> None:
        write_private(self.folder / RECORD_FILE, to_json(self.record).decode())

    def _leader(self) -> int | None:
        for process in _carriers(self.record.nonce):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(process.pid) == process.pid:
                    return process.pid
        return None

    def _reap(self) -> int | None:
        try:
            pid, status = os.waitpid(self.record.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status) if pid else None


def last_output(folder: Path, lines: int = 10, bytes_max: int = 2048) -> str:
    """The last lines that the folder's process wrote, at most `bytes_max` bytes of them."""
    try:
        with (folder / _OUTPUT_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - bytes_max))
            tail = file.read(bytes_max)
    except FileNotFoundError:
        return ""
    text = tail.decode(errors="replace").strip()
    return "\n".join(text.splitlines()[-lines:]).encode()[-bytes_max:].decode(errors="ignore")


def bound_output(folder: Path) -> None:
    """Cut the output to its end when it is over `OUTPUT_BYTES_MAX`; the process goes on appending.

    What it writes while this runs may be lost.
    """
    path = folder / _OUTPUT_FILE
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size <= OUTPUT_BYTES_MAX:
        return
    with path.open("r+b") as file:
        file.seek(size - _OUTPUT_BYTES_KEPT)
        kept = file.read(_OUTPUT_BYTES_KEPT)
        file.truncate(0)
    with path.open("ab") as file:
        file.write(kept)


@contextlib.contextmanager
def folder_held(folder: Path, what: str = "configuration") -> Generator[None]:
    """Hold a data folder for this process alone; made when there is none.

    Raises `ExistsError` naming who holds it, `InvalidError` about `what`, whose `data` names the folder, when
    it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        wrong = f"folder {folder} cannot be made or written to: {error}"
        raise InvalidError(what, [Problem("data", wrong)]) from None
    try:
        try:
            _take(lock, "")
        except ConflictError:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ExistsError(
                f"data folder {folder} is in use by process {owner}; end that process first, "
                f"or name another folder"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _take(lock: int, otherwise: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(otherwise) from None


def _started(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return psutil.Process(pid).create_time()  # not Linux, or gone (then this says so)
    return float(stat.rpartition(b")")[2].split()[_START_FIELD])


def _nonce_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(NONCE)
    except (psutil.AccessDenied, OSError):
        return None


def _carriers(nonce: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if _nonce_of(process) == nonce and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.NoSuchProcess:
            continue


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(handle)
