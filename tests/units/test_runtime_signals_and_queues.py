"""Waking without losing a rise, and handing out keys fairly."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.runtime.backoff import Backoff
from transom.runtime.queues import FairQueue
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level, wait_any


async def spin() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- Level ---------------------------------------------------------------------------------------------


async def test_a_rise_before_waiting_is_not_lost() -> None:
    level = Level(3)
    level.rise()
    async with asyncio.timeout(5):
        assert await level.above(3) == 4


async def test_many_rises_wake_a_waiter_once_with_the_newest() -> None:
    level = Level()
    waiting = asyncio.create_task(level.above(0))
    await spin()
    for _ in range(5):
        level.rise()
    assert await waiting == 5


async def test_a_level_never_falls_and_an_equal_one_wakes_nobody() -> None:
    level = Level(5)
    waiting = asyncio.create_task(level.above(5))
    await spin()
    level.rise(5)
    level.rise(4)
    await spin()
    assert not waiting.done()
    assert level.value == 5
    level.rise(9)
    assert await waiting == 9


async def test_rising_to_less_than_waited_for_keeps_waiting() -> None:
    level = Level()
    waiting = asyncio.create_task(level.above(7))
    await spin()
    level.rise(7)
    await spin()
    assert not waiting.done()
    level.rise(8)
    assert await waiting == 8


async def test_any_of_several_levels_wakes() -> None:
    levels = [Level(), Level(), Level()]
    waiting = asyncio.create_task(wait_any([(level, 0) for level in levels]))
    await spin()
    levels[1].rise()
    assert await waiting is True
    assert all(not level._waiters for level in levels)


async def test_the_time_given_is_for_the_whole_wait() -> None:
    level = Level()
    rising = asyncio.create_task(_rise_for_ever(level))
    # Each rise is below what is waited for, and must not begin the time anew.
    async with asyncio.timeout(10):
        assert await wait_any([(level, 10**9)], timeout_seconds=0.02) is False
    rising.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await rising
    assert not level._waiters


async def _rise_for_ever(level: Level) -> None:
    while True:
        level.rise()
        await asyncio.sleep(0)


async def test_cancelling_a_wait_leaves_nothing_attached() -> None:
    levels = [Level(), Level()]
    waiting = asyncio.create_task(wait_any([(level, 0) for level in levels]))
    await spin()
    assert all(len(level._waiters) == 1 for level in levels)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert all(not level._waiters for level in levels)


# --- FairQueue -----------------------------------------------------------------------------------------


def queue() -> FairQueue[str]:
    return FairQueue(lambda key: key.split("/", maxsplit=1)[0])


async def test_groups_take_turns() -> None:
    keys = queue()
    for number in range(100):
        keys.add(f"loud/{number}")
    keys.add("quiet/1")
    keys.add("calm/1")
    assert await keys.take(3) == ["loud/0", "quiet/1", "calm/1"]
    assert await keys.take(2) == ["loud/1", "loud/2"]


async def test_a_key_added_again_while_it_is_worked_on_comes_again_afterwards() -> None:
    keys = queue()
    keys.add("a/1")
    assert await keys.take(5) == ["a/1"]
    keys.add("a/1")
    keys.add("a/1")
    keys.add("b/1")
    assert len(keys) == 2
    assert await keys.take(5) == ["b/1"]
    keys.done("b/1")
    assert not keys.idle
    keys.done("a/1")
    assert await keys.take(5) == ["a/1"]
    keys.done("a/1")
    assert keys.idle
    assert len(keys) == 0


async def test_taking_waits_for_a_key() -> None:
    keys = queue()
    taking = asyncio.create_task(keys.take(5))
    await spin()
    assert not taking.done()
    keys.add("a/1")
    assert await taking == ["a/1"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["a/1", "a/2", "a/3", "b/1", "c/1"])),
        st.tuples(st.just("take"), st.integers(1, 3)),
        st.tuples(st.just("done"), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_key_is_lost_doubled_or_worked_on_twice_at_once(steps: list[tuple[str, int | str]]) -> None:
    async def check() -> None:
        keys = queue()
        wanted: set[str] = set()
        working: list[str] = []
        for step, argument in steps:
            if step == "add":
                keys.add(str(argument))
                wanted.add(str(argument))
            elif step == "take" and wanted - set(working):
                taken = await keys.take(int(argument))
                assert len(taken) == min(int(argument), len(wanted - set(working)))
                assert not set(taken) & set(working)
                assert len(set(taken)) == len(taken)
                assert set(taken) <= wanted
                wanted -= set(taken)
                working += taken
            elif step == "done" and working:
                keys.done(working.pop(int(argument) % len(working)))
            assert len(keys) == len(wanted)
            assert keys.idle == (not wanted and not working)

    asyncio.run(check())


# --- Backoff -------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(0, 60))
def test_a_backoff_doubles_up_to_its_most_and_is_never_nothing(seed: int, attempts: int) -> None:
    backoff = Backoff(Randomness(seed), first_seconds=0.1, most_seconds=7.0)
    for attempt in range(attempts):
        ceiling = min(7.0, 0.1 * 2**attempt)
        assert ceiling / 2 <= backoff.next_seconds() <= ceiling
    backoff.reset()
    assert 0.05 <= backoff.next_seconds() <= 0.1


def test_two_that_back_off_do_not_stay_in_step() -> None:
    one, two = Backoff(Randomness(1)), Backoff(Randomness(2))
    assert [one.next_seconds() for _ in range(5)] != [two.next_seconds() for _ in range(5)]
