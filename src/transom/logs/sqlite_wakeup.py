"""Waking those who wait for appends, in this process and in others, without anybody polling.

Each process that waits keeps a named pipe in the folder beside the log; whoever has committed writes one
byte to each. A wake-up is only a hint: the waiter registers first, looks by offset, and waits only then,
so none is ever lost; and a byte too many costs one look. A pipe nobody reads belongs to a process that
died, and whoever finds it removes it. Next on the data's way: `sqlite`.
"""

import asyncio
import contextlib
import errno
import os
from pathlib import Path

from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level

_READ_BYTES = 65_536  # a pipe's whole capacity
_DRAFT = "."


class Wakeup:
    """This process's pipe and the way to everybody else's. `changed` rises when something was appended."""

    def __init__(self, folder: Path) -> None:
        self.changed = Level()
        self._folder = folder
        self._name = f"{os.getpid()}-{Randomness().uid()}"
        self._loop = asyncio.get_running_loop()
        self._pipe: int | None = None

    def listen(self) -> None:
        """Have other processes' appends raise `changed`, from now until `close`. Call it before looking."""
        if self._pipe is not None:
            return
        # Opened under a name that writers skip: one that met it without a reader would take it for dead.
        draft = self._folder / f"{_DRAFT}{self._name}"
        os.mkfifo(draft, 0o600)
        pipe = os.open(draft, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        draft.rename(self._folder / self._name)
        self._loop.add_reader(pipe, self._woken, pipe)
        self._pipe = pipe

    def _woken(self, pipe: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(pipe, _READ_BYTES)
        self.changed.rise()

    def ring(self) -> None:
        """Say that something was appended; from any thread. Never fails: what was appended, was."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody here waits any more
            self._loop.call_soon_threadsafe(self.changed.rise)
        try:
            pipes = list(self._folder.iterdir())
        except OSError:
            return
        for pipe in pipes:
            if pipe.name != self._name and not pipe.name.startswith(_DRAFT):
                _ring(pipe)

    def close(self) -> None:
        """Remove the pipe."""
        if self._pipe is not None:
            (self._folder / self._name).unlink(missing_ok=True)
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None


def _ring(path: Path) -> None:
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # its reader died without removing it
            with contextlib.suppress(OSError):
                path.unlink()
        return
    try:
        with contextlib.suppress(OSError):  # full: its reader has enough to wake for
            os.write(pipe, b"\0")
    finally:
        os.close(pipe)
