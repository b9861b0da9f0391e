"""The roads of contexts to one region: a publisher a lane down, the beats of its gateways up.

Next on the data's way: `links.publish`, and the gateway's own table in the region.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from transom.hub.contexts.row import BULK, FAST
from transom.hub.contexts.service import RegionContexts
from transom.hub.duties import keeping_its_fence
from transom.hub.listening import listen
from transom.links.lanes import Lane, TokenBucket
from transom.links.mirror import Mirror
from transom.links.publish import Publisher, no_tables
from transom.logs.protocol import Entry, Log, Topic
from transom.logs.records import from_entry
from transom.model.errors import UNREADABLE, InvalidError
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, CONTEXTS_BULK, GATEWAYS, GatewayBeat
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import Workers
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

_BULK_BATCH = 1000
_BEATS_REMEMBERED = 1000
"""How far back in the topic of beats is looked at the beginning; what is older is not lately."""


@dataclass
class ContextRoads:
    """What runs between the hub and one region; `topic` is the hub's copy of its gateways' beats."""

    contexts: RegionContexts
    hub_log: Log
    region_log: Log
    topic: str
    clock: Clock
    randomness: Randomness
    sweep_seconds: float
    fast: Publisher = field(init=False)
    bulk: Publisher = field(init=False)

    def __post_init__(self) -> None:
        config = self.contexts.config
        self.fast = self._publisher(
            FAST,
            CONTEXTS,
            Lane(
                fill=False,
                canary=CANARY_FAST,
                canary_seconds=config.canary_seconds,
                seal=self.contexts.seal,
                rate=TokenBucket(self.clock, config.fast_rate, max(1, int(config.fast_rate))),
                freeze=self.contexts.freeze,
            ),
        )
        self.bulk = self._publisher(
            BULK,
            CONTEXTS_BULK,
            Lane(
                batch=_BULK_BATCH,
                canary=CANARY_BULK,
                canary_seconds=config.canary_seconds,
                seal=self.contexts.seal,
                freeze=self.contexts.freeze,
            ),
        )
        self.contexts.published = {FAST: self.fast.state, BULK: self.bulk.state}
        # Apart from the mirror of statuses: a region of an earlier release has no such topic.
        link = f"mirror/{self.contexts.region}/{GATEWAYS}"
        self.mirror = Mirror(
            link, self.region_log, self.hub_log, {GATEWAYS: self.topic}, self.contexts.store.confirm
        )

    def _publisher(self, lane: str, topic: str, rules: Lane) -> Publisher:
        bulk = lane == BULK
        return Publisher(
            link=f"publish/{self.contexts.region}/{topic}",
            source=self.contexts.sources[lane],
            target=self.region_log,
            topic=topic,
            tables=self.contexts.tables if bulk else no_tables,
            clock=self.clock,
            randomness=self.randomness,
            sweep_seconds=self.sweep_seconds,
            lane=rules,
            beside=[self.fast] if bulk else [],
            confirm=self.contexts.store.confirm,
        )

    async def open(self) -> None:
        """Make sure that beats can be read before the region was reached."""
        await self.hub_log.create([Topic(self.topic, compact=True)])

    def start(self, workers: Workers) -> list[asyncio.Task[None]]:
        """Start the workers; whoever starts them ends them."""
        region = self.contexts.region
        kept = partial(keeping_its_fence, self.contexts.store, clock=self.clock)
        return [
            workers.start(f"contexts to {region}", partial(kept, worker=self.fast.run)),
            workers.start(f"bulk contexts to {region}", partial(kept, worker=self.bulk.run)),
            workers.start(f"mirror of gateways from {region}", partial(kept, worker=self.mirror.run)),
            workers.start(f"gateways of {region}", self.listen),
        ]

    def problems(self) -> Mapping[str, str]:
        """What is wrong on these roads, for people."""
        state = self.bulk.state
        problems: dict[str, str] = {}
        if state.strangers:
            problems["context sweep"] = (
                f"{len(state.strangers)} contexts of an earlier store of the hub are still in the region, "
                f"{state.strangers[0]} among them; declare their subjects again, or restore that store"
            )
        elif state.sweep_problem:
            problems["context sweep"] = state.sweep_problem
        if self.contexts.freeze.on:
            problems["contexts"] = f"frozen; 'transom contexts resume {self.contexts.region}' ends it"
        held = self.contexts.holds(self.contexts.region)
        if held:
            problems["contexts held"] = held
        problems.update(self.contexts.beats.problems())
        return problems

    async def listen(self) -> None:
        """Follow the beats of the region's gateways in the hub's log: a worker."""
        await listen(self.hub_log, self.topic, self._hear, last=_BEATS_REMEMBERED)

    def _hear(self, entry: Entry) -> None:
        try:
            record = from_entry(entry)
            if not record.deleted:
                beat = msgspec.json.decode(record.value, type=GatewayBeat)
                self.contexts.hear(beat, entry.timestamp_ms / 1000)
        except (InvalidError, *UNREADABLE) as error:
            log_event.warning("a gateway's beat cannot be read", offset=entry.offset, error=str(error))
