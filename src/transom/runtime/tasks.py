"""Workers that belong to their process: supervised, named, and never orphaned.

A worker is an endless coroutine. When it raises, its error says what follows (`model.errors.Advice`):
RETRY starts it again after a backoff, STOP parks it and shows why, CRASH ends the whole group, and with it
the process. Every worker's state can be read, so that health pages and `transom regions` tell the truth.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from transom.model.errors import Advice, advice_for, members_of
from transom.runtime.backoff import Backoff
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger

T = TypeVar("T")
log = get_logger(__name__)

_HEALTHY_AFTER_SECONDS = 10.0


@dataclass
class WorkerState:
    """What a worker is doing: "running", "retrying" or "stopped", and the error that made it so."""

    name: str
    state: str = "running"
    error: str = ""
    restarts: int = 0
    since: float = 0.0


@dataclass
class Workers:
    """A group of supervised workers; used through `workers()`."""

    group: asyncio.TaskGroup
    clock: Clock
    randomness: Randomness
    states: dict[str, WorkerState] = field(default_factory=dict[str, WorkerState])
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def start(self, name: str, worker: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `worker` for as long as the group lives; a worker that returns is finished."""
        state = self.states[name] = WorkerState(name, since=self.clock.wall())
        task = self.group.create_task(self._supervise(state, worker), name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    @contextlib.asynccontextmanager
    async def running(self, name: str, worker: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
        """Run `worker` inside the block; it has ended when the block is left."""
        task = self.start(name, worker)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _supervise(self, state: WorkerState, worker: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._keep_running(state, worker)
        finally:
            # What has stopped for good stays to be seen; what was cancelled or has finished is gone.
            if state.state != "stopped":
                self._forget(state)

    async def _keep_running(self, state: WorkerState, worker: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(self.randomness)
        while True:
            began = self.clock.monotonic()
            try:
                await worker()
            except Exception as error:
                advice = advice_for(error)
                if advice is Advice.CRASH:
                    log.exception("worker crashed", worker=state.name)
                    raise
                if self.clock.monotonic() - began > _HEALTHY_AFTER_SECONDS:
                    backoff.reset()
                self._note(state, advice, error)
                if advice is Advice.STOP:
                    return
            else:
                return
            await self.clock.sleep(backoff.next_seconds())
            state.state = "running"

    def _forget(self, state: WorkerState) -> None:
        # Another of the same name may have been started since.
        if self.states.get(state.name) is state:
            del self.states[state.name]

    def _note(self, state: WorkerState, advice: Advice, error: Exception) -> None:
        message = "; ".join(f"{type(each).__name__}: {each}" for each in members_of(error))
        repeated = state.error == message
        state.state = "stopped" if advice is Advice.STOP else "retrying"
        state.error, state.since = message, self.clock.wall()
        state.restarts += 1
        # The same failure over and over is one line, not a flood.
        write = log.debug if repeated else log.warning
        write("worker failed", worker=state.name, advice=advice.value, error=message)


@contextlib.asynccontextmanager
async def workers(clock: Clock, randomness: Randomness) -> AsyncGenerator[Workers]:
    """A group whose workers are all cancelled, and awaited, when the block is left."""
    async with asyncio.TaskGroup() as group:
        held = Workers(group, clock, randomness)
        try:
            yield held
        finally:
            for task in held.tasks:
                task.cancel()


class OwnTasks:
    """Tasks of an object that is closed one day, where there is no block for them to live in: none outlives
    it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work`. Whoever starts it looks at what comes of it, or ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self, *tasks: asyncio.Task[Any]) -> None:
        """Cancel these, and wait until they are gone; what comes of them, nobody hears."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """End all that run."""
        await self.end(*self._tasks)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises. When the caller is cancelled meanwhile, `work` is finished first: for
    short pieces whose first half must not stay without its second.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # taken notice of: the caller is cancelled, and hears of nothing else
        raise
