"""Many callers, one call on a thread: whatever is waiting when the thread is free goes into one batch.

A commit costs one wait for the disk however much it carries, and a query most of its time before the first
row; so under load each carries more, and alone each goes at once. Jobs stay in the order they came. A caller
that is cancelled stops waiting; its job may still be done, as with any write whose answer was lost.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from transom.runtime.threads import SerialThread

J = TypeVar("J")
R = TypeVar("R")

_WAITING_MAX = 4096


class Batcher(Generic[J, R]):
    """Gathers jobs for `work`, which runs on `thread` with up to `most` jobs at a time.

    `work` returns one result a job, in order; a result that is an exception is raised to that job's caller
    alone. When `work` raises, every job of that batch fails with it.
    """

    def __init__(
        self, thread: SerialThread, work: Callable[[Sequence[J]], Sequence[R | Exception]], most: int = 500
    ) -> None:
        self._thread = thread
        self._work = work
        self._most = most
        self._room = asyncio.Semaphore(_WAITING_MAX)
        self._waiting: deque[tuple[J, asyncio.Future[R]]] = deque()

    async def submit(self, job: J) -> R:
        """Have `job` done; returns its result."""
        async with self._room:
            done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            self._waiting.append((job, done))
            self._thread.post(self._flush, asyncio.get_running_loop())
            return await done

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        # Each job posts a flush; the first one takes all that wait, the others find nothing left.
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        if not batch:
            return
        results: Sequence[R | Exception]
        try:
            results = self._work([job for job, _ in batch])
        except Exception as error:  # noqa: BLE001  # handed to every caller
            results = [error] * len(batch)
        # When the loop is closed, nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, batch, results)


def _settle(batch: list[tuple[J, "asyncio.Future[R]"]], results: Sequence[R | Exception]) -> None:
    for (_, done), result in zip(batch, results, strict=True):
        if done.done():
            continue
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
