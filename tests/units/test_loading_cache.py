"""The loading cache on an event loop: each trap that caches before a source fall into, by name."""

import asyncio
import gc
import subprocess
import sys
import weakref
from contextvars import ContextVar
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import transom
from transom.model.errors import Advice, InvalidError, SaturatedError, UnreachableError, advice_for
from transom.runtime.clock import ManualClock
from transom.runtime.loading_cache import Absent, Found, LoadingCache, State
from transom.runtime.randomness import Randomness

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "loading-cache.md"


class BoomError(Exception):
    """The source is away."""


class Source:
    """Answers each load when the test says so."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, asyncio.Future]] = []
        self.cancelled: list[str] = []

    async def __call__(self, key):
        answered = asyncio.get_running_loop().create_future()
        self.loads.append((key, answered))
        try:
            return await answered
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise

    @property
    def asked(self) -> list[str]:
        return [key for key, _ in self.loads]

    async def answer(self, answer, which: int = -1) -> None:
        _, answered = self.loads[which]
        if isinstance(answer, Exception):
            answered.set_exception(answer)
        else:
            answered.set_result(answer)
        await spin()


async def spin() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def make(clock, source):
    """Makes caches; at the end of the test they are closed, and nothing of them is left."""
    made = []

    def cache(load=source, **limits) -> LoadingCache:
        made.append(LoadingCache(load, clock=clock, randomness=Randomness(1), **limits))
        return made[-1]

    before = asyncio.all_tasks()
    yield cache
    for each in made:
        await each.aclose()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


async def held(cache, source, key, answer) -> None:
    """Have `cache` load `answer`."""
    asking = asyncio.ensure_future(cache.get(key))
    await spin()
    await source.answer(answer)
    await asking


async def test_one_load_is_shared_by_all_who_wait(make, source):
    cache = make()
    asking = [asyncio.ensure_future(cache.get("a")) for _ in range(100)]
    await spin()
    assert source.asked == ["a"]
    await source.answer(Found("x", 1))
    assert await asyncio.gather(*asking) == ["x"] * 100
    stats = cache.stats()
    assert (stats.fills, stats.shared, stats.waiting, stats.filling) == (1, 99, 0, 0)


async def test_a_cancelled_leader_does_not_fail_its_waiters(make, source):
    cache = make()
    leader, *waiters = [asyncio.ensure_future(cache.get("a")) for _ in range(4)]
    await spin()
    leader.cancel()
    waiters.pop().cancel()
    await spin()
    assert leader.cancelled()
    await source.answer(Found("x", 1))
    assert [await waiter for waiter in waiters] == ["x", "x"]
    assert source.asked == ["a"]
    assert source.cancelled == []


async def test_a_load_under_way_ends_though_nobody_waits_for_it(make, source):
    cache = make()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await cache.get("a")
    await spin()
    assert (cache.stats().waiting, cache.stats().filling) == (0, 1)
    await source.answer(Found("x", 1))
    assert cache.peek("a") == "x"


async def test_a_load_that_nobody_waits_for_any_more_is_not_begun(make, source):
    cache = make(max_fills=1)
    first, second = (asyncio.ensure_future(cache.get(key)) for key in "ab")
    await spin()
    assert cache.stats().queued == 1
    second.cancel()
    await spin()
    assert cache.stats().queued == 0
    await source.answer(Found("x", 1))
    assert await first == "x"
    assert source.asked == ["a"]


async def test_an_older_load_does_not_replace_what_was_pushed_meanwhile(make, source, clock):
    cache = make()
    await held(cache, source, "a", Found("old", 1))
    clock.advance(31)
    assert cache.peek("a") == "old"
    await spin()
    cache.push("a", "revoked", 2)
    await source.answer(Found("old", 1))
    assert cache.peek("a") == "revoked"
    assert len(source.loads) == 2


async def test_a_push_beats_the_load_of_a_key_that_is_not_held(make, source):
    cache = make()
    asking = asyncio.ensure_future(cache.get("a"))
    await spin()
    cache.push("a", "revoked", 2)
    await source.answer(Found("good", 1))
    assert await asking == "revoked"
    assert cache.peek("a") == "revoked"
    gone = asyncio.ensure_future(cache.get("b"))
    await spin()
    cache.push_absent("b", 2)
    await source.answer(Found("good", 1))
    assert await gone is None
    assert cache.known_absent("b")


async def test_a_load_newer_than_the_push_wins(make, source):
    cache = make()
    asking = asyncio.ensure_future(cache.get("a"))
    await spin()
    cache.push("a", "older", 1)
    await source.answer(Found("newest", 2))
    assert await asking == "newest"
    cache.push("a", "older", 1)
    assert cache.peek("a") == "newest"


async def test_a_push_reaches_who_was_woken_but_has_not_run_yet(make, source):
    cache = make()
    asking = asyncio.ensure_future(cache.get("a"))
    await spin()
    _, answered = source.loads[0]
    answered.set_result(Found("good", 1))
    while not cache.stats().entries:
        await asyncio.sleep(0)
    assert not asking.done()
    cache.push("a", "revoked", 2)
    assert await asking == "revoked"


async def test_a_push_reaches_a_load_that_has_its_answer_but_has_not_brought_it(make, source):
    cache = make()
    asking = asyncio.ensure_future(cache.get("a"))
    await spin()
    _, answered = source.loads[0]
    answered.set_result(Found("good", 1))
    cache.push("a", "revoked", 2)
    assert await asking == "revoked"


async def test_a_push_for_a_key_that_nobody_asked_for_takes_no_room(make):
    cache = make()
    cache.push("a", "x", 1)
    cache.push_absent("b", 1)
    assert (cache.peek("a"), cache.known_absent("b")) == (None, False)
    assert (cache.stats().entries, cache.stats().absent) == (0, 0)


async def test_errors_are_not_answers(make, source):
    cache = make()
    asking = [asyncio.ensure_future(cache.get("a")) for _ in range(3)]
    await spin()
    await source.answer(BoomError("away"))
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in errors] == [BoomError] * 3
    assert not cache.known_absent("a")
    await held(cache, source, "a", Found("x", 1))
    assert cache.peek("a") == "x"


async def test_who_asks_again_after_an_error_asks_the_source(make, source):
    cache = make()

    async def persistent():
        try:
            return await cache.get("a")
        except BoomError:
            # Before the other has even read the error.
            return await cache.get("a")

    asking = [asyncio.ensure_future(persistent()), asyncio.ensure_future(cache.get("a"))]
    await spin()
    await source.answer(BoomError())
    with pytest.raises(BoomError):
        await asking[1]
    assert source.asked == ["a", "a"]
    await source.answer(Found("x", 1))
    assert await asking[0] == "x"


async def test_an_error_during_a_refresh_keeps_the_value_and_backs_off(make, source, clock):
    cache = make()
    await held(cache, source, "a", Found("x", 1))
    clock.advance(31)
    assert (cache.state("a"), cache.peek("a")) == (State.REFRESHABLE, "x")
    await spin()
    with capture_logs() as logs:
        await source.answer(BoomError("away"))
    assert [entry["error"] for entry in logs] == ["BoomError: away"]
    assert cache.state("a") is State.STALE
    for _ in range(10):
        assert (cache.peek("a"), await cache.get("a")) == ("x", "x")
    await spin()
    assert len(source.loads) == 2, "not again at once"
    clock.advance(1)
    assert cache.peek("a") == "x"
    await spin()
    await source.answer(Found("y", 2))
    assert (cache.state("a"), cache.peek("a")) == (State.FRESH, "y")


async def test_a_source_that_stays_away_is_said_once_a_minute(make, clock):
    async def away(key):
        raise BoomError(f"no {key}")

    cache = make(away, max_refreshes=100)
    answers = {f"key {number}": Found(number, 1) for number in range(50)}

    async def there(key):
        return answers[key]

    cache._load = there
    for key in answers:
        await cache.get(key)
    cache._load = away
    with capture_logs() as logs:
        for _ in range(61):
            clock.advance(2)
            assert [cache.peek(key) for key in answers] == list(range(50))
            await spin()
    assert 2 <= len(logs) <= 3
    assert cache.stats().failures > 50


async def test_a_reload_that_finds_nothing_removes(make, source, clock):
    cache = make()
    await held(cache, source, "a", Found("x", 5))
    clock.advance(31)
    cache.peek("a")
    await spin()
    await source.answer(Absent())
    assert cache.peek("a") is None
    assert cache.known_absent("a")
    assert cache.state("a") is None


async def test_a_reload_that_finds_nothing_yet_removes_nothing(make, source, clock):
    cache = make()
    await held(cache, source, "a", Found("x", 5))
    clock.advance(31)
    cache.peek("a")
    await spin()
    await source.answer(Absent(4))
    assert cache.peek("a") == "x"
    assert not cache.known_absent("a")
    cache.push_absent("a", 4)
    assert cache.peek("a") == "x"
    cache.push_absent("a", 6)
    assert (cache.peek("a"), cache.known_absent("a")) == (None, True)


async def test_absence_is_known_for_a_short_time_and_until_a_push(make, source, clock):
    cache = make(absent_seconds=5)
    await held(cache, source, "a", Absent(1))
    assert await cache.get("a") is None
    assert source.asked == ["a"]
    cache.push("a", "x", 0)
    assert cache.known_absent("a"), "an old push says nothing"
    cache.push("a", "x", 2)
    assert not cache.known_absent("a")
    await held(cache, source, "a", Found("x", 2))
    await held(cache, source, "b", Absent(1))
    clock.advance(5)
    assert not cache.known_absent("b")
    await held(cache, source, "b", Found("y", 2))
    assert source.asked == ["a", "a", "b", "b"]


async def test_made_up_keys_push_out_no_value(make):
    async def load(key):
        return Found("x", 1) if key == "real" else Absent()

    cache = make(load, max_entries=4, max_absent=8)
    assert await cache.get("real") == "x"
    for number in range(100):
        assert await cache.get(f"made up {number}") is None
    assert cache.peek("real") == "x"
    assert cache.stats().absent == 8


async def test_refreshes_do_not_keep_misses_waiting(make, source, clock):
    cache = make(max_fills=1, max_refreshes=2)
    for key in "abcd":
        await held(cache, source, key, Found(key, 1))
    clock.advance(31)
    assert [cache.peek(key) for key in "abcd"] == list("abcd")
    await spin()
    assert source.asked[4:] == ["a", "b"], "no more refreshes than allowed, and none of them ends"
    await held(cache, source, "miss", Found("x", 1))
    assert cache.peek("miss") == "x"
    assert (cache.stats().refreshing, cache.stats().filling) == (2, 0)


async def test_misses_do_not_keep_refreshes_waiting(make, source, clock):
    cache = make(max_fills=1, max_refreshes=1)
    await held(cache, source, "a", Found("x", 1))
    clock.advance(31)
    missing = [asyncio.ensure_future(cache.get(key)) for key in ("m1", "m2")]
    await spin()
    cache.peek("a")
    await spin()
    assert source.asked[1:] == ["m1", "a"]
    await source.answer(Found("y", 2))
    assert cache.peek("a") == "y"
    for each in missing:
        each.cancel()


async def test_when_all_places_are_taken_it_is_said_that_it_cannot_be_told(make, source):
    cache = make(max_fills=2, max_waiting=4)
    asking = [asyncio.ensure_future(cache.get(key)) for key in "abcd"]
    await spin()
    assert source.asked == ["a", "b"]
    for key in ("e", "a"):
        with pytest.raises(SaturatedError, match="cannot tell now") as caught:
            await cache.get(key)
        assert advice_for(caught.value) is Advice.RETRY
    await source.answer(Found("x", 1), 0)
    assert source.asked == ["a", "b", "c"], "who asked first is next"
    late = asyncio.ensure_future(cache.get("e"))
    await spin()
    for which in range(1, 5):
        await source.answer(Found("x", 1), which)
    assert await asyncio.gather(*asking, late) == ["x"] * 5
    assert (cache.stats().saturated, cache.stats().waiting) == (2, 0)


async def test_what_nobody_confirmed_for_too_long_is_not_served(make, source, clock):
    cache = make(usable_seconds=60)
    await held(cache, source, "a", Found("x", 1))
    clock.advance(59)
    assert cache.peek("a") == "x"
    await spin()
    clock.advance(1)
    assert cache.state("a") is State.EXPIRED
    assert cache.peek("a") is None
    asking = asyncio.ensure_future(cache.get("a"))
    await spin()
    assert source.asked == ["a", "a"], "it waits for the refresh that is under way"
    await source.answer(BoomError())
    with pytest.raises(BoomError):
        await asking
    await held(cache, source, "a", Found("y", 2))
    assert cache.peek("a") == "y"


async def test_without_an_end_a_value_is_served_for_ever(make, source, clock):
    cache = make()
    await held(cache, source, "a", Found("x", 1))
    clock.advance(30 * 86400)
    assert cache.peek("a") == "x"
    assert await cache.get("a") == "x"


async def test_values_may_be_falsy_but_not_none(make, source):
    cache = make()
    for key, value in (("zero", 0), ("empty", b""), ("false", False)):
        await held(cache, source, key, Found(value, 1))
        assert cache.peek(key) == value
        assert await cache.get(key) == value
    assert len(source.loads) == 3
    with pytest.raises(TypeError, match="not Found"):
        cache.push("zero", None, 2)


@pytest.mark.parametrize("answer", [None, "x", ("x", 1), Found(None, 1)])
async def test_a_loader_that_answers_nonsense_has_not_said_that_there_is_none(make, source, answer):
    cache = make()
    asking = asyncio.ensure_future(cache.get("a"))
    await spin()
    await source.answer(answer)
    with pytest.raises(TypeError, match="say Found"):
        await asking
    assert not cache.known_absent("a")


async def test_versions_that_cannot_be_compared_fail_the_load_alone(make, source, clock):
    cache = make()
    await held(cache, source, "a", Found("x", 1))
    clock.advance(31)
    cache.peek("a")
    await spin()
    with capture_logs() as logs:
        await source.answer(Found("y", "two"))
    assert "TypeError" in logs[0]["error"]
    assert cache.peek("a") == "x"
    assert cache.stats().refreshing == 0


async def test_a_loader_that_cancels_itself_fails_its_callers_and_cancels_none(make):
    async def load(key):
        raise asyncio.CancelledError

    cache = make(load)
    with pytest.raises(UnreachableError, match="cancelled"):
        await cache.get("a")
    assert asyncio.current_task().cancelling() == 0


async def test_closing_ends_loads_and_tells_who_waits(make, source, clock):
    cache = make(max_fills=1)
    await held(cache, source, "a", Found("x", 1))
    clock.advance(31)
    cache.peek("a")
    asking = [asyncio.ensure_future(cache.get(key)) for key in ("b", "b", "queued")]
    await spin()
    asking.append(asyncio.ensure_future(cache.get("queued")))
    async with cache:
        pass
    assert sorted(source.cancelled) == ["a", "b"]
    for error in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(error, UnreachableError)
        assert "closed" in str(error)
    assert cache.peek("a") is None
    with pytest.raises(UnreachableError, match="closed"):
        await cache.get("a")
    cache.push("a", "x", 2)
    stats = cache.stats()
    assert stats[-6:] == (0, 0, 0, 0, 0, 0)


async def test_nothing_is_begun_while_closing(make, source, clock):
    cache = make()
    for key in "ab":
        await held(cache, source, key, Found(key, 1))
    clock.advance(31)
    cache.peek("a")
    await spin()
    closing = asyncio.ensure_future(cache.aclose())
    await asyncio.sleep(0)
    assert (closing.done(), cache.peek("b")) == (False, "b")
    with pytest.raises(UnreachableError):
        await cache.get("c")
    await closing
    assert source.asked == ["a", "b", "a"]


async def test_a_load_cancelled_before_its_first_step_leaves_nobody_waiting(make, source):
    cache = make()
    asking = asyncio.ensure_future(cache.get("a"))
    await asyncio.sleep(0)
    await cache.aclose()
    with pytest.raises(UnreachableError):
        await asking
    assert source.loads == []


async def test_the_context_of_who_asks_first_does_not_reach_the_load(make):
    tenant = ContextVar("tenant", default="nobody")
    seen = []

    async def load(key):
        seen.append(tenant.get())
        tenant.set(key)
        return Found(key, 1)

    cache = make(load)
    tenant.set("acme")
    await cache.get("a")
    await cache.get("b")
    assert seen == ["nobody", "nobody"]
    assert tenant.get() == "acme"


async def test_an_error_holds_no_memory_after_it_was_told(make):
    raised = []

    class SeenError(BoomError):
        def __init__(self):
            raised.append(weakref.ref(self))

    async def load(key):
        raise SeenError

    cache = make(load)

    async def asks():
        try:
            await cache.get("a")
        except BoomError as error:
            depth, trace = 0, error.__traceback__
            while trace is not None:
                depth, trace = depth + 1, trace.tb_next
            return depth

    gc.collect()
    gc.disable()
    try:
        depths = await asyncio.gather(*(asks() for _ in range(5)))
        await spin()
        assert len(set(depths)) == 1, "the traceback does not grow from caller to caller"
        assert [reference() for reference in raised] == [None]
    finally:
        gc.enable()


def test_mistakes_are_refused_when_it_is_made(clock):
    with pytest.raises(
        InvalidError, match="max_fills: must be 1 or more; fresh_seconds: must be more than 0"
    ):
        LoadingCache(Source(), clock=clock, randomness=Randomness(), max_fills=0, fresh_seconds=0)


def test_it_is_public_and_costs_nothing_until_it_is_used():
    assert transom.LoadingCache is LoadingCache
    assert (transom.Found, transom.Absent, transom.SaturatedError) == (Found, Absent, SaturatedError)
    with pytest.raises(AttributeError, match="no attribute 'Cache'"):
        _ = transom.Cache
    code = "import sys, transom; print(*(name for name in sys.modules if name in ('asyncio', 'msgspec')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_pages_example_runs(tmp_path):
    (example,) = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    script, _, rest = example.partition("```")
    printed = rest.split("```text\n")[1].partition("```")[0]
    (tmp_path / "example.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "example.py"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == printed
