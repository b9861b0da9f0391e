"""The roads to one region: desired state and contexts down, status and beats up; what can be said of them.

The worker runs at the hub; the region needs no way to reach the hub and does not know it exists.
Next on the data's way: `links.publish` down, `links.mirror` and `archive` up.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec

from transom.hub.archive import Archive
from transom.hub.contexts.roads import ContextRoads
from transom.hub.contexts.service import RegionContexts
from transom.hub.duties import keeping_its_fence
from transom.hub.listening import Hearing, listen
from transom.hub.rows import DesiredRows
from transom.hub.silence import Silence
from transom.hub.store import Store
from transom.links.mirror import Mirror
from transom.links.naming import mirrored_name
from transom.links.publish import Publisher
from transom.logs.protocol import Entry, Log, Topic
from transom.logs.records import from_entry
from transom.model.errors import UNREADABLE, InvalidError, TransomError
from transom.model.resources import JsonObject
from transom.model.roads import DESIRED, DESIRED_TABLE, GATEWAYS, HEARTBEATS, STATUS, Heartbeat
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import Workers
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

T = TypeVar("T")

_ASK_SECONDS = 1.0


class RoadsReport(msgspec.Struct, frozen=True):
    """What the hub can say of its roads to a region.

    Lags are in records; None means that the region does not answer now. `knows_age_seconds` is how long ago
    the region was last known to have all there was for it. `context_age_seconds` is how old what its gateways
    know is, of the one that knows least (None: one never knew anything, or there is none); `gateways` are
    those heard within ten minutes, as `GET /hub/contexts` shows them.
    """

    region: str
    environment: str
    reachable: bool
    down_lag: int | None
    up_lag: int | None
    knows_age_seconds: float | None
    last_heard: str
    last_sweep_age_seconds: float | None
    sweep_differences: int
    gaps: list[str]
    problems: dict[str, str]
    context_age_seconds: float | None = None
    gateways: list[JsonObject] = []


@dataclass
class Roads:
    """The workers between the hub and one region."""

    region: str
    environment: str
    store: Store
    hub_log: Log
    region_log: Log
    clock: Clock
    randomness: Randomness
    sweep_seconds: float
    contexts: RegionContexts | None = None
    _heard: Heartbeat | None = None
    _agreed_at: float | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def __post_init__(self) -> None:
        names = {topic: mirrored_name(topic, self.environment, self.region) for topic in (STATUS, HEARTBEATS)}
        self._status_topic = names[STATUS]
        self._heartbeat_topic = names[HEARTBEATS]
        self._hearing = Hearing(self.clock)
        self.silence = Silence(self.store, self.region, self.clock)
        self.publisher = Publisher(
            link=f"publish/{self.region}/{DESIRED}",
            source=DesiredRows(self.store, self.region),
            target=self.region_log,
            topic=DESIRED,
            tables=lambda: (DESIRED_TABLE,),
            clock=self.clock,
            randomness=self.randomness,
            sweep_seconds=self.sweep_seconds,
            confirm=self.store.confirm,
        )
        self.mirror = Mirror(
            f"mirror/{self.region}", self.region_log, self.hub_log, names, self.store.confirm
        )
        self.archive = Archive(self.store, self.hub_log, self.region, self._status_topic)
        self.context_roads = self.contexts and ContextRoads(
            self.contexts,
            self.hub_log,
            self.region_log,
            mirrored_name(GATEWAYS, self.environment, self.region),
            self.clock,
            self.randomness,
            self.sweep_seconds,
        )

    async def open(self) -> None:
        """Make sure the mirrored topics are there, so that they can be read before the region was reached."""
        await self.hub_log.create(
            [Topic(self._status_topic, compact=True), Topic(self._heartbeat_topic, compact=True)]
        )
        if self.context_roads is not None:
            await self.context_roads.open()

    def start(self, workers: Workers) -> None:
        """Start the workers; `stop` ends them."""
        self._workers = workers
        kept = partial(keeping_its_fence, self.store, clock=self.clock)
        self._tasks = [
            workers.start(f"publish to {self.region}", partial(kept, worker=self.publisher.run)),
            workers.start(f"mirror from {self.region}", partial(kept, worker=self.mirror.run)),
            workers.start(f"archive of {self.region}", self.archive.run),
            workers.start(f"heartbeats of {self.region}", self._listen),
            workers.start(f"silence of {self.region}", self.silence.run),
        ]
        if self.context_roads is not None:
            self._tasks += self.context_roads.start(workers)

    async def stop(self) -> None:
        """End the workers and the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.region_log.close()

    async def report(self) -> RoadsReport:
        """How the roads are now; asks the region, for a second at most."""
        now = self.clock.wall()
        (down, _), (up, late) = await asyncio.gather(_within(self._down_lag()), _within(self.mirror.lag()))
        swept, agreed = self.publisher.state.last_sweep, self._agreed_at
        return RoadsReport(
            region=self.region,
            environment=self.environment,
            reachable=up is not None,
            down_lag=down,
            up_lag=up,
            knows_age_seconds=None if agreed is None else round(self.clock.monotonic() - agreed, 1),
            last_heard=self._heard.time if self._heard else "",
            last_sweep_age_seconds=round(now - swept, 1) if swept else None,
            sweep_differences=self.publisher.state.differences_found,
            gaps=list(self.mirror.state.gaps),
            problems=self._problems(late),
            context_age_seconds=_rounded(self.contexts.beats.age_seconds()) if self.contexts else None,
            gateways=self.contexts.beats.described() if self.contexts else [],
        )

    async def _listen(self) -> None:
        """Follow the region's heartbeats in the hub's log."""
        await listen(self.hub_log, self._heartbeat_topic, self._hear)

    def _hear(self, entry: Entry) -> None:
        try:
            heartbeat = msgspec.json.decode(from_entry(entry).value, type=Heartbeat)
        except (InvalidError, *UNREADABLE) as error:
            log_event.warning("a heartbeat cannot be read", region=self.region, error=str(error))
            return
        self._heard = heartbeat
        said_at = self._hearing.said_at(self.region, entry.timestamp_ms / 1000)
        self.silence.hear(said_at)
        # What the region had read by then is all there was for it: from here its knowledge ages.
        told = self.publisher.state
        if told.revision >= self.store.changed_for(self.region).value and all(
            heartbeat.desired.get(str(number), 0) >= end for number, end in told.ends.items()
        ):
            self._agreed_at = said_at

    async def _down_lag(self) -> int:
        bounds = await self.region_log.bounds(DESIRED)
        heard = self._heard.desired if self._heard else {}
        waiting = sum(max(0, ends.end - heard.get(str(number), 0)) for number, ends in bounds.items())
        unpublished = await self.store.region_rows(self.region, self.publisher.state.revision, 1000)
        return waiting + len(unpublished.rows)

    def _problems(self, late: str) -> dict[str, str]:
        """What ails, by part; `late` says so when the region's log was asked now and did not answer."""
        mine = {task.get_name() for task in self._tasks}
        problems = {
            name: state.error
            for name, state in self._workers.states.items()
            if name in mine and state.state != "running"
        }
        logs = {
            "log of the region": self.region_log.trouble or late,
            "log of the hub": self.hub_log.trouble,
        }
        problems.update({log: why for log, why in logs.items() if why})
        if self.silence.is_silent:
            problems["region"] = f"not heard of for {self.silence.seconds:.0f} s; its status is unknown"
        unknown = self.publisher.state.strangers
        if unknown:
            problems["sweep"] = (
                f"{len(unknown)} resources of an earlier store of the hub are still in the region, "
                f"{unknown[0]} among them; declare them again, or restore that store"
            )
        elif self.publisher.state.sweep_problem:
            problems["sweep"] = self.publisher.state.sweep_problem
        if self.context_roads is not None:
            problems.update(self.context_roads.problems())
        return {**problems, **(self._heard.workers if self._heard else {})}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


async def _within(asked: Awaitable[T]) -> tuple[T | None, str]:
    """The answer, or None when there is none, and what to say when that is for the time it takes."""
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await asked, ""
    except TransomError:
        return None, ""  # workers that ask are told the same
    except TimeoutError:
        return None, f"does not answer within {_ASK_SECONDS:g} s"
