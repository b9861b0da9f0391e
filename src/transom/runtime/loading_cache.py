"""A cache before any asynchronous source: it loads what is missing once, keeps serving while the source is
down, and takes in what the source's feed pushes.

`peek` is the hot path: synchronous, one look into a `dict`. `get` waits for the source only when there is
nothing that may be served. What is decided, and why, is in `loading_core`; here it meets the event loop.
Every load is a task of the cache's own, in the context in which the cache was made: whoever asks first may
leave without failing the others, and nothing of one request reaches another through a load. `aclose` ends all
of them.

Everything but the waiting happens on the loop's thread, between two awaits: when `push` returns, no caller
gets anything older any more, also none that was waiting and has not woken yet.
`docs/reference/loading-cache.md` is the page for users.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import copy_context
from functools import partial
from math import inf
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from transom.model.errors import SaturatedError, UnreachableError
from transom.runtime.clock import Clock
from transom.runtime.loading_core import Flight, Limits, LoadingCore, Stats
from transom.runtime.loading_store import Absent, Answer, Found, State
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger

__all__ = ["Absent", "Found", "Loader", "LoadingCache", "SaturatedError", "State", "Stats"]

log = get_logger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_QUIET_SECONDS = 60.0

Loader: TypeAlias = Callable[[K], Awaitable[Found[V] | Absent]]
"""Asks the source for one key; raises when it cannot be asked. It brings its own time-out, as a load that
hangs keeps its place, and must not ask the same cache.
"""


class LoadingCache(Generic[K, V]):
    """Values by key, loaded by `load` when they are needed.

    A value is served as it is for `fresh_seconds`; then it is still served, and loaded again in the
    background; after `usable_seconds` without an answer of the source (None: never) it is not served any
    more. An absence is known for `absent_seconds`. These times are shortened by up to a fifth, at random. At
    most `max_entries` values and `max_absent` absences are held; `max_fills` loads for callers who wait and
    `max_refreshes` others run at once; `max_waiting` callers wait. Raises `InvalidError` when these cannot
    be.

    To be used on one event loop, by its thread; `async with`, or `aclose` at the end.
    """

    def __init__(
        self,
        load: Loader[K, V],
        *,
        clock: Clock,
        randomness: Randomness,
        max_entries: int = 100_000,
        max_absent: int = 10_000,
        fresh_seconds: float = 30.0,
        usable_seconds: float | None = None,
        absent_seconds: float = 5.0,
        max_fills: int = 64,
        max_refreshes: int = 8,
        max_waiting: int = 10_000,
    ) -> None:
        limits = Limits(
            max_entries,
            max_absent,
            fresh_seconds,
            usable_seconds,
            absent_seconds,
            max_fills,
            max_refreshes,
            max_waiting,
        )
        self._load = load
        self._now = clock.monotonic
        self._core: LoadingCore[K, V] = LoadingCore(limits, randomness.below)
        self._entries = self._core.shelf.by_key
        self._hits = 0
        self._tasks: set[asyncio.Task[Found[V] | Absent]] = set()
        self._context = copy_context()
        self._quiet_until = -inf
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def peek(self, key: K) -> V | None:
        """The value, if there is one that may be served: at once, and without waiting. None: ask `get`.

        A value past its fresh time is loaded again in the background.
        """
        entry = self._entries.get(key)
        if entry is not None and self._now() < entry.fresh_until:
            entry.used = True
            self._hits += 1
            return entry.value
        return None if entry is None else self._peek_due(key)

    def known_absent(self, key: K) -> bool:
        """Whether the source said lately that there is nothing at `key`."""
        return self._core.known_absent(key, self._now())

    def state(self, key: K) -> State | None:
        """What the value held for `key` may be used for; None when none is held. Counts as no use of it."""
        return self._core.state(key, self._now())

    async def get(self, key: K) -> V | None:
        """The value; None: the source says that there is none.

        Raises `SaturatedError` when too many wait already, and what the loader raised when there is no value
        that may be served. Neither says anything about `key`.
        """
        value = self.peek(key)
        return value if value is not None else await self._wait(key)

    def concerns(self, key: K) -> bool:
        """Whether a push of `key` could change anything: for feeds whose values cost something to make."""
        return self._core.concerns(key)

    def push(self, key: K, value: V, version: object) -> None:
        """The source's feed says that `key` has `value`. What is held, known to be absent or being loaded is
        brought up to date, if this is not older; any other key is left to be loaded when it is needed.
        """
        self._push(key, _checked(Found(value, version)))

    def push_absent(self, key: K, version: object) -> None:
        """The source's feed says that there is nothing at `key` any more. As with `push`."""
        self._push(key, Absent(version))

    def stats(self) -> Stats:
        """Counters since the start, and sizes now."""
        stats = self._core.stats()
        return stats._replace(hits=stats.hits + self._hits)

    async def aclose(self) -> None:
        """End every load, fail whoever waits (`UnreachableError`), let go of everything that is held."""
        self._closed = True
        for flight in self._core.abandon(_closed()):
            _wake(flight)
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._core.clear()

    # Inside

    def _peek_due(self, key: K) -> V | None:
        now = self._now()
        value = self._core.peek(key, now)
        if value is not None and not self._closed:
            flight = self._core.refresh(key, now)
            if flight is not None:
                self._start(flight)
        return value

    async def _wait(self, key: K) -> V | None:
        if self._closed:
            raise _closed()
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flight = self._core.ask(key, self._now(), woken)
        if not isinstance(flight, Flight):
            return _value(flight)
        try:
            self._fill()
            await woken
        finally:
            self._core.leave(flight, woken)
        # Read now, not when the load ended: the feed may have spoken in between.
        outcome = flight.outcome
        if isinstance(outcome, Exception):
            try:
                # All raise the same error: its traceback must not grow by each of them.
                raise outcome.with_traceback(flight.trace)
            finally:
                # The traceback holds this frame: were the error held here, only the collector would end it.
                del flight, outcome
        return _value(outcome)

    def _fill(self) -> None:
        while (flight := self._core.next_fill(self._now())) is not None:
            self._start(flight)

    def _start(self, flight: Flight[K, V]) -> None:
        loading = _load(self._load, flight.key)
        task = asyncio.get_running_loop().create_task(loading, context=self._context.copy())
        self._tasks.add(task)
        # A callback, not a `finally` in the task: one that is cancelled before its first step has none.
        task.add_done_callback(partial(self._ended, flight))

    def _ended(self, flight: Flight[K, V], task: asyncio.Task[Found[V] | Absent]) -> None:
        self._tasks.discard(task)
        now = self._now()
        if task.cancelled():
            cut = "the load was cancelled before the source answered; ask again"
            self._core.fail(flight, _closed() if self._closed else UnreachableError(cut), now)
        elif (error := task.exception()) is not None:
            # What is no Exception ends the loop by itself; whoever waits is told all the same.
            failed = error if isinstance(error, Exception) else UnreachableError(f"the load ended: {error!r}")
            flight.trace = failed.__traceback__
            self._core.fail(flight, failed, now)
            self._report(flight, failed, now)
        else:
            self._settle(flight, task.result(), now)
        _wake(flight)
        self._fill()

    def _settle(self, flight: Flight[K, V], answer: Answer[V], now: float) -> None:
        try:
            self._core.settle(flight, answer, now)
        except Exception as error:  # noqa: BLE001  # versions that cannot be compared; nothing was changed yet
            self._core.fail(flight, error, now)
            self._report(flight, error, now)

    def _report(self, flight: Flight[K, V], error: Exception, now: float) -> None:
        """Say that a refresh failed, as nobody waits to be told; now and then, as a source that is down fails
        them all. The key may be a secret and is not said.
        """
        if flight.refresh and now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning("a refresh failed; what is held is served", error=f"{type(error).__name__}: {error}")

    def _push(self, key: K, answer: Answer[V]) -> None:
        flight = self._core.push(key, answer, self._now())
        if flight is not None:
            _wake(flight)


async def _load(load: Loader[K, V], key: K) -> Found[V] | Absent:
    return _checked(await load(key))


def _checked(answer: Found[V] | Absent) -> Found[V] | Absent:
    """Anything else is a mistake in the loader, and must not be taken for "there is none"."""
    if isinstance(answer, Absent):
        return answer
    if isinstance(answer, Found) and answer.value is not None:  # pyright: ignore[reportUnnecessaryIsInstance]
        return answer
    what = "Found(None, ...)" if isinstance(answer, Found) else type(answer).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
    raise TypeError(f"say Found(value, version) with a value that is not None, or Absent(); not {what}")


def _value(answer: Answer[V] | None) -> V | None:
    return answer.value if isinstance(answer, Found) else None


def _wake(flight: Flight[K, V]) -> None:
    for woken in flight.tokens:
        if not woken.done():
            woken.set_result(None)


def _closed() -> UnreachableError:
    return UnreachableError("the cache is closed: nothing is loaded any more")
