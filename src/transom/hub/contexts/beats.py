"""What gateways say of themselves, as the hub heard it last: bounded, by region and gateway.

Next on the data's way: `gates` and `moves` decide by it, `service` shows it.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from prometheus_client import Gauge

from transom.hub.listening import Hearing
from transom.model.resources import JsonObject
from transom.model.roads import GatewayBeat
from transom.runtime.clock import Clock, rfc3339
from transom.runtime.telemetry import get_logger, metrics

LATELY_SECONDS = 15.0
"""A gateway that was not heard for so long (several beats) is not there, for gates, moves and sweeps."""
FORGOTTEN_SECONDS = 600.0
"""A gateway that was not heard for so long was retired: nobody waits for it, or shows it, any more."""
_GATEWAYS_MAX = 256
_AGES_MAX = 500
_EXAMPLE_CHARACTERS = 120
_TIME_CHARACTERS = 19
"""Of a time, those up to its seconds."""
_CLOCK_SECONDS = 10.0
"""Clocks that differ by more are told of: a gateway judges by its own when keys expire."""

log_event = get_logger(__name__)

_age = Gauge(
    "transom_context_age_seconds",
    "How old what gateways know was, of the last 500 beats of a region",
    ["region", "quantile"],
    registry=metrics,
)


class Heard(NamedTuple):
    """A beat, and when it was sent (monotonic seconds here)."""

    beat: GatewayBeat
    at: float


class Beats:
    """The newest beat of each gateway of one region."""

    def __init__(self, region: str, clock: Clock) -> None:
        self._region = region
        self._clock = clock
        self._heard: dict[str, Heard] = {}
        self._hearing = Hearing(clock)
        self._ages: deque[float] = deque(maxlen=_AGES_MAX)

    def hear(self, beat: GatewayBeat, sent: float) -> bool:
        """Take a beat that was sent at wall time `sent`; returns whether the gateway has come further."""
        now = self._clock.monotonic()
        at = self._hearing.said_at(beat.gateway, sent)
        if now - at >= FORGOTTEN_SECONDS:
            return False
        before = self._heard.pop(beat.gateway, None)
        self._heard[beat.gateway] = Heard(beat, at)
        while len(self._heard) > _GATEWAYS_MAX:
            del self._heard[next(iter(self._heard))]
        if beat.age_seconds is not None and now - at < LATELY_SECONDS:
            self._ages.append(beat.age_seconds)
            self._measure()
        return before is None or _standing(before.beat) != _standing(beat)

    def lately(self) -> list[GatewayBeat]:
        """The newest beats of the gateways that are there."""
        since = self._clock.monotonic() - LATELY_SECONDS
        return [heard.beat for heard in self.known() if heard.at >= since]

    def known(self) -> Sequence[Heard]:
        """The gateways heard within `FORGOTTEN_SECONDS`, by name; the others are forgotten here."""
        since = self._clock.monotonic() - FORGOTTEN_SECONDS
        for name in [name for name, heard in self._heard.items() if heard.at <= since]:
            del self._heard[name]
            log_event.warning(
                "a gateway was not heard for long and is forgotten",
                region=self._region,
                gateway=name,
                seconds=FORGOTTEN_SECONDS,
            )
        return sorted(self._heard.values(), key=lambda each: each.beat.gateway)

    def problems(self) -> dict[str, str]:
        """What is wrong with the region's gateways, a line each, for people."""
        now = self._clock.monotonic()
        told = {
            f"gateway {beat.gateway}": _trouble(
                beat, now - at, self._clock.wall(), self._hearing.behind(beat.gateway)
            )
            for beat, at in self.known()
        }
        return {name: why for name, why in told.items() if why}

    def age_seconds(self) -> float | None:
        """How old what the region's gateways know is now, of the one that knows least; None when one never
        knew anything, or none is known.

        A gateway that fell silent, or was taken away, counts no more while another speaks; `problems` tells
        of it. When all are silent, what they know grows old together.
        """
        now = self._clock.monotonic()
        known = self.known()
        there = [heard for heard in known if now - heard.at < LATELY_SECONDS]
        ages = [
            None if heard.beat.age_seconds is None else heard.beat.age_seconds + now - heard.at
            for heard in there or known
        ]
        told = [age for age in ages if age is not None]
        return max(told) if told and len(told) == len(ages) else None

    def described(self) -> list[JsonObject]:
        """Every gateway that is known, as the API shows it."""
        now = self._clock.monotonic()
        return [
            {
                "gateway": beat.gateway,
                "ready": beat.ready and now - at < LATELY_SECONDS,
                "revision": beat.revision,
                "bulkRevision": beat.bulk_revision,
                "ageSeconds": None if beat.age_seconds is None else round(beat.age_seconds + now - at, 1),
                "rows": beat.rows,
                "refused": beat.refused,
                "refusedCount": beat.refused_count,
                "errors": beat.errors,
                "address": beat.address,
                "workers": beat.workers,
                "heardSecondsAgo": round(now - at, 1),
                "silent": now - at >= LATELY_SECONDS,
            }
            for beat, at in self.known()
        ]

    def _measure(self) -> None:
        ages = sorted(self._ages)
        for name, share in (("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)):
            _age.labels(self._region, name).set(ages[min(len(ages) - 1, int(share * len(ages)))])


def _standing(beat: GatewayBeat) -> GatewayBeat:
    """A beat without what changes with every beat."""
    return msgspec.structs.replace(beat, time="", age_seconds=None, read={}, rows=0, instance="")


def _trouble(beat: GatewayBeat, silent: float, wall: float, behind: float) -> str:
    """What is wrong with a gateway that has not said anything for `silent` seconds, at wall time `wall`, and
    whose clock is `behind` seconds behind the hub's; empty when nothing is.
    """
    wrong: list[str] = []
    if silent >= LATELY_SECONDS:
        since = rfc3339(wall - silent)[:_TIME_CHARACTERS]
        wrong.append(f"silent since {since}Z, forgotten {FORGOTTEN_SECONDS / 60:.0f} minutes after that")
    elif not beat.ready:
        wrong.append("not ready")
    if abs(behind) > _CLOCK_SECONDS:
        wrong.append(f"its clock is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} the hub's")
    if beat.refused_count:
        # The newest stands last.
        key, why = next(reversed(beat.refused.items()), ("", ""))
        example = f", such as {key}: {why}"[:_EXAMPLE_CHARACTERS] if key else ""
        wrong.append(f"refused {beat.refused_count} records{example}")
    if beat.workers:
        wrong.append(f"workers that do not run: {', '.join(sorted(beat.workers))}"[:_EXAMPLE_CHARACTERS])
    return "; ".join(wrong)
