"""How a process lives: how it collects its garbage, and how long it runs."""

import asyncio
import gc
import signal


def collect_seldom() -> None:
    """Have the cycle collector look less often.

    What flows through a hub or a region is freed by reference counts; looking for cycles at the default pace,
    through all that is held, took a third of a busy hub's time (`benchmarks/throughput.py`).
    """
    gc.collect()
    gc.freeze()  # what was loaded at the start stays anyhow
    gc.set_threshold(20_000, 20, 100)


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
