"""The publisher: keeps a region's topic equal to a source of rows (invariant 1).

Between two looks only the newest version of a row counts, so a storm of changes costs one record a key. The
position in the source is appended together with the records, under a fence: killed anywhere, the publisher
goes on exactly where it was. A sweep compares digests with the region's table and mends what differs; when
nothing differs, nothing is appended to the topic. Next on the data's way: `tables.keeper`, in the region.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec
from prometheus_client import Counter

from transom.links.positions import POSITIONS, position_message, read_position
from transom.links.sweep import Sweeper
from transom.logs.partitioner import partition_for
from transom.logs.protocol import Fence, Log, Message, TopicPartition
from transom.logs.records import to_message
from transom.logs.rules import payload_bytes
from transom.model.errors import ConflictError, UnknownTopicError
from transom.model.records import Record
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

SWEEP_SECONDS = 600.0
_BATCH = 500
_LOOK_SECONDS = 5.0
"""How often an idle publisher looks whether its topic is still the one it published to."""
_PART_BYTES = 8 << 20
"""Well below what a log takes at once (`logs.rules.BATCH_BYTES_MAX`)."""

_published = Counter("transom_publish_records_total", "Records published", ["link"], registry=metrics)


class Changes(NamedTuple):
    """Rows changed since a revision, oldest change first, each in its newest state; all up to `upto`.

    `more`: there may be others after `upto`.
    """

    records: list[Record]
    upto: int
    more: bool


class Snapshot(NamedTuple):
    """All live rows of a source at one revision."""

    records: list[Record]
    revision: int


class Source(Protocol):
    """Rows that a region is to have. Revisions are counted within an `epoch` of the source's storage."""

    changed: Level
    """Rises to the revision of every change of these rows."""

    @property
    def epoch(self) -> int:
        """The incarnation of the source's storage."""
        ...

    async def changes(self, after: int, most: int) -> Changes:
        """Up to `most` rows changed after revision `after`, deleted ones as delete markers.

        No more than fit into one append: about 4 MiB.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """Every live row."""
        ...


class SourcePosition(msgspec.Struct, frozen=True):
    """Everything up to `revision` of this `epoch` has been published."""

    epoch: int
    revision: int


@dataclass
class PublishState:
    """What a publisher can say of itself; `last_sweep` is wall seconds, 0 for never.

    `strangers` are rows that the last sweep found from an earlier epoch of the source, and left alone.
    Everything up to `revision` of the source is published; `ends` are the topic's ends since.
    """

    revision: int = 0
    ends: dict[int, int] = field(default_factory=dict[int, int])
    last_sweep: float = 0.0
    differences_found: int = 0
    strangers: list[str] = field(default_factory=list[str])


@dataclass
class Publisher:
    """Publishes `source` to `topic` of `target`; sweeps every `sweep_seconds`, jittered."""

    link: str
    source: Source
    target: Log
    topic: str
    table: str
    clock: Clock
    randomness: Randomness
    sweep_seconds: float = SWEEP_SECONDS
    state: PublishState = field(default_factory=PublishState)

    async def run(self) -> None:
        """Publish for ever. Raises what the log raises; `FencedError` when another publisher took over."""
        await self.target.create([POSITIONS])
        fence = await self.target.take_fence(self.link)
        held = await read_position(self.target, self.link, SourcePosition)
        known = held is not None and held.epoch == self.source.epoch
        self.state.revision = held.revision if held and known else 0
        topic_id = await self._topic_id()
        bounds = await self.target.bounds(self.topic)
        self.state.ends = {number: ends.end for number, ends in bounds.items()}
        # A source that lost its storage may not know of rows the region still has: look at once.
        next_sweep = self.clock.monotonic() + (self._sweep_after() if known or held is None else 0.0)
        while True:
            await self._drain(fence)
            now = self.clock.monotonic()
            if now >= next_sweep:
                await self.sweep(fence)
                next_sweep = self.clock.monotonic() + self._sweep_after()
                continue
            newest = await self.source.changed.above(
                self.state.revision, min(next_sweep - now, _LOOK_SECONDS)
            )
            if newest <= self.state.revision and await self._topic_id() != topic_id:
                # Its storage was lost while there was nothing to publish.
                raise ConflictError(
                    f"topic {self.topic!r} of {self.link!r} was made anew: all is published again"
                )

    async def sweep(self, fence: Fence) -> int:
        """Compare the source with the region's table and mend what differs; returns how many rows did."""
        snapshot = await self.source.snapshot()
        while self.state.revision < snapshot.revision:
            await self._drain(fence)
        after = {TopicPartition(self.topic, number): end for number, end in self.state.ends.items()}
        sweeper = Sweeper(self.link, self.target, self.table, self.randomness)
        repairs = await sweeper.repairs(snapshot.records, snapshot.revision, self.source.epoch, after, fence)
        self.state.strangers = sweeper.strangers
        if sweeper.strangers:
            log_event.error(
                "a region has what its source never had", link=self.link, keys=sweeper.strangers[:20]
            )
        if repairs:
            # What changed since the snapshot is on its way by itself, or there already.
            since = await self.source.changes(snapshot.revision, _BATCH)
            newer = {record.key for record in since.records}
            repairs = [record for record in repairs if record.key not in newer]
        if repairs:
            log_event.error("sweep found differences", link=self.link, rows=len(repairs))
            await self._append(repairs, fence)
        self.state.differences_found += len(repairs)
        self.state.last_sweep = self.clock.wall()
        return len(repairs)

    async def _topic_id(self) -> str:
        topics = await self.target.topics()
        if self.topic not in topics:
            raise UnknownTopicError(self.topic)
        return topics[self.topic].topic_id

    async def _drain(self, fence: Fence) -> None:
        """Publish what the source has changed."""
        while True:
            changes = await self.source.changes(self.state.revision, _BATCH)
            if changes.records:
                step("publish.read")
                await self._append(changes.records, fence, changes.upto)
                step("publish.appended")
            self.state.revision = changes.upto
            if not changes.more:
                return

    async def _append(self, records: Sequence[Record], fence: Fence, upto: int | None = None) -> None:
        """Append `records`, in parts that a log takes; with the last one the position moves to `upto`."""
        position = SourcePosition(self.source.epoch, self.state.revision if upto is None else upto)
        offsets: list[int] = []
        *early, last = parts([to_message(self.topic, record) for record in records])
        for part in early:
            offsets.extend(await self.target.append(part, fence=fence))
        offsets.extend(await self.target.append([*last, position_message(self.link, position)], fence=fence))
        ends = self.state.ends
        for record, offset in zip(records, offsets, strict=False):  # the last offset is the position's
            ends[partition_for(record.key.encode(), len(ends))] = offset + 1
        _published.labels(self.link).inc(len(records))

    def _sweep_after(self) -> float:
        return self.randomness.jitter(self.sweep_seconds)


def parts(messages: Sequence[Message]) -> list[list[Message]]:
    """`messages` in order, in parts of at most `_PART_BYTES` and `_BATCH` messages."""
    divided: list[list[Message]] = [[]]
    size = 0
    for message in messages:
        size += payload_bytes(message)
        if divided[-1] and (size > _PART_BYTES or len(divided[-1]) == _BATCH):
            divided.append([])
            size = payload_bytes(message)
        divided[-1].append(message)
    return divided
