"""Time as one small interface."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What may be asked about time. Durations are seconds."""

    def wall(self) -> float:
        """Seconds since 1970; may jump. For people and for records, never for measuring."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go forward; for measuring and for deadlines within this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's time. Inside an event loop with virtual time, sleeping is virtual too."""

    # As they are, and not called from a method: a gateway asks for the time with every request.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until told: for tests, and for replaying a scenario.

    `sleep` returns when `advance` has carried the time past its end.
    """

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._wall = wall
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def wall(self) -> float:
        """The wall time it was made with, plus what it was advanced by."""
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        """What it was advanced by."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced far enough."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleeper = (self._elapsed + seconds, woken)
        self._sleepers.append(sleeper)
        try:
            await woken
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Move the time forward and wake whoever slept until then."""
        self._elapsed += seconds
        for end, woken in self._sleepers:
            if end <= self._elapsed and not woken.done():
                woken.set_result(None)

    @property
    def sleeping(self) -> int:
        """How many are asleep."""
        return sum(not woken.done() for _, woken in self._sleepers)


def timestamp(clock: Clock) -> str:
    """The wall time as it stands in resources."""
    return rfc3339(clock.wall())


def rfc3339(wall: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC, to the microsecond: such texts sort as their times do."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
