"""Verbs that ask and end, run in the process of their test: quicker than as many processes, and where a test
wants it, with less patience for Kafka clusters that are away. What logs, as processes do, is not for this.
"""

import asyncio
import contextlib
import gc
import io
import os
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from api_parts import KEY, served
from cli_parts import Ran, environment
from tls_parts import say_where
from transom.cli.main import main
from transom.logs import kafka_cluster

Run = Callable[..., Awaitable[Ran]]


@contextlib.asynccontextmanager
async def hub_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A served API, which `transom` finds: it runs in `folder`."""
    async with served(folder / "hub") as api:
        say_where(folder, api.address, KEY)
        monkeypatch.chdir(folder)
        yield api


_ONE_AT_A_TIME = threading.Lock()


async def transom(*arguments: str, cwd: Path, stdin: str = "", **more: str) -> Ran:
    """What `cli_parts.transom` does, without a process of its own."""

    def run() -> Ran:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        given = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
        with (
            _ONE_AT_A_TIME,
            contextlib.chdir(cwd),
            mock.patch.dict(os.environ, environment(**more), clear=True),
            mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err),
        ):
            code = _code_of(arguments)
        return Ran(code, *(each.buffer.getvalue().decode() for each in (out, err)))

    return await asyncio.to_thread(run)


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs `transom` with these arguments to its end where the test is, one at a time."""

    def run(*arguments: str) -> Ran:
        code = _code_of(arguments)
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return lambda *arguments: asyncio.to_thread(run, *arguments)


def _code_of(arguments: Sequence[str]) -> int:
    code = 0
    with warnings.catch_warnings(), mock.patch.object(sys, "argv", ["transom", *arguments]):
        # A TLS connection that was refused still says good-bye when the loop of the verb is over.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.freeze()  # only what the verb leaves is looked through below
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            gc.collect()
            gc.unfreeze()
    return code


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody in this process wait for a Kafka cluster that is away; nor for one that is slow."""
    monkeypatch.setattr(kafka_cluster, "_PATIENCE_SECONDS", 0.3)


def refused(told: Ran, code: int, *said: str) -> None:
    """It ended with this code and with one error that says all of this."""
    errors = [line for line in told.err.splitlines() if line.lower().startswith("error: ")]
    assert (told.code, len(errors)) == (code, 1), told
    for words in said:
        assert words in told.err, told
    assert "Traceback" not in told.err, told
