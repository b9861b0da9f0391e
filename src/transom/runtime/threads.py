"""One thread that runs blocking calls one after another, so that a slow disk never stops the event loop.

A database connection lives in one such thread. Calls wait in a bounded queue: when it is full, callers wait.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_WAITING_MAX = 1024


class SerialThread:
    """Runs callables in the order they came, on a thread of its own.

    A caller that is cancelled stops waiting; a call that has begun runs to its end, one that has not begun
    is left out. `close` finishes what was accepted and ends the thread.
    """

    def __init__(self, name: str) -> None:
        self._room = asyncio.Semaphore(_WAITING_MAX)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` on the thread and return what it returns or raise what it raises."""
        async with self._room:
            if self._closed:
                raise RuntimeError(f"thread {self._thread.name} is closed")
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()

            def attempt() -> None:
                if done.cancelled():
                    return
                try:
                    result = call(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001  # handed to the caller
                    _deliver(loop, done, None, error)
                else:
                    _deliver(loop, done, result, None)

            self._calls.put(attempt)
            return await done

    def post(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `call` run on the thread, without waiting for it; it must not raise.

        Whoever posts bounds how much is under way.
        """
        if self._closed:
            raise RuntimeError(f"thread {self._thread.name} is closed")
        self._calls.put(lambda: call(*args, **kwargs))

    async def close(self) -> None:
        """End the thread once everything accepted has run. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _deliver(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    def settle() -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more
