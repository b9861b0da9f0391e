"""The loading cache's decisions: exactly as a plain model says, and safe when everything is scarce."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from transom.model.errors import Advice, InvalidError, SaturatedError, UnreachableError
from transom.runtime.loading_core import Flight, Limits, LoadingCore
from transom.runtime.loading_store import Absent, Answer, Found, State, supersedes

KEYS = "abc"
FRESH, USABLE, ABSENT = 10.0, 40.0, 5.0
WIDE = Limits(fresh_seconds=FRESH, usable_seconds=USABLE, absent_seconds=ABSENT, max_fills=2, max_refreshes=2)

keys = st.sampled_from(KEYS)
versions = st.one_of(st.integers(0, 5), st.integers(0, 5), st.none())
answers = versions.flatmap(lambda v: st.sampled_from([Found(f"value {v}", v), Absent(v)]))


class BoomError(Exception):
    """The source is away."""


def older(answer: Answer[str], known: Answer[str] | None) -> bool:
    """Older than what is known, or the opposite at the same version."""
    if known is None or None in (answer.version, known.version):
        return False
    return answer.version < known.version or (
        answer.version == known.version and type(answer) is not type(known)
    )


class Plain:
    """What the cache should know, with no bounds, no queues and nothing evicted: a dict and the clock."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[Answer[str], float]] = {}
        self.failures: dict[str, int] = {}
        self.pushed_in_flight: set[str] = set()
        # What the feed said of keys of which nothing is known, while they are loaded.
        self.unsure: dict[str, tuple[Answer[str], float]] = {}

    def served(self, key: str, now: float) -> Answer[str] | None:
        answer, confirmed = self.known.get(key, (None, 0.0))
        lasts = USABLE if isinstance(answer, Found) else ABSENT
        return answer if answer is not None and now < confirmed + lasts else None

    def state(self, key: str, now: float) -> State | None:
        answer, confirmed = self.known.get(key, (None, 0.0))
        if not isinstance(answer, Found):
            return None
        if now < confirmed + FRESH:
            return State.FRESH
        if now >= confirmed + USABLE:
            return State.EXPIRED
        return State.STALE if self.failures.get(key) else State.REFRESHABLE

    def _take(self, key: str, answer: Answer[str], confirmed: float) -> None:
        self.known[key] = answer, confirmed
        self.failures.pop(key, None)

    def push(self, key: str, answer: Answer[str], now: float, *, loading: bool) -> bool:
        """Whether it is known from now on."""
        known, _ = self.known.get(key, (None, 0.0))
        if loading and known is None:
            if older(answer, self.unsure.get(key, (None, 0.0))[0]):
                return False
            self.unsure[key] = answer, now
            return False
        if older(answer, known):
            return False
        if loading:
            self.pushed_in_flight.add(key)
        if loading or isinstance(known, Found) or (known is not None and isinstance(answer, Absent)):
            self._take(key, answer, now)
        else:
            self.known.pop(key, None)
        return True

    def landed(self, key: str, answer: Answer[str] | None, started: float, now: float) -> Answer[str] | None:
        """What callers get; `answer` None: the load raised. None: callers get an error."""
        if key in self.unsure:
            said, when = self.unsure.pop(key)
            if answer is None:
                return None
            if older(answer, said) or None in (answer.version, said.version):
                self._take(key, said, when)
                return self.served(key, now)
            self._take(key, answer, started)
            return answer
        known, _ = self.known.get(key, (None, 0.0))
        pushed = key in self.pushed_in_flight
        self.pushed_in_flight.discard(key)
        unordered = answer is not None and known is not None and None in (answer.version, known.version)
        if answer is not None and not older(answer, known) and not (pushed and unordered):
            self._take(key, answer, started)
            return answer
        if not pushed:
            self.failures[key] = self.failures.get(key, 0) + 1
        return self.served(key, now)


class AgainstPlainModel(RuleBasedStateMachine):
    """Nothing is scarce but the places for loads; nothing is jittered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.core: LoadingCore[str, str] = LoadingCore(WIDE, lambda _: 0.0)
        self.model = Plain()
        self.loading: dict[str, Flight[str, str]] = {}
        self.waiting: list[tuple[Flight[str, str], int]] = []
        self.tokens = itertools.count()

    def start(self) -> None:
        while (flight := self.core.next_fill(self.now)) is not None:
            self.began(flight)

    def began(self, flight: Flight[str, str]) -> None:
        assert flight.key not in self.loading, "one load a key"
        self.loading[flight.key] = flight

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 5.0, 10.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=keys)
    def ask(self, key: str) -> None:
        if isinstance(self.model.served(key, self.now), Found):
            flight = self.core.refresh(key, self.now)
            if flight is not None:
                assert self.model.state(key, self.now) in {State.REFRESHABLE, State.STALE}
                self.began(flight)
            return
        token = next(self.tokens)
        asked = self.core.ask(key, self.now, token)
        if isinstance(asked, Flight):
            assert self.model.served(key, self.now) is None
            self.waiting.append((asked, token))
        else:
            assert isinstance(asked, Absent)
            assert isinstance(self.model.served(key, self.now), Absent)
        self.start()

    @rule(key=keys, answer=answers)
    def push(self, key: str, answer: Answer[str]) -> None:
        on_its_way = key in self.core.flights
        taken = self.model.push(key, answer, self.now, loading=on_its_way)
        woken = self.core.push(key, answer, self.now)
        assert (woken is not None) == (taken and on_its_way)
        if woken is not None:
            if key not in self.loading:
                self.model.pushed_in_flight.discard(key)
            self.read(woken, answer)

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), answer=st.one_of(answers, st.none()))
    def land(self, data: st.DataObject, answer: Answer[str] | None) -> None:
        flight = self.loading.pop(data.draw(st.sampled_from(sorted(self.loading))))
        expected = self.model.landed(flight.key, answer, flight.started, self.now)
        if answer is None:
            self.core.fail(flight, BoomError(), self.now)
        else:
            self.core.settle(flight, answer, self.now)
        self.read(flight, expected)
        self.start()

    def read(self, flight: Flight[str, str], expected: Answer[str] | None) -> None:
        """Those who waited read the outcome."""
        if expected is None:
            assert isinstance(flight.outcome, BoomError | UnreachableError)
        else:
            assert flight.outcome == expected
        for waiting in [each for each in self.waiting if each[0] is flight]:
            self.core.leave(*waiting)
            self.waiting.remove(waiting)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        flight, token = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.core.leave(flight, token)
        if flight.key not in self.core.flights:
            self.model.unsure.pop(flight.key, None)

    @invariant()
    def agrees(self) -> None:
        for key in KEYS:
            served = self.model.served(key, self.now)
            assert self.core.peek(key, self.now) == (served.value if isinstance(served, Found) else None)
            assert self.core.known_absent(key, self.now) == isinstance(served, Absent)
            assert self.core.state(key, self.now) == self.model.state(key, self.now)
        fills = [flight for flight in self.loading.values() if not flight.refresh]
        stats = self.core.stats()
        assert (stats.filling, stats.refreshing) == (len(fills), len(self.loading) - len(fills))
        assert stats.waiting == len(self.waiting)
        waited_for = {flight.key for flight, _ in self.waiting}
        assert set(self.core.flights) == waited_for | set(self.loading)
        assert stats.queued == len(waited_for - set(self.loading))
        assert stats.queued == 0 or stats.filling == WIDE.max_fills, "none waits while there is room"


TestAgainstPlainModel = AgainstPlainModel.TestCase
TestAgainstPlainModel.settings = settings(max_examples=150, stateful_step_count=40)


SCARCE = Limits(
    max_entries=2,
    max_absent=1,
    fresh_seconds=FRESH,
    usable_seconds=USABLE,
    absent_seconds=ABSENT,
    max_fills=1,
    max_refreshes=1,
    max_waiting=3,
)


class WhenEverythingIsScarce(RuleBasedStateMachine):
    """A true source, a feed that lags behind it, loads that bring what was true when they read. Whatever is
    evicted, raced or late: nobody gets what is older than the feed was at that moment, nor too old an answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        dice = random.Random(1)
        self.core: LoadingCore[str, str] = LoadingCore(SCARCE, lambda most: dice.uniform(0, most))
        # By key: what is true in each version, and until which version the feed has told.
        self.truth: dict[str, list[bool]] = {key: [False] for key in KEYS}
        self.told = dict.fromkeys(KEYS, 0)
        # By key and version: when the source or its feed said so last.
        self.said: dict[tuple[str, int], float] = {}
        self.reads: dict[str, tuple[Flight[str, str], int | None]] = {}
        self.woken: list[tuple[Flight[str, str], int]] = []
        self.waiting: list[tuple[Flight[str, str], int]] = []
        self.tokens = itertools.count()

    def answer(self, key: str, version: int) -> Answer[str]:
        return Found(f"{key} {version}", version) if self.truth[key][version] else Absent(version)

    def check(self, key: str, value: str | None, lasts: float) -> None:
        """A caller got `value`, None for absent."""
        told = self.told[key]
        if value is not None:
            version = int(value.removeprefix(f"{key} "))
            assert version >= told, "older than what the feed said before"
            possible = [version]
        else:
            possible = [v for v in range(told, len(self.truth[key])) if not self.truth[key][v]]
            assert possible, "absent, and the feed said before that it is there"
        assert any(self.now - self.said.get((key, v), -1e9) < lasts for v in possible), "too old"

    @rule(seconds=st.sampled_from([0.5, 4.0, 9.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.wake()
        self.now += seconds

    @rule(key=keys, there=st.booleans())
    def change(self, key: str, there: bool) -> None:  # noqa: FBT001
        self.truth[key].append(there)

    @rule(key=keys, data=st.data(), late=st.booleans())
    def tell(self, key: str, data: st.DataObject, late: bool) -> None:  # noqa: FBT001
        """The feed goes on; sometimes it repeats something old."""
        version = data.draw(st.integers(0 if late else self.told[key], len(self.truth[key]) - 1))
        self.said[key, version] = self.now
        flight = self.core.push(key, self.answer(key, version), self.now)
        self.told[key] = max(self.told[key], version)
        self.ready(flight)
        self.start()

    @rule(key=keys)
    def peek(self, key: str) -> None:
        value = self.core.peek(key, self.now)
        if value is not None:
            self.check(key, value, USABLE)
            flight = self.core.refresh(key, self.now)
            if flight is not None:
                self.begin(flight)
        elif self.core.known_absent(key, self.now):
            self.check(key, None, ABSENT)
        else:
            self.ask(key)

    def ask(self, key: str) -> None:
        token = next(self.tokens)
        try:
            asked = self.core.ask(key, self.now, token)
        except SaturatedError:
            assert len(self.waiting) + len(self.woken) == SCARCE.max_waiting
            return
        if isinstance(asked, Flight):
            self.waiting.append((asked, token))
        else:
            self.check(key, asked.value if isinstance(asked, Found) else None, 1e6)
        self.start()

    def start(self) -> None:
        while (flight := self.core.next_fill(self.now)) is not None:
            self.begin(flight)

    def begin(self, flight: Flight[str, str]) -> None:
        assert flight.key not in self.reads
        self.reads[flight.key] = flight, None

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """A load reads the source; its answer is on its way."""
        key = data.draw(st.sampled_from(sorted(self.reads)))
        self.reads[key] = self.reads[key][0], len(self.truth[key]) - 1

    @precondition(lambda self: self.reads)
    @rule(data=st.data(), fails=st.booleans())
    def land(self, data: st.DataObject, fails: bool) -> None:  # noqa: FBT001
        key = data.draw(st.sampled_from(sorted(self.reads)))
        flight, version = self.reads.pop(key)
        if fails or version is None:
            self.core.fail(flight, BoomError(), self.now)
        else:
            # For those who wait it is as good as new; for who comes later it is as old as its load.
            self.said[key, version] = max(flight.started, self.said.get((key, version), -1e9))
            self.core.settle(flight, self.answer(key, version), self.now)
        self.ready(flight)
        self.start()

    def ready(self, flight: Flight[str, str] | None) -> None:
        """They are woken, but have not read yet."""
        moved = [each for each in self.waiting if each[0] is flight]
        self.woken += moved
        self.waiting = [each for each in self.waiting if each[0] is not flight]

    @rule()
    def wake(self) -> None:
        """Those woken read what is known now, which the feed may have changed since."""
        for flight, token in self.woken:
            outcome = flight.outcome
            assert outcome is not None
            if not isinstance(outcome, Exception):
                self.check(flight.key, outcome.value if isinstance(outcome, Found) else None, 1e6)
            self.core.leave(flight, token)
        self.woken.clear()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.core.leave(*self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))))

    @invariant()
    def is_bounded(self) -> None:
        stats = self.core.stats()
        assert stats.entries <= SCARCE.max_entries
        assert stats.absent <= SCARCE.max_absent
        assert stats.filling <= SCARCE.max_fills
        assert stats.refreshing <= SCARCE.max_refreshes
        assert stats.filling + stats.refreshing == len(self.reads)
        assert stats.queued <= stats.waiting <= SCARCE.max_waiting
        assert stats.waiting == len(self.waiting) + len(self.woken)
        assert len(self.core.flights) <= len(self.reads) + stats.waiting

    def teardown(self) -> None:
        self.wake()
        while self.reads:
            key, (flight, _) = self.reads.popitem()
            self.core.fail(flight, BoomError(), self.now)
            assert flight.key == key
            self.ready(flight)
            self.wake()
            self.start()
        assert self.waiting == []
        assert self.core.flights == {}


TestWhenEverythingIsScarce = WhenEverythingIsScarce.TestCase
TestWhenEverythingIsScarce.settings = settings(max_examples=150, stateful_step_count=50)


def core(below: Callable[[float], float] = lambda _: 0.0, **limits: float) -> LoadingCore[str, str]:
    return LoadingCore(Limits(**limits), below)  # type: ignore[arg-type]


def fill(filled: LoadingCore[str, str], key: str, answer: Answer[str], now: float = 0.0) -> None:
    flight = filled.ask(key, now, key)
    assert isinstance(flight, Flight)
    assert filled.next_fill(now) is flight
    filled.settle(flight, answer, now)
    filled.leave(flight, key)


def test_what_was_used_gets_a_second_chance() -> None:
    held = core(max_entries=10)
    for number in range(10):
        fill(held, f"old {number}", Found("x", 1))
    hot = ["old 2", "old 5"]
    for number in range(100):
        assert [held.peek(key, 1.0) for key in hot] == ["x", "x"]
        fill(held, f"new {number}", Found("x", 1))
    assert len(held.shelf.by_key) == 10
    assert held.stats().evicted == 100


def test_room_is_found_in_few_steps_even_if_all_is_hot() -> None:
    class Looked(list):
        looks = 0

        def __getitem__(self, index):
            self.looks += 1
            return super().__getitem__(index)

    held = core(max_entries=1000)
    for number in range(1000):
        fill(held, str(number), Found("x", 1))
        held.peek(str(number), 0.0)
    ring = held.shelf._ring = Looked(held.shelf._ring)
    fill(held, "one more", Found("x", 1))
    assert ring.looks < 20
    assert len(held.shelf.by_key) == 1000


def test_places_of_what_was_removed_are_used_again_before_anything_is_evicted() -> None:
    held = core(max_entries=3)
    for _ in range(50):
        for key in "abc":
            fill(held, key, Found("x", 1))
        for key in "abc":
            held.push(key, Absent(2), 0.0)
        held.absences.clear()
    assert held.stats().evicted == 0
    assert len(held.shelf._ring) == 3


def test_made_up_keys_push_out_no_value() -> None:
    held = core(max_entries=10, max_absent=5)
    fill(held, "real", Found("x", 1))
    for number in range(1000):
        fill(held, f"made up {number}", Absent())
    assert held.peek("real", 0.0) == "x"
    assert (held.stats().absent, held.stats().evicted_absent) == (5, 995)
    assert held.known_absent("made up 999", 0.0)


def test_the_absence_said_longest_ago_is_forgotten_first() -> None:
    held = core(max_absent=2)
    fill(held, "a", Absent(1))
    fill(held, "b", Absent(1))
    held.push("a", Absent(2), 0.0)
    fill(held, "c", Absent(1))
    assert [held.known_absent(key, 0.0) for key in "abc"] == [True, False, True]


def test_what_came_at_once_is_not_due_at_once() -> None:
    held = core(random.Random(3).random().__mul__, fresh_seconds=100)
    dice = random.Random(4)
    held = LoadingCore(held.limits, lambda most: dice.uniform(0, most))
    for number in range(1000):
        fill(held, str(number), Found("x", 1))

    def due(now: float) -> int:
        return sum(held.state(str(number), now) is not State.FRESH for number in range(1000))

    assert [due(79.9), due(100.0)] == [0, 1000], "earlier than told by a fifth at most, never later"
    assert 400 < due(90.0) < 600


def test_a_source_that_is_down_is_asked_ever_less_and_serves_on() -> None:
    held = core(random.Random(5).random().__mul__)
    names = [str(number) for number in range(200)]
    for name in names:
        fill(held, name, Found(name, 1))
    asked: list[int] = []
    for minute in range(1, 11):
        asked.append(0)
        for tick in range(600):
            now = minute * 60 + tick / 10
            for name in names:
                assert held.peek(name, now) == name
                flight = held.refresh(name, now)
                if flight is not None:
                    asked[-1] += 1
                    held.fail(flight, BoomError(), now)
    # A healthy source would be asked about 200 * 60 / 27 = 440 times a minute.
    assert asked[0] < 440
    assert max(asked[1:]) < 100
    assert min(asked) > 0, "or its return would never be noticed"
    flight = next(flight for name in names if (flight := held.refresh(name, 1200.0)))
    held.settle(flight, Found("back", 2), 1200.0)
    again = [name for name in names if held.refresh(name, 1200.0)]
    assert len(again) == held.limits.max_refreshes, "one answer ends the pause for all"


def test_any_answer_ends_the_pause_of_all_refreshes() -> None:
    held = core(max_refreshes=2)
    for name in "abcd":
        fill(held, name, Found(name, 1))
    for name in "ab":
        flight = held.refresh(name, 40.0)
        assert flight is not None
        held.fail(flight, BoomError(), 40.0)
    assert held.refresh("c", 40.0) is None
    fill(held, "new", Found("x", 1), 40.0)
    assert held.refresh("c", 40.0) is not None


def test_a_key_that_always_fails_does_not_hold_the_others_back() -> None:
    held = core(max_refreshes=2)
    fill(held, "bad", Found("x", 1))
    fill(held, "good", Found("x", 1))
    bad = held.refresh("bad", 31.0)
    assert bad is not None
    held.fail(bad, BoomError(), 31.0)
    assert held.refresh("bad", 31.4) is None
    assert held.state("bad", 31.4) is State.STALE
    assert held.refresh("good", 31.4) is not None
    assert held.refresh("bad", 31.5) is not None


def test_a_load_that_fails_after_the_feed_spoke_spoils_nothing() -> None:
    held = core()
    fill(held, "a", Found("x", 1))
    flight = held.refresh("a", 31.0)
    assert flight is not None
    held.push("a", Found("y", 2), 32.0)
    held.fail(flight, BoomError(), 33.0)
    assert (held.peek("a", 33.0), held.state("a", 62.0)) == ("y", State.REFRESHABLE)


def test_what_was_evicted_during_its_load_does_not_go_back_either() -> None:
    held = core(max_entries=1)
    fill(held, "a", Found("new", 5))
    flight = held.refresh("a", 31.0)
    assert flight is not None
    fill(held, "b", Found("x", 1), 31.0)
    held.push("a", Found("old", 4), 31.0)
    assert held.peek("a", 31.0) is None
    held.settle(flight, Found("old", 4), 32.0)
    assert held.peek("a", 32.0) is None
    assert held.stats().outdated == 2


def test_of_what_the_feed_says_during_a_load_the_newest_counts() -> None:
    held = core()
    flight = held.ask("a", 0.0, 1)
    assert isinstance(flight, Flight)
    held.next_fill(0.0)
    held.push("a", Found("new", 3), 0.0)
    held.push("a", Found("repeated", 2), 0.0)
    held.settle(flight, Found("read before", 1), 0.0)
    assert flight.outcome == Found("new", 3)
    assert held.peek("a", 0.0) == "new"


def test_who_comes_while_others_still_read_an_answer_gets_it_too() -> None:
    held = core(max_absent=1)
    flight = held.ask("a", 0.0, 1)
    assert isinstance(flight, Flight)
    held.next_fill(0.0)
    held.settle(flight, Absent(1), 0.0)
    fill(held, "b", Absent(1))
    assert not held.known_absent("a", 0.0)
    assert held.ask("a", 0.0, 2) == Absent(1)
    held.leave(flight, 1)
    assert isinstance(held.ask("a", 0.0, 2), Flight)


def test_a_source_behind_itself_confirms_nothing() -> None:
    held = core(usable_seconds=60)
    fill(held, "a", Found("new", 2))
    flight = held.refresh("a", 40.0)
    assert flight is not None
    held.settle(flight, Found("old", 1), 40.0)
    assert (held.peek("a", 59.0), held.state("a", 59.0)) == ("new", State.STALE)
    assert held.peek("a", 60.0) is None
    late = held.ask("a", 60.0, 1)
    assert isinstance(late, Flight)
    held.next_fill(60.0)
    held.settle(late, Found("old", 1), 60.0)
    assert isinstance(late.outcome, UnreachableError)
    assert "older" in str(late.outcome)
    assert held.stats().outdated == 2


def test_the_age_of_a_value_counts_from_when_its_load_began() -> None:
    held = core(usable_seconds=30)
    flight = held.ask("a", 0.0, 1)
    assert isinstance(flight, Flight)
    held.next_fill(0.0)
    held.settle(flight, Found("x", 1), 25.0)
    assert held.peek("a", 29.9) == "x"
    assert held.peek("a", 30.0) is None


def test_versions_order_answers() -> None:
    assert supersedes(Found("x", 2), Found("y", 1))
    assert supersedes(Found("x", 1), Found("x", 1))
    assert not supersedes(Found("x", 1), Found("y", 2))
    assert not supersedes(Absent(1), Found("y", 1))
    assert not supersedes(Found("y", (0, 9)), Absent((1, 0)))
    assert supersedes(Absent(), Found("y", 2))


def test_limits_that_cannot_be_are_refused_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        Limits(max_entries=0, max_waiting=-1, absent_seconds=0, fresh_seconds=9, usable_seconds=8)
    assert [problem.path for problem in caught.value.problems] == [
        "max_entries",
        "max_waiting",
        "absent_seconds",
        "usable_seconds",
    ]
    assert SaturatedError("x").advice is Advice.RETRY
