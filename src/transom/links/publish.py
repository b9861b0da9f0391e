"""The publisher: keeps a region's topic equal to a source of rows (invariant 1).

Between two looks only the newest version of a row counts, so a storm of changes costs one record a key. The
position in the source is appended together with the records, under a fence: killed anywhere, the publisher
goes on exactly where it was. Beside it a sweep compares digests with the region's tables and mends what
differs; publishing goes on while it waits for answers. What the lanes of contexts add stands in `lanes`.
Next on the data's way: `sweeping`, then `tables.keeper`, in the region.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transom.links.carrier import Carrier, PublishState, SourcePosition, parts
from transom.links.lanes import Lane
from transom.links.positions import Confirm, always
from transom.links.source import Changes, Source
from transom.links.sweeping import Sweeper
from transom.logs.protocol import Log
from transom.model.errors import Advice, RewoundError, advice_for, members_of
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.signals import wait_any
from transom.runtime.steps import step

__all__ = ["Changes", "PublishState", "Publisher", "Source", "SourcePosition", "no_tables", "parts"]

SWEEP_SECONDS = 600.0
_SETTLE_SECONDS = 1.0
_LOOK_SECONDS = 5.0
"""How often an idle publisher looks whether its topic is still the one it published to."""


def no_tables() -> Sequence[str]:
    """The `tables` of a publisher that sweeps nothing."""
    return ()


@dataclass
class Publisher:
    """Publishes `source` to `topic` of `target`; sweeps every `sweep_seconds`, jittered.

    `tables` names the tables to compare, asked anew for each sweep (none: nothing is swept). `lane` is what
    makes it more than a plain publisher, `beside` are the publishers of the other lanes that feed the same
    tables: a fill begins when they have begun, and a sweep compares what all of them have published. The two
    lanes of contexts, for example:

        fast = Publisher(link, source, log, CONTEXTS, no_tables, clock, randomness,
                         lane=Lane(fill=False, canary=CANARY_FAST, seal=seal, freeze=freeze,
                                   rate=TokenBucket(clock, 2000, 2000)))
        bulk = Publisher(link, source, log, CONTEXTS_BULK, tables_heard, clock, randomness, sweep_seconds,
                         lane=Lane(batch=1000, canary=CANARY_BULK, seal=seal, freeze=freeze), beside=[fast])
    """

    link: str
    source: Source
    target: Log
    topic: str
    tables: Callable[[], Sequence[str]]
    clock: Clock
    randomness: Randomness
    sweep_seconds: float = SWEEP_SECONDS
    lane: Lane = field(default_factory=Lane)
    beside: Sequence["Publisher"] = ()
    confirm: Confirm = always
    state: PublishState = field(default_factory=PublishState)

    async def run(self) -> None:
        """Publish for ever.

        Raises what the log raises; `FencedError` when another publisher took over, `RewoundError` when the
        source is an older copy of itself.
        """
        carrier = Carrier(self.link, self.target, self.topic, self.lane, self.clock, self.state, self.confirm)
        try:
            sweep_now = await self._begin(carrier)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish(carrier))
                group.create_task(self.sweeper(carrier).run(now=sweep_now))
        except BaseExceptionGroup as failed:
            errors = members_of(failed)
            gravest = [error for error in errors if advice_for(error) is not Advice.RETRY]
            raise (gravest or errors)[0] from None
        finally:
            self.state.started = False

    def sweeper(self, carrier: Carrier) -> Sweeper:
        """What sweeps, with the appending hand of this publisher."""

        async def drain() -> None:
            await self._drain(carrier)

        return Sweeper(
            source=self.source,
            carrier=carrier,
            tables=self.tables,
            beside=[(other.topic, other.state) for other in self.beside],
            drain=drain,
            clock=self.clock,
            randomness=self.randomness,
            period_seconds=self.sweep_seconds,
        )

    async def _begin(self, carrier: Carrier) -> bool:
        """Take the link over, where it stands; returns whether to sweep at once."""
        state = self.state
        held = await carrier.begin(self.source.epoch)
        if held is not None:
            await self._check_not_rewound(held)
        if held is not None and held.epoch == self.source.epoch:
            state.revision, state.fill, state.verified = held.revision, held.fill, held.verified
            state.since, state.last_sweep = held.since, held.swept
        else:
            await self._begin_anew(carrier)
        state.started = True
        state.moved.rise()
        # A source that lost its storage may not know of rows the region still has: look at once.
        reborn = held is not None and held.epoch != self.source.epoch
        return reborn or bool(self.lane.canary and not state.verified)

    async def _check_not_rewound(self, held: SourcePosition) -> None:
        """A source cannot be older than what it has published, unless an older copy of it was put back."""
        epoch, published = self.source.epoch, held.revision
        if held.epoch > epoch:
            await self.source.begin_epoch(held.epoch)
            raise RewoundError(
                f"{self.link!r} has published in epoch {held.epoch}, the store is of epoch {epoch}: an older "
                "copy of it was put back, or it was made anew by a clock that is behind. A new epoch has "
                "begun, so that regions hear what is new; start the hub again"
            )
        if held.epoch < epoch or published <= await self.source.revision():
            return
        await self.clock.sleep(_SETTLE_SECONDS)  # a write may be known here a moment before it is told
        revision = await self.source.revision()
        if published > revision:
            await self.source.begin_epoch(epoch)
            raise RewoundError(
                f"{self.link!r} has published up to revision {published}, the store is at {revision}: "
                "an older copy of it was put back. A new epoch has begun, so that nothing is taken from the "
                "regions; start the hub again"
            )

    async def _begin_anew(self, carrier: Carrier) -> None:
        state = self.state
        state.verified = False
        for other in self.beside:
            # What they leave to the fill must be certain before it says up to where the fill goes.
            while not other.state.started:
                await other.state.moved.above(other.state.moved.value)
        now = await self.source.revision()
        if self.lane.fill:
            state.revision, state.fill, state.since = 0, now, 0
            return
        state.revision, state.fill, state.since = now, 0, now
        await carrier.thawed()
        async with carrier.turn:
            await carrier.append([], now)

    async def _publish(self, carrier: Carrier) -> None:
        """Publish what changes, and a canary when nothing does."""
        look_at = self.clock.monotonic() + _LOOK_SECONDS
        while True:
            seen = [(level, level.value) for level in (self.source.changed, self.lane.freeze.changed)]
            await self._drain(carrier)
            due = carrier.canary_due_in()
            if due == 0:
                async with carrier.turn:
                    await carrier.append([], self.state.revision)
                due = carrier.canary_due_in()
            left = look_at - self.clock.monotonic()
            if left <= 0:
                await carrier.check_topic()
                look_at = self.clock.monotonic() + _LOOK_SECONDS
                continue
            await wait_any(seen, left if due is None else min(left, due))

    async def _drain(self, carrier: Carrier) -> None:
        """Publish what the source has changed, unless frozen."""
        state, lane = self.state, self.lane
        async with carrier.turn:
            while not lane.freeze.on:
                # Room is waited for before the rows are read: what goes is the newest there is.
                most = await lane.rate.room(lane.batch) if lane.rate else lane.batch
                asked = self.clock.wall()
                filling = state.revision < state.fill
                changes = await self.source.changes(state.revision, most, every_lane=filling)
                if lane.freeze.on:
                    return
                carrier.learn(changes, asked)
                if changes.records:
                    step("publish.read")
                    await carrier.append(changes.records, changes.upto)
                    step("publish.appended")
                    if lane.rate:
                        lane.rate.take(len(changes.records))
                if state.revision != changes.upto:
                    state.revision = changes.upto
                    state.moved.rise()
                if not changes.more:
                    return
