"""Where drivers of somebody's own make and remove things: a few at once, each thing by one call at a time.

A driver is an object with `make(thing)` and `remove(thing)` (`Maker`), plain functions that may take their
time: they run in threads. Orders return at once; what came of them is read with `observe`. Nothing here
decides anything: `made` plans, `agent` hands its orders on.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from transom.model.names import Key
from transom.model.regional import Thing
from transom.model.resources import JsonObject
from transom.region.planning import Forget, Made, Make, Place, Remove
from transom.runtime.clock import Clock
from transom.runtime.signals import Level
from transom.runtime.tasks import OwnTasks, to_its_end
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

CALLS_AT_ONCE = 4
"""In a zone; the threads of a process are five at least, and others need one, too."""
_RESULT_BYTES_MAX = 64 * 1024


class Maker(Protocol):
    """A driver: makes things of one kind real, and removes them again."""

    def make(self, thing: Thing) -> Mapping[str, Any] | None:
        """Make it so, also when it is so already or half of it: called for anything new, after every start,
        and every minute. Returns what its status is to say, as JSON. Whatever it raises is why it is not
        ready, the class as the reason, and it is called again later.
        """
        ...

    def remove(self, thing: Thing) -> None:
        """Remove all of it, also when nothing or half of it is there. It has gone when this returns."""
        ...


class Workshop:
    """The makers of one zone, by kind; `folder` is where their things have folders."""

    def __init__(self, place: Place, makers: Mapping[str, Maker], folder: Path, clock: Clock) -> None:
        self.changed = Level()
        self._place = place
        self._makers = makers
        self._folder = folder
        self._clock = clock
        self._made: dict[str, Made] = {}
        self._changes: set[str] = set()
        self._tasks = OwnTasks()
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, place: Place, makers: Mapping[str, Maker], folder: Path, clock: Clock
    ) -> AsyncGenerator["Workshop"]:
        """A workshop; leaving the block leaves what was made, and waits for calls that have begun."""
        workshop = cls(place, makers, folder, clock)
        try:
            yield workshop
        finally:
            await workshop._tasks.close()

    def changes(self) -> frozenset[str]:
        """The keys of which anything changed since this was last asked."""
        taken, self._changes = frozenset(self._changes), set()
        return taken

    def observe(self, key: str) -> Made | None:
        """What came of the orders for `key`; None when this process has given none."""
        return self._made.get(key)

    def carry_out(self, order: Make | Remove | Forget) -> None:
        """Begin with an order; one at a time for each key."""
        key = order.key
        made = self._made.get(key, Made())
        if isinstance(order, Forget):
            self._made.pop(key, None)
        elif not made.busy:
            self._made[key] = msgspec.structs.replace(made, busy=True)
            self._tasks.start(self._call(order))

    async def _call(self, order: Make | Remove) -> None:
        key, removing = order.key, isinstance(order, Remove)
        before = self._made[key]
        result, reason, message = before.result, "", ""
        try:
            async with self._turns:
                result = await to_its_end(asyncio.to_thread(self._work, order))
        except Exception as error:  # whatever a driver of somebody else's raises
            reason, message = type(error).__name__, str(error)
            if before.reason != reason:
                log_event.warning("a driver failed", key=key, removing=removing, exc_info=error)
        again = before.failures if before.removing == removing else 0
        self._made[key] = Made(
            version=before.version if isinstance(order, Remove) else order.version,
            result=result,
            reason=reason,
            message=message,
            failures=again + 1 if reason else 0,
            finished=self._clock.monotonic(),
            removing=removing,
            gone=removing and not reason,
        )
        self._changes.add(key)
        self.changed.rise()

    def _work(self, order: Make | Remove) -> JsonObject:
        kind, tenant, name = Key.parse(order.key)
        maker, folder = self._makers[kind], self._folder / kind / tenant / name
        region, zone = self._place
        spec = order.spec if isinstance(order, Make) else None
        thing = Thing(spec, tenant, name.removesuffix(f".{region}"), region, zone, folder)
        if isinstance(order, Make):
            folder.mkdir(parents=True, exist_ok=True)
            return _checked(maker.make(thing))
        maker.remove(thing)
        if folder.exists():
            shutil.rmtree(folder)
        return {}


def _checked(result: Any) -> JsonObject:
    """What a driver said, read as JSON once. Raises `TypeError`, `ValueError`."""
    if result is None:
        return {}
    data = msgspec.json.encode(result)
    if len(data) > _RESULT_BYTES_MAX:
        raise ValueError(f"make returned {len(data)} bytes; at most {_RESULT_BYTES_MAX}")
    said: Any = msgspec.json.decode(data)
    if not isinstance(said, dict):
        raise TypeError(f"make returned {type(result).__name__}; return a mapping, or None")
    return cast("JsonObject", said)
