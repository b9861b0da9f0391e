"""What the loading cache decides, without I/O: keys, answers, times and tokens in; what to load and whom to
wake out. `loading_cache` puts it on an event loop.

What holds, and is tested against a plain model:

1. One flight a key: whoever asks for a key that is being loaded waits for that load.
2. What is known of a key never goes back: an answer that is older than it, from a load or from the feed,
   changes nothing. What the feed brings while a load is under way wins, unless the load's answer is newer
   still.
3. An error is no answer. It removes nothing, is told to those who waited for that load, and is then
   forgotten.
4. Nothing is served that the source did not confirm within `usable_seconds`. Age counts from when a load
   began: the answer may be as old as that.
5. Fills (somebody waits) and refreshes (nobody does) have limits of their own. Fills queue, refreshes do not:
   one that finds no room is asked for again by the next hit.
6. Everything is bounded: values, absences, fills, refreshes, callers that wait; queued fills by the callers.
7. A source that is down is asked ever less: each key backs off by itself, and after as many failed refreshes
   in a row as may run at once, all refreshes pause between attempts. What is held is served meanwhile.

Terms as in Caffeine (https://github.com/ben-manes/caffeine/wiki/Refresh). Next: `loading_store` keeps the
answers.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from transom.model.errors import InvalidError, Problem, SaturatedError, UnreachableError
from transom.runtime.loading_store import Absences, Absent, Answer, Found, Shelf, State, supersedes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SPREAD_SHARE = 0.2
"""Times are shortened by up to this share, so that what came at once is not asked for again at once."""
_RETRY_FIRST_SECONDS, _RETRY_MOST_SECONDS = 1.0, 60.0
_PAUSE_FIRST_SECONDS, _PAUSE_MOST_SECONDS = 0.1, 2.0


@dataclass(frozen=True)
class Limits:
    """How much is held, for how long, and how much may go on at once. Raises `InvalidError`, every mistake at
    once.
    """

    max_entries: int = 100_000
    max_absent: int = 10_000
    fresh_seconds: float = 30.0
    usable_seconds: float | None = None
    absent_seconds: float = 5.0
    max_fills: int = 64
    max_refreshes: int = 8
    max_waiting: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        counts = ("max_entries", "max_absent", "max_fills", "max_refreshes", "max_waiting")
        problems = [Problem(name, "must be 1 or more") for name in counts if getattr(self, name) < 1]
        times = ("fresh_seconds", "absent_seconds")
        problems += [Problem(name, "must be more than 0") for name in times if not getattr(self, name) > 0]
        if self.usable_seconds is not None and not self.usable_seconds >= self.fresh_seconds:
            problems.append(Problem("usable_seconds", "must not be less than fresh_seconds"))
        if problems:
            raise InvalidError("the loading cache", problems)


class Stats(NamedTuple):
    """Counters since the start, and (from `entries` on) sizes now."""

    hits: int
    """Fresh values served."""
    hits_due: int
    """Values served past their fresh time."""
    hits_absent: int
    fills: int
    """Loads that somebody waited for."""
    refreshes: int
    shared: int
    """Callers who joined a load under way."""
    failures: int
    """Loads that raised."""
    outdated: int
    """Answers of loads and of the feed that were older than what was known."""
    saturated: int
    """Callers turned away."""
    evicted: int
    evicted_absent: int
    entries: int
    absent: int
    filling: int
    queued: int
    refreshing: int
    waiting: int
    """Callers who wait now."""


@dataclass(eq=False)
class Flight(Generic[K, V]):
    """A load of one key, from the first who asks until the last who waited has read the outcome.

    So long the feed still reaches it: a caller that wakes late reads what is known then. `known` is the
    newest answer known of the key, from what was held or from the feed (`pushed`, at `pushed_at`), which may
    be served until `known_until`; `outcome` is what callers get: an answer, or why there is none. `trace` is
    where its error came from. `phase` is "queued", "loading" or "settled".

    `sure`: what is known is as new as anything the feed said before. When nothing was held, the feed may be
    repeating itself from long ago; then the load must say so too before anybody gets it.
    """

    key: K
    refresh: bool
    known: Answer[V] | None
    known_until: float
    sure: bool
    tokens: set[Any] = field(default_factory=set[Any])
    phase: str = "queued"
    started: float = 0.0
    pushed: bool = False
    pushed_at: float = 0.0
    outcome: Answer[V] | Exception | None = None
    trace: TracebackType | None = None


class LoadingCore(Generic[K, V]):
    """The decisions. `below(x)` is any number from 0 to `x`; `now` is never less than it was before."""

    def __init__(self, limits: Limits, below: Callable[[float], float]) -> None:
        self.limits = limits
        self.shelf: Shelf[K, V] = Shelf(limits.max_entries)
        self.absences: Absences[K] = Absences(limits.max_absent)
        self.flights: dict[K, Flight[K, V]] = {}
        self.hits = self.hits_due = self.hits_absent = 0
        self._below = below
        # Ordered by who asked first, and a place in it is given up in one step.
        self._queue: OrderedDict[K, Flight[K, V]] = OrderedDict()
        self._filling = self._refreshing = self._waiting = 0
        self._fills = self._refreshes = self._shared = 0
        self._failures = self._outdated = self._saturated = 0
        self._failed_in_a_row = 0
        self._paused_until = -inf

    # What is held

    def state(self, key: K, now: float) -> State | None:
        """The state of the value held for `key`; None when none is."""
        entry = self.shelf.by_key.get(key)
        return None if entry is None else entry.state(now)

    def peek(self, key: K, now: float) -> V | None:
        """The value, unless there is none or it has expired."""
        entry = self.shelf.by_key.get(key)
        if entry is None or now >= entry.expires:
            return None
        entry.used = True
        if now < entry.fresh_until:
            self.hits += 1
        else:
            self.hits_due += 1
        return entry.value

    def known_absent(self, key: K, now: float) -> bool:
        """Whether the source said lately that there is none."""
        absent = self.absences.valid(key, now)
        self.hits_absent += absent
        return absent

    # Loads

    def refresh(self, key: K, now: float) -> Flight[K, V] | None:
        """A refresh to start now, if the value of `key` is due for one and one is allowed."""
        entry = self.shelf.by_key.get(key)
        if entry is None or not entry.fresh_until <= now < entry.expires or now < entry.retry_at:
            return None
        if key in self.flights or self._refreshing >= self.limits.max_refreshes or now < self._paused_until:
            return None
        flight = self._flight(key, refresh=True)
        flight.phase, flight.started = "loading", now
        self._refreshing += 1
        self._refreshes += 1
        return flight

    def ask(self, key: K, now: float, token: Hashable) -> Flight[K, V] | Answer[V]:
        """The answer, or the flight that will bring it; `token` then waits with it until `leave`.

        To be called when `peek` had nothing. Raises `SaturatedError`.
        """
        if self.known_absent(key, now):
            return Absent()
        flight = self.flights.get(key)
        outcome = flight.outcome if flight is not None and flight.phase == "settled" else None
        if isinstance(outcome, Found | Absent):
            # Only answers stay, while those who waited read them; this one is of this moment.
            return outcome
        if self._waiting >= self.limits.max_waiting:
            self._saturated += 1
            waits = f"{self._waiting} callers wait for the source already, and no more may"
            raise SaturatedError(f"cannot tell now: {waits}; ask again")
        if flight is None:
            flight = self._queue[key] = self._flight(key, refresh=False)
        else:
            self._shared += 1
        flight.tokens.add(token)
        self._waiting += 1
        return flight

    def leave(self, flight: Flight[K, V], token: Hashable) -> None:
        """`token` waits no longer: it has read the outcome, or has given up. A load under way goes on, as its
        answer will be wanted again; one that nobody waits for any more is not begun.
        """
        if token in flight.tokens:
            flight.tokens.remove(token)
            self._waiting -= 1
        if not flight.tokens and flight.phase != "loading":
            self._forget(flight)

    def next_fill(self, now: float) -> Flight[K, V] | None:
        """The next fill to start now, if any waits and there is room for it."""
        if not self._queue or self._filling >= self.limits.max_fills:
            return None
        _, flight = self._queue.popitem(last=False)
        flight.phase, flight.started = "loading", now
        self._filling += 1
        self._fills += 1
        return flight

    def settle(self, flight: Flight[K, V], answer: Answer[V], now: float) -> None:
        """The load of `flight` brought `answer`; who waits may be woken.

        Versions that cannot be compared raise what comparing them raises, and change nothing.
        """
        newer = supersedes(answer, flight.known) and not _raced(answer, flight)
        self._landed(flight)
        self._failed_in_a_row, self._paused_until = 0, -inf
        if newer:
            flight.known_until = self._take(flight.key, answer, flight.started)
            flight.known = flight.outcome = answer
        else:
            if not flight.pushed:
                # The source is behind itself: what is known stays, but it was not confirmed.
                self._outdated += 1
                self._back_off(flight.key, now)
            elif not flight.sure and flight.known is not None:
                flight.known_until = self._take(flight.key, flight.known, flight.pushed_at)
            older = "the source answered with something older than what was known; ask again later"
            flight.outcome = _rest(flight, UnreachableError(older), now)
        flight.sure = True
        self._retire(flight)

    def fail(self, flight: Flight[K, V], error: Exception, now: float) -> None:
        """The load of `flight` brought no answer; who waits may be woken."""
        self._landed(flight)
        self._failures += 1
        if flight.refresh:
            self._failed_in_a_row += 1
            over = self._failed_in_a_row - self.limits.max_refreshes
            if over >= 0:
                pause = self._delay(over, _PAUSE_FIRST_SECONDS, _PAUSE_MOST_SECONDS)
                self._paused_until = now + pause
        if not flight.pushed:
            self._back_off(flight.key, now)
        flight.outcome = _rest(flight, error, now)
        self._retire(flight)

    def abandon(self, error: Exception) -> list[Flight[K, V]]:
        """Give up every queued fill for `error`, at the end; returns those whose callers are to be woken."""
        queued = list(self._queue.values())
        self._queue.clear()
        for flight in queued:
            flight.phase, flight.outcome = "settled", error
            self._retire(flight)
        return queued

    # The feed

    def concerns(self, key: K) -> bool:
        """Whether `key` is held, known to be absent, or on its way."""
        return key in self.shelf.by_key or key in self.flights or self.absences.get(key) is not None

    def push(self, key: K, answer: Answer[V], now: float) -> Flight[K, V] | None:
        """The source's feed says `answer`; returns the flight whose callers may be woken, if there is one.

        What is held, known to be absent, or on its way is brought up to date; anything else is not taken in.
        A feed may repeat itself and go back; what it said of one key once is not undone by that.
        """
        flight = self.flights.get(key)
        known = flight.known if flight is not None else self._known(key)
        if not supersedes(answer, known):
            self._outdated += 1
        elif flight is not None:
            flight.known, flight.pushed, flight.pushed_at = answer, True, now
            if not flight.sure:
                return None
            flight.known_until = self._take(key, answer, now)
            flight.outcome = answer
            if flight.phase == "queued":
                del self._queue[key]
                flight.phase = "settled"
            return flight
        elif known is not None and (isinstance(known, Found) or isinstance(answer, Absent)):
            self._take(key, answer, now)
        else:
            self.absences.drop(key)
        return None

    def clear(self) -> None:
        """Hold nothing."""
        self.shelf.clear()
        self.absences.clear()

    def stats(self) -> Stats:
        """Counters and sizes."""
        loads = (self._fills, self._refreshes, self._shared, self._failures)
        refused = (self._outdated, self._saturated)
        held = (len(self.shelf.by_key), len(self.absences))
        going = (self._filling, len(self._queue), self._refreshing, self._waiting)
        evicted = (self.shelf.evicted, self.absences.evicted)
        hits = (self.hits, self.hits_due, self.hits_absent)
        return Stats(*hits, *loads, *refused, *evicted, *held, *going)

    # Inside

    def _known(self, key: K) -> Answer[V] | None:
        entry = self.shelf.by_key.get(key)
        return self.absences.get(key) if entry is None else Found(entry.value, entry.version)

    def _flight(self, key: K, *, refresh: bool) -> Flight[K, V]:
        entry = self.shelf.by_key.get(key)
        until = -inf if entry is None else entry.expires
        known = self._known(key)
        flight = self.flights[key] = Flight[K, V](key, refresh, known, until, sure=known is not None)
        return flight

    def _take(self, key: K, answer: Answer[V], confirmed: float) -> float:
        """Hold `answer`; returns until when it may be served."""
        if isinstance(answer, Absent):
            until = confirmed + self._shortened(self.limits.absent_seconds)
            self.shelf.drop(key)
            self.absences.put(key, answer, until)
            return until
        usable = self.limits.usable_seconds
        until = inf if usable is None else confirmed + usable
        self.absences.drop(key)
        self.shelf.put(key, answer, confirmed + self._shortened(self.limits.fresh_seconds), until)
        return until

    def _landed(self, flight: Flight[K, V]) -> None:
        flight.phase = "settled"
        if flight.refresh:
            self._refreshing -= 1
        else:
            self._filling -= 1

    def _retire(self, flight: Flight[K, V]) -> None:
        # Who asks after an error asks the source again, even before the others have read that error.
        if not flight.tokens or isinstance(flight.outcome, Exception):
            self._forget(flight)

    def _forget(self, flight: Flight[K, V]) -> None:
        if self.flights.get(flight.key) is flight:
            del self.flights[flight.key]
            self._queue.pop(flight.key, None)

    def _back_off(self, key: K, now: float) -> None:
        entry = self.shelf.by_key.get(key)
        if entry is not None:
            entry.retry_at = now + self._delay(entry.failures, _RETRY_FIRST_SECONDS, _RETRY_MOST_SECONDS)
            entry.failures += 1

    def _shortened(self, seconds: float) -> float:
        return seconds - self._below(seconds * _SPREAD_SHARE)

    def _delay(self, failures: int, first: float, most: float) -> float:
        # As `runtime.backoff` counts, without an object for each key.
        ceiling = min(most, first * 2.0 ** min(failures, 30))
        return ceiling / 2 + self._below(ceiling / 2)


def _raced(answer: Answer[Any], flight: Flight[Any, Any]) -> bool:
    """Whether the feed spoke during the load, and no versions tell which of the two is newer."""
    known = flight.known
    return flight.pushed and (answer.version is None or known is None or known.version is None)


def _rest(flight: Flight[K, V], error: Exception, now: float) -> Answer[V] | Exception:
    """What callers get when the load told nothing newer: what is known, if it may be served still."""
    return flight.known if flight.known is not None and now < flight.known_until else error
