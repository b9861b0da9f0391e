"""Supervised workers: what an error says is what follows; nothing outlives its group."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from transom.model.errors import BrokenInvariantError, ForbiddenError, NewerDataError, UnreachableError
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import to_its_end, workers


async def spin() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Worker:
    """Raises what it is told, one error a run; then works until it is cancelled."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.runs = 0
        self.cancelled = False

    async def __call__(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_what_may_pass_is_tried_again_after_a_backoff(clock: ManualClock) -> None:
    worker = Worker(UnreachableError("the log is away"), OSError("cut"))
    async with workers(clock, Randomness(1)) as group:
        group.start("mirror", worker)
        await spin()
        state = group.states["mirror"]
        assert (state.state, state.error, state.restarts) == (
            "retrying",
            "UnreachableError: the log is away",
            1,
        )
        assert worker.runs == 1
        clock.advance(0.05)
        await spin()
        assert (state.state, state.error, worker.runs) == ("retrying", "OSError: cut", 2)
        clock.advance(0.1)
        await spin()
        assert (state.state, state.restarts, worker.runs) == ("running", 2, 3)
    assert worker.cancelled


async def test_what_cannot_help_is_left_with_its_reason_and_the_others_go_on(clock: ManualClock) -> None:
    stopped, other = Worker(ForbiddenError("not yours")), Worker()
    async with workers(clock, Randomness(1)) as group:
        group.start("stopped", stopped)
        group.start("other", other)
        await spin()
        clock.advance(1000)
        await spin()
        assert (group.states["stopped"].state, stopped.runs) == ("stopped", 1)
        assert group.states["stopped"].error == "ForbiddenError: not yours"
        assert (group.states["other"].state, other.runs) == ("running", 1)
        assert not other.cancelled


@pytest.mark.parametrize(
    "error",
    [
        BrokenInvariantError("impossible"),
        NewerDataError("of tomorrow"),
        ValueError("a bug"),
        ExceptionGroup("within", [UnreachableError("away"), ValueError("a bug")]),
    ],
)
async def test_a_broken_promise_ends_the_group(clock: ManualClock, error: Exception) -> None:
    other = Worker()

    async def process() -> None:
        async with workers(clock, Randomness(1)) as group:
            group.start("other", other)
            group.start("broken", Worker(error))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await process()
    assert caught.value.exceptions == (error,)
    assert other.cancelled


async def test_a_group_of_errors_that_may_all_pass_is_retried(clock: ManualClock) -> None:
    worker = Worker(ExceptionGroup("within", [UnreachableError("away"), TimeoutError()]))
    async with workers(clock, Randomness(1)) as group:
        group.start("controller", worker)
        await spin()
        assert group.states["controller"].state == "retrying"


async def test_a_worker_that_returns_is_finished(clock: ManualClock) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    async with workers(clock, Randomness(1)) as group:
        await group.start("once", work)
        assert group.states == {}
        await spin()
        assert not group.tasks


def _in_its_work(_clock: ManualClock) -> Worker:
    return Worker()


def _in_its_backoff(_clock: ManualClock) -> Worker:
    return Worker(UnreachableError("away"))


@pytest.mark.parametrize("worker_of", [_in_its_work, _in_its_backoff])
async def test_leaving_or_cancelling_leaves_no_task(
    clock: ManualClock, worker_of: Callable[[ManualClock], Callable[[], Awaitable[None]]]
) -> None:
    before = asyncio.all_tasks()

    async def process() -> None:
        async with workers(clock, Randomness(1)) as group:
            for number in range(5):
                group.start(f"w{number}", worker_of(clock))
            await asyncio.Event().wait()

    running = asyncio.create_task(process())
    await spin()
    assert len(asyncio.all_tasks() - before) == 6
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
    assert clock.sleeping == 0


async def test_a_worker_that_served_well_begins_its_backoff_anew(clock: ManualClock) -> None:
    delays: list[float] = []

    class Measured(ManualClock):
        async def sleep(self, seconds: float) -> None:
            delays.append(seconds)
            await super().sleep(seconds)

    measured = Measured()
    failing = asyncio.Event()

    async def work() -> None:
        await failing.wait()
        raise UnreachableError("away")

    async with workers(measured, Randomness(1)) as group:
        group.start("w", work)
        failing.set()
        for _ in range(8):
            await spin()
            measured.advance(10)
        assert delays[-1] > 0.1
        failing.clear()
        await spin()
        measured.advance(60)
        failing.set()
        await spin()
        assert delays[-1] <= 0.05


async def test_what_must_come_to_its_end_does_so_however_often_its_caller_is_cancelled() -> None:
    go, order = asyncio.Event(), []

    async def both_halves() -> None:
        order.append("first")
        await go.wait()
        order.append("second")
        raise ValueError("said to nobody: the caller left")

    calling = asyncio.create_task(to_its_end(both_halves()))
    for _ in range(3):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calling.cancel()
    await asyncio.sleep(0)
    assert not calling.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert order == ["first", "second"]


async def test_what_comes_to_its_end_uncut_answers_as_it_is() -> None:
    async def answer(value: int) -> int:
        if not value:
            raise ValueError("none")
        return value

    assert await to_its_end(answer(3)) == 3
    with pytest.raises(ValueError, match="none"):
        await to_its_end(answer(0))
