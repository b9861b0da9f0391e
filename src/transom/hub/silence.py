"""A region that is not heard of any more: what it said last is no longer known to be so.

A region's word stands in the status of what it was asked for; if the region died it would read "Ready" for
ever. So when it was silent for too long the conditions become "Unknown", in the store, where lists, watches,
`transom wait` and controllers all read the same; when it is heard again they become what its zones say.
Next on the data's way: `controllers`, which fold status upward.
"""

from dataclasses import dataclass

from transom.hub.changes import Actor, Change, Held, Wanted
from transom.hub.store import Store
from transom.model.kinds import REGION, Kind
from transom.model.names import Key
from transom.model.resources import Condition, Resource, conditions_of, with_conditions
from transom.model.roads import REGION_SILENT
from transom.runtime.clock import Clock, timestamp
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

SILENT_SECONDS = 15.0
"""A region that was not heard for so long (several heartbeats, by default) is not there."""
_BEATS_MISSED = 3
"""A region whose heartbeats are further apart may miss so many."""
_LOOK_SECONDS = 2.0
_STALLED_SECONDS = 6.0
"""Who looks so late stood still, and has not listened: everybody gets the whole time again."""
_AGAIN_SECONDS = 60.0
"""How often it is looked whether a late report was stored meanwhile."""
_PAGE = 500


@dataclass
class Silence:
    """Whether one region is silent, and what follows from it. Times are monotonic seconds."""

    store: Store
    region: str
    clock: Clock
    _listens_since: float = 0.0
    _heard_at: float = 0.0
    _apart: float = 0.0

    def __post_init__(self) -> None:
        self._listens_since = self._heard_at = self.clock.monotonic()

    def hear(self, said_at: float) -> None:
        """A heartbeat that was sent at `said_at`."""
        self._apart, self._heard_at = said_at - self._heard_at, said_at

    @property
    def seconds(self) -> float:
        """For how long nothing was heard, of the time in which it was listened."""
        return self.clock.monotonic() - max(self._listens_since, self._heard_at)

    @property
    def is_silent(self) -> bool:
        """Whether what it said last is no longer known to be so."""
        return self.seconds >= max(SILENT_SECONDS, _BEATS_MISSED * self._apart)

    async def run(self) -> None:
        """Keep the conditions of what the region was asked for as its silence is, for ever: a worker."""
        told: bool | None = None
        told_at = 0.0
        while True:
            now, silent = self.clock.monotonic(), self.is_silent
            if silent != told or (silent and now - told_at >= _AGAIN_SECONDS):
                changed = await self.tell(silent=silent)
                if changed:
                    log_event.warning("a region's word", region=self.region, silent=silent, resources=changed)
                told, told_at = silent, now
            await self.clock.sleep(_LOOK_SECONDS)
            if self.clock.monotonic() - now > _STALLED_SECONDS:
                self._listens_since = self.clock.monotonic()

    async def tell(self, *, silent: bool) -> int:
        """Write that the region is silent, or is not, where it is not written; returns how often."""
        now, after, written = timestamp(self.clock), 0, 0
        while True:
            page = await self.store.region_rows(self.region, after, _PAGE)
            kinds = self.store.catalog
            wanted = [
                self._change(kinds[row.resource.kind], row.resource.key, now, silent=silent)
                for row in page.rows
                if not row.deleted
                and kinds[row.resource.kind].fold_zones is not None
                and is_marked(row.resource) != silent
                and row.resource.status
            ]
            outcomes = await self.store.write_all(wanted) if wanted else []
            written += sum(isinstance(outcome, Resource) for outcome in outcomes)
            after = page.upto
            if not page.more:
                return written

    def _change(self, kind: Kind, key: Key, now: str, *, silent: bool) -> Change:
        why = (
            f"region {self.region!r} is not heard of" if silent else f"region {self.region!r} is heard again"
        )
        wanted = unknown(why, now) if silent else as_its_zones_say(kind)
        return Change(key, wanted, Actor(REGION, "hub"), why)


def is_marked(resource: Resource) -> bool:
    """Whether its status says that the region is silent."""
    return any(condition.reason == REGION_SILENT for condition in conditions_of(resource.status))


def unknown(why: str, now: str) -> Wanted:
    """Every condition "Unknown"; what zones said stays beside it."""

    def wanted(held: Held) -> Held:
        if held is None or is_marked(held):
            return held
        conditions = [
            Condition(said.type, "Unknown", REGION_SILENT, f"{why}; it was {said.status} when it was")
            for said in conditions_of(held.status)
        ]
        return held.with_status({**held.status, "conditions": with_conditions(held.status, conditions, now)})

    return wanted


def as_its_zones_say(kind: Kind) -> Wanted:
    """The status that follows from what its zones said last."""

    def wanted(held: Held) -> Held:
        if held is None or kind.fold_zones is None or not is_marked(held):
            return held
        zones = held.status.get("zones", {})
        return held.with_status({**kind.fold_zones(held, zones), "zones": zones})

    return wanted
