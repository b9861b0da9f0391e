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
        self._waiters: set[asyncio.Future[None]] = set()

    def rise(self, to: int | None = None) -> None:
        """Raise it to `to` (or by one) and wake everyone who waits below that."""
        value = self.value + 1 if to is None else to
        if value > self.value:
            self.value = value
            for waiter in self._waiters:
                _wake(waiter)

    async def above(self, seen: int, timeout_seconds: float | None = None) -> int:
        """Wait until it is above `seen`, or the time is up; returns where it is then."""
        await wait_any([(self, seen)], timeout_seconds)
        return self.value

    def attach(self, waiter: asyncio.Future[None]) -> None:
        """Have `waiter` done at the next rise, unless it is detached before."""
        self._waiters.add(waiter)

    def detach(self, waiter: asyncio.Future[None]) -> None:
        """Leave `waiter` as it is."""
        self._waiters.discard(waiter)


async def wait_any(levels: Iterable[tuple[Level, int]], timeout_seconds: float | None = None) -> bool:
    """Wait until one of the levels is above what was seen of it; False when the time was up first."""
    # A hub wakes hundreds of watchers with every change, so this is a future and a timer, and no more.
    pairs = list(levels)
    loop = asyncio.get_running_loop()
    ends = None if timeout_seconds is None else loop.time() + timeout_seconds
    while not any(level.value > seen for level, seen in pairs):
        if ends is not None and loop.time() >= ends:
            return False
        woken: asyncio.Future[None] = loop.create_future()
        timer = None if ends is None else loop.call_at(ends, _wake, woken)
        for level, _ in pairs:
            level.attach(woken)
        try:
            await woken
        finally:
            if timer is not None:
                timer.cancel()
            for level, _ in pairs:
                level.detach(woken)
    return True


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
