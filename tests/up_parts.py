"""A running `transom up` for tests: what it says, its parts killed and started again by hand."""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket

import psutil
import pytest

from cli_parts import TRANSOM, environment
from transom.runtime.processes import RECORD_FILE, LocalProcess, recall

PATIENCE_SECONDS = 30


class Up:
    """A running `transom up`: its output, line by line."""

    def __init__(self, folder, process):
        self.folder = folder
        self.process = process
        self.said = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, folder, *arguments):
        process = await asyncio.create_subprocess_exec(
            TRANSOM,
            "up",
            *arguments,
            cwd=folder,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            yield cls(folder, process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def until_said(self, pattern):
        """Read on until what was read since the last call matches."""
        read = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := re.search(pattern, read)):
                line = (await self.process.stdout.readline()).decode()
                assert line, f"ended before it said {pattern!r}:\n{self.said}"
                read += line
                self.said += line
        return found

    def pid_of(self, part):
        """The pid in the table."""
        return int(re.findall(rf"^{part} +http\S+ +(\d+) ", self.said, re.MULTILINE)[-1])

    async def interrupted(self):
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@pytest.fixture
async def folder(tmp_path):
    """A folder whose processes are all gone when the test is over, however it ends."""
    yield tmp_path
    for record in tmp_path.rglob(RECORD_FILE):
        process = LocalProcess(record.parent, recall(record.parent))
        if process.is_alive():
            process.kill()
    for lock in tmp_path.rglob("owner.lock"):
        with contextlib.suppress(ValueError, psutil.NoSuchProcess):
            process = psutil.Process(int(lock.read_text()))
            if "transom" in " ".join(process.cmdline()) and process.pid != os.getpid():
                process.kill()


@pytest.fixture
def port():
    """The first of seven free ports in a row."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                for number in range(first + 1, first + 7):
                    stack.enter_context(socket.create_server(("127.0.0.1", number)))
            except OSError:
                continue
            return first


async def eventually(true):
    """Wait for another process's effect; returns what `true` returns once it is something."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            result = true()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.05)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def by_hand(folder, line):
    """A printed line, typed in another terminal."""
    process = await asyncio.create_subprocess_exec(
        *shlex.split(line),
        cwd=folder,
        env=environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
