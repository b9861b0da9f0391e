"""Where the loading cache keeps its answers: values in a bounded shelf, absences in a smaller one beside it.

Values are given up by second chance (CLOCK): a hit sets one flag, and only when room is needed does a hand go
round and take the first entry without it. A true LRU would move something on every hit; a `dict` used as a
queue would be searched over and over past its own deleted front. The hand looks at a bounded number of
entries and then takes the one it stands on, so that a cache of a million hot keys never stops to go round
them all.

An entry costs 80 bytes, its times, and its places in the ring and the `dict`. Entries are not tracked by the
garbage collector: a million of them would make each full collection slow. They hold nothing of the cache's
own, so no cycle goes through them unless a cached value refers to the cache; closing it ends that too.

Next on the data's way: `loading_core` decides what is kept here.
Source of the algorithm: F. J. Corbató, "A Paging Experiment with the Multics System", 1968.
"""

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LOOKS_MAX = 16


class Found(NamedTuple, Generic[V]):
    """The source has a value, which is never None. Versions are ordered, bigger is newer; None: it has none,
    and what came later counts.
    """

    value: V
    version: Any


class Absent(NamedTuple):
    """The source answered that there is none: knowledge, as good as a value. `version` as with `Found`."""

    version: Any = None


Answer: TypeAlias = Found[V] | Absent
"""What a source may say. That it could not be asked is an exception, never an answer."""


def supersedes(answer: Answer[V], known: Answer[V] | None) -> bool:
    """Whether `answer` may take the place of what is `known`: it is not older, and at an equal version it
    does not say the opposite.
    """
    if known is None or answer.version is None or known.version is None:
        return True
    if answer.version == known.version:
        return isinstance(answer, Found) is isinstance(known, Found)
    return bool(answer.version > known.version)


class State(Enum):
    """What a value that is held may be used for."""

    FRESH = "fresh"
    """Served as it is."""
    REFRESHABLE = "refreshable"
    """Served, and the source is asked again in the background."""
    STALE = "stale but usable"
    """Served although the source failed when it was asked again."""
    EXPIRED = "expired"
    """Not served: nobody confirmed it for too long. Kept for its version, until a load or the room
    ends it.
    """


class Entry(msgspec.Struct, Generic[K, V], gc=False, eq=False):
    """One value held. Times are the clock's monotonic seconds; `used` is the flag of the second chance."""

    key: K
    value: V
    version: Any
    fresh_until: float
    expires: float
    retry_at: float = 0.0
    failures: int = 0
    used: bool = False

    def state(self, now: float) -> State:
        """What the value may be used for at `now`."""
        if now < self.fresh_until:
            return State.FRESH
        if now >= self.expires:
            return State.EXPIRED
        return State.STALE if self.failures else State.REFRESHABLE


class Shelf(Generic[K, V]):
    """The values held, at most `most`. The ring never shrinks: entries taken out wait to be used again."""

    def __init__(self, most: int) -> None:
        self.by_key: dict[K, Entry[K, V]] = {}
        self.evicted = 0
        self._most = most
        self._ring: list[Entry[K, V]] = []
        self._spare: list[Entry[K, V]] = []
        self._hand = 0

    def put(self, key: K, found: Found[V], fresh_until: float, expires: float) -> None:
        """Hold `found`, in the place of what was held for `key` or of what was not used for a while."""
        entry = self.by_key.get(key)
        if entry is None:
            entry = self._room()
            if entry is None:
                entry = Entry(key, found.value, found.version, fresh_until, expires)
                self._ring.append(entry)
            entry.key, entry.used = key, False
            self.by_key[key] = entry
        entry.value, entry.version = found
        entry.fresh_until, entry.expires = fresh_until, expires
        entry.retry_at, entry.failures = 0.0, 0

    def drop(self, key: K) -> None:
        """Hold nothing for `key`, and nothing of what it was."""
        entry = self.by_key.pop(key, None)
        if entry is not None:
            entry.key = entry.value = entry.version = None  # pyright: ignore[reportAttributeAccessIssue]
            self._spare.append(entry)

    def clear(self) -> None:
        """Hold nothing."""
        for held in (self.by_key, self._ring, self._spare):
            held.clear()
        self._hand = 0

    def _room(self) -> Entry[K, V] | None:
        """An entry to use again; None while there is room for another."""
        if self._spare:
            return self._spare.pop()
        if len(self._ring) < self._most:
            return None
        entry = self._ring[self._hand]
        for _ in range(_LOOKS_MAX):
            entry = self._ring[self._hand]
            self._hand = (self._hand + 1) % self._most
            if not entry.used:
                break
            entry.used = False
        del self.by_key[entry.key]
        self.evicted += 1
        return entry


class Absences(Generic[K]):
    """Keys known to be absent, each until a time; at most `most`, the oldest are forgotten first.

    One that is over says nothing any more, but its version still holds off older answers until it is
    forgotten. In a store of their own, keys that somebody makes up push out no value.
    """

    def __init__(self, most: int) -> None:
        self.evicted = 0
        self._most = most
        # Not a dict: taking the first out of one, again and again, searches past all that were taken before.
        self._by_key: OrderedDict[K, tuple[float, Absent]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: K) -> Absent | None:
        """What was said of `key`, over or not."""
        held = self._by_key.get(key)
        return None if held is None else held[1]

    def valid(self, key: K, now: float) -> bool:
        """Whether `key` is known to be absent at `now`."""
        held = self._by_key.get(key)
        return held is not None and now < held[0]

    def put(self, key: K, absent: Absent, until: float) -> None:
        """Know `key` to be absent."""
        self._by_key.pop(key, None)
        self._by_key[key] = until, absent
        if len(self._by_key) > self._most:
            self._by_key.popitem(last=False)
            self.evicted += 1

    def drop(self, key: K) -> None:
        """Know nothing of `key`."""
        self._by_key.pop(key, None)

    def clear(self) -> None:
        """Know nothing."""
        self._by_key.clear()
