"""Processes of parts for tests, forked from one that has imported everything: nine tenths of a start.

A part is what it is elsewhere: the same program, a process of its own in a session of its own, with its
environment, its output and its end by whatever ends it. Only its imports are those of the process it comes
from, which does nothing else; it is started when the first part is, and ends with the tests.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from benchmarks.plant import Part, fresh

NURSERY = Path(__file__).with_name("warm_nursery.py")


class Warm:
    """A process, as `subprocess.Popen` shows one."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid, self.returncode = pid, None
        self._nursery = nursery

    def poll(self) -> int | None:
        """Its code once it has ended: minus the signal if one ended it."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its code when it has ended."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:  # nobody else gets its number before this was asked
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that others are forked from."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        with its:
            command = [sys.executable, str(NURSERY), str(its.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._asking, self._said = threading.Lock(), ours.makefile("rw")
        ours.close()

    def ask(self, **what: Any) -> Any:
        """Have it do something; its answer."""
        with self._asking:
            self._said.write(json.dumps(what) + "\n")
            self._said.flush()
            return json.loads(self._said.readline())

    def launch(self, program: str, argument: str, environment: Mapping[str, str], output: Path) -> Warm:
        """Start `program`, with what it writes at the end of `output`."""
        output.touch()
        told = {"program": program, "argument": argument, "environment": {**environment}}
        return Warm(self, self.ask(**told, output=str(output)))

    def close(self) -> None:
        """End it; what it has started goes on."""
        self._said.close()
        self._process.wait()


@pytest.fixture(scope="session", autouse=True)
def warm_starts() -> Iterator[None]:
    """Every part is started warm."""
    nurseries: list[Nursery] = []

    def launch(*about: Any) -> Warm:
        if not nurseries:
            nurseries.append(Nursery())
        return nurseries[0].launch(*about)

    with mock.patch.object(Part, "launch", staticmethod(launch)):
        yield
    for nursery in nurseries:
        nursery.close()


@pytest.fixture
def fresh_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what a process is from its first moment: its command line, its environment, its memory."""
    monkeypatch.setattr(Part, "launch", staticmethod(fresh))
