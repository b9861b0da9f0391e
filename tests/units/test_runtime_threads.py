"""Blocking calls on one thread, and many callers in one commit."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from transom.runtime.batching import Batcher
from transom.runtime.threads import SerialThread


@pytest.fixture
async def thread() -> AsyncIterator[SerialThread]:
    made = SerialThread("test thread")
    yield made
    await made.close()


class Gate:
    """Holds a thread up until it is opened, and says when the thread has come to it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def hold(self) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


async def spin() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- SerialThread --------------------------------------------------------------------------------------


async def test_calls_run_on_one_other_thread_in_order(thread: SerialThread) -> None:
    seen: list[tuple[int, int]] = []

    def note(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number * 2

    assert await asyncio.gather(*(thread.run(note, number) for number in range(50))) == [
        n * 2 for n in range(50)
    ]
    assert [number for number, _ in seen] == list(range(50))
    assert len({ident for _, ident in seen}) == 1
    assert threading.get_ident() not in {ident for _, ident in seen}


async def test_what_a_call_raises_its_caller_gets_and_the_thread_goes_on(thread: SerialThread) -> None:
    def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await thread.run(fail)
    assert await thread.run(lambda: "still here") == "still here"


async def test_a_cancelled_call_that_has_not_begun_is_left_out_and_others_are_not(
    thread: SerialThread,
) -> None:
    gate = Gate()
    ran: list[str] = []
    first = asyncio.create_task(thread.run(gate.hold))
    await gate.reached.wait()
    left_out = asyncio.create_task(thread.run(ran.append, "left out"))
    after = asyncio.create_task(thread.run(ran.append, "after"))
    await spin()
    left_out.cancel()
    first.cancel()
    await spin()
    gate.open()
    await after
    assert ran == ["after"]


async def test_closing_finishes_what_was_accepted_and_refuses_what_comes_later() -> None:
    thread = SerialThread("closing")
    gate = Gate()
    holding = asyncio.create_task(thread.run(gate.hold))
    accepted = asyncio.create_task(thread.run(lambda: "done"))
    await gate.reached.wait()
    closing = asyncio.create_task(thread.close())
    await spin()
    with pytest.raises(RuntimeError, match="thread closing is closed"):
        await thread.run(lambda: None)
    with pytest.raises(RuntimeError, match="thread closing is closed"):
        thread.post(lambda: None)
    gate.open()
    await closing
    await holding
    assert await accepted == "done"
    assert not any(one.name == "closing" for one in threading.enumerate())
    await thread.close()


async def test_whoever_waits_for_room_when_it_closes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transom.runtime.threads._WAITING_MAX", 1)
    thread = SerialThread("full")
    gate = Gate()
    holding = asyncio.create_task(thread.run(gate.hold))
    await gate.reached.wait()
    waiting = asyncio.create_task(thread.run(lambda: None))
    await spin()
    closing = asyncio.create_task(thread.close())
    await spin()
    gate.open()
    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError, match="closed"):
            await waiting
        await holding
        await closing


async def test_no_more_than_so_many_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transom.runtime.threads._WAITING_MAX", 3)
    thread = SerialThread("bounded")
    gate = Gate()
    calls = [asyncio.create_task(thread.run(gate.hold)) for _ in range(10)]
    await gate.reached.wait()
    await spin()
    assert thread._calls.qsize() <= 3
    gate.open()
    await asyncio.gather(*calls)
    await thread.close()


# --- Batcher ---------------------------------------------------------------------------------------


class Commits:
    """Remembers its batches; a negative job fails alone, a job of 0 fails its batch."""

    def __init__(self, gate: Gate) -> None:
        self.batches: list[list[int]] = []
        self._gate = gate

    def __call__(self, jobs: Sequence[int]) -> Sequence[int | Exception]:
        self._gate.hold()
        self.batches.append(list(jobs))
        if 0 in jobs:
            raise OSError("the disk is gone")
        return [ValueError(f"job {job}") if job < 0 else job * 10 for job in jobs]


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
def commits(gate: Gate) -> Commits:
    return Commits(gate)


async def batched(
    group: Batcher[int, int], gate: Gate, jobs: Sequence[int]
) -> tuple[asyncio.Task[int], list[asyncio.Task[int]]]:
    """Submit one job that holds the disk, then `jobs`, which wait together."""
    first = asyncio.create_task(group.submit(1))
    await gate.reached.wait()
    rest = [asyncio.create_task(group.submit(job)) for job in jobs]
    await spin()
    return first, rest


async def test_whatever_waits_goes_into_one_commit_in_order(
    thread: SerialThread, gate: Gate, commits: Commits
) -> None:
    group: Batcher[int, int] = Batcher(thread, commits, most=4)
    first, rest = await batched(group, gate, [2, 3, 4, 5, 6, 7])
    gate.open()
    assert await first == 10
    assert await asyncio.gather(*rest) == [20, 30, 40, 50, 60, 70]
    assert commits.batches == [[1], [2, 3, 4, 5], [6, 7]]


async def test_one_bad_job_fails_alone(thread: SerialThread, gate: Gate, commits: Commits) -> None:
    group: Batcher[int, int] = Batcher(thread, commits)
    _, rest = await batched(group, gate, [2, -3, 4])
    gate.open()
    results = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(result) for result in results] == [int, ValueError, int]


async def test_a_failed_commit_fails_its_batch_and_no_other(
    thread: SerialThread, gate: Gate, commits: Commits
) -> None:
    group: Batcher[int, int] = Batcher(thread, commits, most=2)
    first, rest = await batched(group, gate, [2, 0, 4, 5])
    gate.open()
    assert await first == 10
    results = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError, int, int]


async def test_cancelling_a_caller_hurts_no_other(thread: SerialThread, gate: Gate, commits: Commits) -> None:
    group: Batcher[int, int] = Batcher(thread, commits)
    first, rest = await batched(group, gate, [2, 3, 4])
    rest[1].cancel()
    first.cancel()
    await spin()
    gate.open()
    assert await asyncio.gather(rest[0], rest[2]) == [20, 40]
    assert await group.submit(9) == 90


async def test_closing_the_thread_finishes_what_was_submitted(gate: Gate, commits: Commits) -> None:
    thread = SerialThread("closing")
    group: Batcher[int, int] = Batcher(thread, commits)
    first, rest = await batched(group, gate, [2, 3])
    closing = asyncio.create_task(thread.close())
    await spin()
    gate.open()
    await closing
    assert await asyncio.gather(first, *rest) == [10, 20, 30]
    with pytest.raises(RuntimeError, match="closed"):
        await group.submit(4)


def test_a_loop_that_ended_meanwhile_does_not_kill_the_thread() -> None:
    release = threading.Event()
    finished = threading.Event()
    threads: list[SerialThread] = []

    def commit(jobs: Sequence[int]) -> Sequence[int | Exception]:
        assert release.wait(20)
        return list(jobs)

    async def abandon() -> None:
        threads.append(SerialThread("orphan"))
        group: Batcher[int, int] = Batcher(threads[0], commit)
        task = asyncio.create_task(group.submit(1))
        await spin()
        task.cancel()

    asyncio.run(abandon())
    release.set()
    threads[0].post(finished.set)
    assert finished.wait(20)
    asyncio.run(threads[0].close())
