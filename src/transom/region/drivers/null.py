"""A driver that does nothing: whatever it is asked for is healthy at once. For benchmarks and tests.

Nothing outlives it, so whoever opens it again starts anew.
"""

import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec

from transom.region.driver import Launch, Observed, Phase
from transom.runtime.clock import Clock, timestamp
from transom.runtime.signals import Level


class NullDriver:
    """See `region.driver.Driver`."""

    def __init__(self, clock: Clock) -> None:
        self.changed = Level()
        self._clock = clock
        self._instances: dict[str, dict[str, Observed]] = {}
        self._owner_of: dict[str, str] = {}
        self._changes: set[str] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, clock: Clock) -> AsyncGenerator["NullDriver"]:
        """A driver without instances."""
        yield cls(clock)

    def changes(self) -> frozenset[str]:
        """See `Driver.changes`."""
        taken, self._changes = frozenset(self._changes), set()
        return taken

    def observe(self, owner: str) -> Sequence[Observed]:
        """See `Driver.observe`."""
        held = self._instances.get(owner, {})
        return [held[name] for name in sorted(held)]

    def start(self, launch: Launch) -> None:
        """See `Driver.start`."""
        held = self._instances.setdefault(launch.owner, {})
        before = held.get(launch.name)
        if before is not None and before.phase != "Dead":
            return
        self._owner_of[launch.name] = launch.owner
        held[launch.name] = Observed(
            launch,
            "Healthy",
            host="127.0.0.1",
            port=0,
            started_at=timestamp(self._clock),
            since=self._clock.monotonic(),
            failures=before.failures if before else 0,
            restarts=before.restarts + 1 if before else 0,
            served=True,
        )
        self._touch(launch.owner)

    def stop(self, name: str) -> None:
        """See `Driver.stop`."""
        owner = self._owner_of.pop(name, None)
        if owner is not None:
            held = self._instances[owner]
            del held[name]
            if not held:
                del self._instances[owner]
            self._touch(owner)

    def end(self, name: str) -> None:
        """See `Driver.end`."""
        owner = self._owner_of.get(name)
        if owner is None or self._instances[owner][name].phase == "Dead":
            return
        held = self._instances[owner][name]
        dead: Phase = "Dead"
        self._instances[owner][name] = msgspec.structs.replace(
            held, phase=dead, failures=held.failures + 1, since=self._clock.monotonic()
        )
        self._touch(owner)

    def _touch(self, owner: str) -> None:
        self._changes.add(owner)
        self.changed.rise()
