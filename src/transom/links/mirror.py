"""The mirror: every entry of a region's topics, once each and in order, in another log (invariant 3).

Entries and positions are appended together under a fence. Killed anywhere, it reads its position back from
the target and goes on with exactly the next entry; a former mirror that wakes after a take-over is refused by
the fence. What the source no longer has (removed before it was mirrored, or a topic made anew) is never
passed over in silence: it is logged, counted, and shown in `MirrorState.gaps`.
Next on the data's way: `hub.archive`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from prometheus_client import Counter

from transom.links.positions import POSITIONS, Confirm, always, position_message, read_position
from transom.logs.protocol import Entry, Log, Message, TopicPartition
from transom.model.errors import OutOfRangeError, UnknownTopicError
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

_WAIT_SECONDS = 20.0
_BATCH = 2000

_carried = Counter("transom_mirror_entries_total", "Entries mirrored", ["link"], registry=metrics)
_gaps = Counter("transom_mirror_gaps_total", "Times the source had lost entries", ["link"], registry=metrics)


class PartitionPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next offset to mirror, and which incarnation of the topic it counts in.

    The `holes` from there on hold no entries, see `Entry`.
    """

    topic_id: str
    offset: int
    holes: int = 0


class MirrorPosition(msgspec.Struct, frozen=True):
    """Where a mirror stands, by `topic/partition` of the source."""

    partitions: dict[str, PartitionPosition] = {}


@dataclass
class MirrorState:
    """What a mirror can say of itself: the next offset of each partition, and the newest gaps."""

    offsets: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    gaps: list[str] = field(default_factory=list[str])


@dataclass
class Mirror:
    """Mirrors topics of `source` into `target`; `names` gives each its name there."""

    link: str
    source: Log
    target: Log
    names: Mapping[str, str]
    confirm: Confirm = always
    state: MirrorState = field(default_factory=MirrorState)
    _holes: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])

    async def run(self) -> None:
        """Mirror for ever. Raises what the logs raise; `FencedError` when another mirror took over."""
        ids = await self._prepare()
        fence = await self.target.take_fence(self.link)
        await self.confirm()
        held = await read_position(self.target, self.link, MirrorPosition) or MirrorPosition()
        position = held.partitions
        offsets = self.state.offsets = await self._offsets(ids, position)
        while True:
            try:
                entries = await self.source.read(offsets, most=_BATCH, wait_seconds=_WAIT_SECONDS)
            except OutOfRangeError:
                position = standing(ids, offsets, self._holes)
                ids = await self._prepare()
                offsets = self.state.offsets = await self._offsets(ids, position)
                continue
            if not entries:
                continue
            step("mirror.fetched")
            reached = {**offsets, **after(entries)}
            self._holes.update({entry.position: entry.holes for entry in entries})
            moved = position_message(self.link, MirrorPosition(standing(ids, reached, self._holes)))
            await self.target.append([*copies(entries, self.names), moved], fence=fence)
            step("mirror.appended")
            offsets.update(reached)
            _carried.labels(self.link).inc(len(entries))

    async def lag(self) -> int:
        """How many entries of the source are not mirrored yet. Raises what the source raises."""
        ends = [
            (TopicPartition(topic, partition), bounds.end)
            for topic in self.names
            for partition, bounds in (await self.source.bounds(topic)).items()
        ]
        return sum(max(0, end - self.state.offsets.get(at, 0)) for at, end in ends)

    async def _prepare(self) -> dict[str, str]:
        """Make the target's topics as the source's are; returns the source's topic ids."""
        topics = await self.source.topics(self.names)
        copied = [
            msgspec.structs.replace(topics[name].topic, name=self.names[name])
            for name in self.names
            if name in topics
        ]
        await self.target.create([POSITIONS, *copied])
        return {name: info.topic_id for name, info in topics.items()}

    async def _offsets(
        self, ids: Mapping[str, str], position: Mapping[str, PartitionPosition]
    ) -> dict[TopicPartition, int]:
        """Where to read on; where the source no longer has what comes next, at its start."""
        offsets: dict[TopicPartition, int] = {}
        for topic in self.names:
            found = await self.source.bounds(topic)
            if topic not in ids:  # made a moment ago
                raise UnknownTopicError(topic)
            for partition, bounds in found.items():
                held = position.get(f"{topic}/{partition}")
                if held is not None and (
                    held.topic_id != ids[topic]
                    or held.offset > bounds.end
                    or held.offset + held.holes < bounds.start
                ):
                    self._note_gap(OutOfRangeError(topic, partition, held.offset, *bounds))
                    held = None
                at = TopicPartition(topic, partition)
                offset = offsets[at] = max(held.offset if held else 0, bounds.start)
                self._holes[at] = held.offset + held.holes - offset if held else 0
        return offsets

    def _note_gap(self, gap: OutOfRangeError) -> None:
        _gaps.labels(self.link).inc()
        log_event.error("the source lost entries", link=self.link, gap=str(gap))
        self.state.gaps = [*self.state.gaps[-9:], str(gap)]


def standing(
    ids: Mapping[str, str], offsets: Mapping[TopicPartition, int], holes: Mapping[TopicPartition, int]
) -> dict[str, PartitionPosition]:
    """`offsets`, and the `holes` behind them, as they are kept in the target."""
    return {
        f"{at.topic}/{at.partition}": PartitionPosition(ids[at.topic], offset, holes.get(at, 0))
        for at, offset in offsets.items()
    }


def copies(entries: Sequence[Entry], names: Mapping[str, str]) -> list[Message]:
    """The messages that stand for `entries` in the target: same partition, key, value, headers and time."""
    return [
        Message(names[e.topic], e.key, e.value, e.headers, partition=e.partition, timestamp_ms=e.timestamp_ms)
        for e in entries
    ]


def after(entries: Sequence[Entry]) -> dict[TopicPartition, int]:
    """The offsets that come next in each partition of `entries`."""
    return {entry.position: entry.offset + 1 for entry in entries}
