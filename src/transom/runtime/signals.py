"""A level that rises, and waiting until it has risen: the wake-up between parts of one process.

Level-based on purpose: whoever waits says what it has seen, so a rise between looking and waiting is never
lost, and many rises wake a sleeper once.
"""

import asyncio
from collections.abc import Iterable


class Level:
    """A number that only rises: a revision, an offset, a count of changes."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._waiters: set[asyncio.Event] = set()

    def rise(self, to: int | None = None) -> None:
        """Raise it to `to` (or by one) and wake everyone who waits below that."""
        value = self.value + 1 if to is None else to
        if value > self.value:
            self.value = value
            for waiter in self._waiters:
                waiter.set()

    async def above(self, seen: int, timeout_seconds: float | None = None) -> int:
        """Wait until it is above `seen`, or the time is up; returns where it is then."""
        await wait_any([(self, seen)], timeout_seconds)
        return self.value

    def attach(self, waiter: asyncio.Event) -> None:
        """Have `waiter` set at every rise until `detach`."""
        self._waiters.add(waiter)

    def detach(self, waiter: asyncio.Event) -> None:
        """Stop setting `waiter`."""
        self._waiters.discard(waiter)


async def wait_any(levels: Iterable[tuple[Level, int]], timeout_seconds: float | None = None) -> bool:
    """Wait until one of the levels is above what was seen of it; False when the time was up first."""
    pairs = list(levels)
    risen = asyncio.Event()
    for level, _ in pairs:
        level.attach(risen)
    try:
        async with asyncio.timeout(timeout_seconds):
            while not any(level.value > seen for level, seen in pairs):
                risen.clear()
                await risen.wait()
    except TimeoutError:
        return False
    else:
        return True
    finally:
        for level, _ in pairs:
            level.detach(risen)
