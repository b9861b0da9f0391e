"""When sweeps come, and what follows from what they find.

A sweep waits until every lane has sent all there was, compares, and mends. Rows that a source holds back are
waited for a while, because comparing around them costs more; not in a region that waits to be verified: it
is compared up to there. One that failed is tried again after a while, growing longer; so is one that found
what a fill should have brought. While it waits for answers it holds nothing that publishing needs. Next on
the data's way: `tables.sweeps`, in the region.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter

from transom.links.carrier import Carrier, PublishState
from transom.links.source import Source
from transom.links.sweep import Sweep
from transom.logs.protocol import TopicPartition
from transom.model.errors import StorageFullError, UnreachableError
from transom.model.records import Record
from transom.runtime.backoff import Backoff
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

_LISTEN_SECONDS = 1.0
"""How often it is looked whether there is a table to ask."""
_AGAIN_SECONDS = 1.0
_AGAIN_SECONDS_MAX = 60.0
_LOOK_SECONDS = 5.0
_HELD_BACK_SECONDS = 600.0
"""So long a sweep waits for rows that are held back. Each of them makes a bucket differ: the rows of those
buckets are all compared then, and none is mended for it.
"""
_REMEMBERED_MAX = 10_000
"""So many mended rows are known again; as many refused ones a region's door tells apart."""

_mended = Counter("transom_sweep_repairs_total", "Rows that sweeps mended", ["link"], registry=metrics)


@dataclass
class Sweeper:
    """Sweeps for one publisher. `beside` are the topics and states of the lanes that feed the same tables;
    `drain` has the publisher send what it has not sent yet.
    """

    source: Source
    carrier: Carrier
    tables: Callable[[], Sequence[str]]
    beside: Sequence[tuple[str, PublishState]]
    drain: Callable[[], Awaitable[None]]
    clock: Clock
    randomness: Randomness
    period_seconds: float
    _mended_last: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    async def run(self, *, now: bool) -> None:
        """Sweep every period, for ever, the first time at once or when it is due. Raises `FencedError`."""
        state = self.carrier.state
        backoff = Backoff(self.randomness, _AGAIN_SECONDS, min(_AGAIN_SECONDS_MAX, self.period_seconds))
        wait_seconds = 0.0 if now else self._due_in()
        while True:
            await self.clock.sleep(wait_seconds)
            while not self.tables():
                await self.clock.sleep(_LISTEN_SECONDS)
            try:
                await self.sweep()
            except (UnreachableError, StorageFullError, OSError, TimeoutError) as error:
                state.sweep_problem = str(error)
                log_event.warning("sweep failed", link=self.carrier.link, error=str(error))
                wait_seconds = backoff.next_seconds()
                continue
            state.sweep_problem = ""
            if state.verified or not self.carrier.lane.canary:
                backoff.reset()
                wait_seconds = self._period()
            else:
                wait_seconds = backoff.next_seconds()

    async def sweep(self) -> int:
        """Compare the source with each of `tables` and mend what differs; returns how many rows did.

        Waits until all lanes have sent what there is now, while the lane is frozen, and for a while for rows
        that are held back. Raises `UnreachableError` when a table does not answer; the others are
        mended all the same.
        """
        revision, after = await self._settled()
        sweep = Sweep(self.source, self.carrier, revision, after, self.clock, self.randomness)
        mended = 0
        silent: UnreachableError | None = None
        before, self._mended_last = self._mended_last, {}
        for table in self.tables():
            keys: set[str] = set()
            try:
                async for repairs in sweep.repairs(table):
                    found = await self._mend(repairs, revision)
                    mended += len(found)
                    if len(keys) <= _REMEMBERED_MAX:
                        keys.update(found)
            except UnreachableError as error:
                silent = error
                continue
            # What was sent again, was read, and differs still was refused there: the table's own door takes
            # its absence for no answer. All else is there.
            if len(keys) <= _REMEMBERED_MAX:
                self._mended_last[table] = keys
                if keys <= before.get(table, set()):
                    await self._verify()
        self._tell_strangers(sweep.strangers)
        if silent is not None:
            raise silent
        self.carrier.state.last_sweep = self.clock.wall()
        await self._note()
        return mended

    async def _settled(self) -> tuple[int, dict[TopicPartition, int]]:
        """Wait until every lane has sent all there is now; returns up to where they have, and the ends."""
        revision = await self.source.revision()
        await self._drained(revision)
        for _, state in self.beside:
            while state.revision < revision:
                await state.moved.above(state.moved.value, _LOOK_SECONDS)
        await self.carrier.thawed()
        lanes = [(self.carrier.topic, self.carrier.state), *self.beside]
        ends = {
            TopicPartition(topic, number): end for topic, state in lanes for number, end in state.ends.items()
        }
        return min(state.revision for _, state in lanes), ends

    async def _drained(self, revision: int) -> None:
        """Wait until this lane has sent all up to `revision`; or all that is not held back, once waiting for
        the rest is not worth it.
        """
        state, lane = self.carrier.state, self.carrier.lane
        patience = _HELD_BACK_SECONDS if state.verified or not lane.canary else 0.0
        until = self.clock.monotonic() + patience
        while state.revision < revision:
            seen = state.moved.value
            await self.carrier.thawed()
            await self.drain()
            # Drained and behind still: the source holds the rest back.
            if state.revision < revision and not lane.freeze.on:
                left = until - self.clock.monotonic()
                if left <= 0:
                    return
                await state.moved.above(seen, min(left, _LOOK_SECONDS))

    async def _mend(self, repairs: Sequence[Record], revision: int) -> list[str]:
        """Append those of `repairs` that are not on their way by themselves; returns their keys."""
        newer = await self.source.changed_since([record.key for record in repairs], revision)
        repairs = [record for record in repairs if record.key not in newer]
        if not repairs:
            return []
        carrier = self.carrier
        log_event.error("sweep found differences", link=carrier.link, rows=len(repairs), first=repairs[0].key)
        size = carrier.lane.batch
        for at in range(0, len(repairs), size):
            await carrier.thawed()
            async with carrier.turn:
                await carrier.append(repairs[at : at + size], carrier.state.revision)
        carrier.state.differences_found += len(repairs)
        _mended.labels(carrier.link).inc(len(repairs))
        return [record.key for record in repairs]

    async def _note(self) -> None:
        """Have the position say what the state says, now that nothing else may go out for long."""
        await self.carrier.thawed()
        async with self.carrier.turn:
            await self.carrier.append([], self.carrier.state.revision)

    async def _verify(self) -> None:
        """A table has all there is: say so, once, for those that wait to know what does not exist."""
        state = self.carrier.state
        if not self.carrier.lane.canary or state.verified:
            return
        await self.carrier.thawed()
        async with self.carrier.turn:
            state.verified = True
            await self.carrier.append([], state.revision)

    def _tell_strangers(self, found: list[str]) -> None:
        self.carrier.state.strangers = found
        if found:
            log_event.error("a region has what its source never had", link=self.carrier.link, keys=found[:20])

    def _due_in(self) -> float:
        """Seconds until the first sweep of this life: a period after the last one, however often the hub is
        started anew; soon, where there never was one.
        """
        swept, period = self.carrier.state.last_sweep, self._period()
        if not swept:
            return min(_AGAIN_SECONDS_MAX, period)
        soon = self.randomness.jitter(_AGAIN_SECONDS)
        return min(period, max(soon, swept + period - self.clock.wall()))

    def _period(self) -> float:
        return self.randomness.jitter(self.period_seconds)
