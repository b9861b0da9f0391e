"""What a lane adds to a plain publisher: a seal, canaries, a rate, a freeze, and where a new link begins.

A topic fed by one publisher needs none of this. Contexts travel on two topics that feed one table: single
changes on a fast lane, fills and repairs on a bulk lane. Next on the data's way: `publish`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transom.logs.protocol import Headers
from transom.model.records import Record
from transom.model.roads import Canary
from transom.model.version import Version
from transom.runtime.clock import Clock
from transom.runtime.signals import Level

CANARY_SECONDS = 2.0
_ORIGIN = "hub"
_MILLISECOND_BITS = 16
"""65,536 canaries a millisecond: more than any log takes, so counting on never overtakes the clock."""
_SHARE_OF_A_SECOND = 0.05

Seal = Callable[[Sequence[Record]], Sequence[Headers]]
"""Gives each of some records the headers that prove where they come from (`tables.seals`)."""


class Freeze:
    """Whether nothing at all may go out now. `changed` rises when that changes."""

    def __init__(self) -> None:
        self.on = False
        self.changed = Level()

    def set(self, on: bool) -> None:  # noqa: FBT001  # what else could it be
        """Freeze, or let go."""
        if on != self.on:
            self.on = on
            self.changed.rise()


class TokenBucket:
    """At most `rate` records a second, after `burst` at once. It makes wait and drops nothing.

    Source: the leaky bucket as a meter (ITU-T I.371).
    """

    def __init__(self, clock: Clock, rate: float, burst: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = clock.monotonic()

    async def room(self, most: int) -> int:
        """How many records may go now, up to `most`; waits while it is hardly any.

        A record at a time would cost an append each, so it waits for 50 ms worth of them.
        """
        least = max(1.0, min(most, self._burst, self._rate * _SHARE_OF_A_SECOND))
        while (held := self._fill()) < least:
            await self._clock.sleep((least - held) / self._rate)
        return min(most, int(held))

    def take(self, count: int) -> None:
        """Count `count` records that go."""
        self._tokens = self._fill() - count

    def _fill(self) -> float:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens


@dataclass(frozen=True)
class Lane:
    """How a publisher differs from a plain one; as it stands here, in nothing.

    `fill`: a new link begins with everything its source has, of every lane; without, at the source's present
    revision, and leaves what was before to the lane that fills. `batch`: records an append. `canary`: the key
    of its canaries, sent last in every append and every `canary_seconds`; such a topic has one partition.
    """

    fill: bool = True
    batch: int = 500
    canary: str = ""
    canary_seconds: float = CANARY_SECONDS
    seal: Seal | None = None
    rate: TokenBucket | None = None
    freeze: Freeze = field(default_factory=Freeze)


class Canaries:
    """Makes a lane's canaries, each with a higher version than all before, also after a restart.

    The version counts on from what the link's position remembers, and begins no lower than the time: when
    the log was made anew, and the position with it, a gateway that kept its table must still take them.
    """

    def __init__(self, key: str, epoch: int, counter: int, clock: Clock) -> None:
        self.counter = max(counter, int(clock.wall() * 1000) << _MILLISECOND_BITS)
        self._key = key
        self._epoch = epoch

    def next(self, canary: Canary, encode: Callable[[Canary], bytes]) -> Record:
        """The record of `canary`."""
        self.counter += 1
        return Record(self._key, Version(self._epoch, self.counter, _ORIGIN), encode(canary))
