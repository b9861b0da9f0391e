"""Verbs that ask and end, run in the process of their test: quicker than as many processes, and where a test
wants it, with less patience for Kafka clusters that are away. What logs, as processes do, is not for this.
"""

import asyncio
import contextlib
import gc
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from api_parts import KEY, served
from cli_parts import Ran
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


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs `transom` with these arguments to its end, one at a time."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["transom", *arguments])
        code = 0
        with warnings.catch_warnings():
            # A TLS connection that was refused still says good-bye when the loop of the verb is over.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
            gc.collect()
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return lambda *arguments: asyncio.to_thread(run, *arguments)


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
