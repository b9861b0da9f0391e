"""How a process lives: how it begins, how it collects its garbage, and how long it runs."""

import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

from transom.model.errors import UnknownHostError, UnreachableError
from transom.runtime.clock import Clock
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

_TRY_SECONDS = 1.0
_TELL_SECONDS = 60.0
_FILES_MAX = 65_536


@contextlib.asynccontextmanager
async def started(
    parts: Callable[[], AbstractAsyncContextManager[object]], clock: Clock
) -> AsyncGenerator[None]:
    """What `parts` makes, running inside the block; begun anew for as long as an engine it needs is away, so
    that machines may start in any order.

    Raises what `parts` raises otherwise: what somebody has to change, a host name that nobody knows included.
    SIGTERM ends the process at once meanwhile: nothing has begun that needs a farewell.
    """
    told = -_TELL_SECONDS
    async with contextlib.AsyncExitStack() as stack:
        while True:
            try:
                await stack.enter_async_context(parts())
                break
            except UnknownHostError:
                raise
            except UnreachableError as error:
                if clock.monotonic() - told >= _TELL_SECONDS:
                    told = clock.monotonic()
                    log.warning("waiting for what is away, and trying again", error=str(error))
            await clock.sleep(_TRY_SECONDS)
        yield


def collect_seldom() -> None:
    """Have the cycle collector look less often.

    What flows through a hub or a region is freed by reference counts; looking for cycles at the default pace,
    through all that is held, took a third of a busy hub's time (`benchmarks/throughput.py`).
    """
    gc.collect()
    gc.freeze()  # what was loaded at the start stays anyhow
    gc.set_threshold(20_000, 20, 100)


def open_many_files() -> None:
    """Have this process open as many files as it may, as far as that is of use: connections are files.

    What is set at first suits programs that call select(2), which knows 1024; nothing here does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def until_told_to_stop() -> None:
    """Wait for SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        await told.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
