"""The only hand that appends for a publisher: records, their seals, the lane's canary, and the position.

All of one append stand in the region's log together or not at all, under a fence; the position and the
canary say up to which revision everything was sent. Next on the data's way: `publish`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from prometheus_client import Counter

from transom.links.lanes import Canaries, Lane
from transom.links.positions import POSITIONS, Confirm, always, position_message, read_position
from transom.links.source import Changes
from transom.logs.partitioner import partition_for
from transom.logs.protocol import Fence, Headers, Log, Message
from transom.logs.records import to_message
from transom.logs.rules import payload_bytes
from transom.model.errors import ConflictError, InvalidError, Problem, UnknownTopicError
from transom.model.records import Record
from transom.model.roads import Canary
from transom.runtime.clock import Clock
from transom.runtime.signals import Level
from transom.runtime.telemetry import metrics

_BATCH = 500
_PART_BYTES = 8 << 20
"""Well below what a log takes at once (`logs.rules.BATCH_BYTES_MAX`)."""

_published = Counter("transom_publish_records_total", "Records published", ["link"], registry=metrics)

_encode = msgspec.json.Encoder().encode


class SourcePosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything up to `revision` of this `epoch` has been published.

    A link that is being filled carries every lane up to `fill`. `verified`: a sweep found nothing missing
    since it was filled. `canary` is the counter of its newest canary. `since`: see `Canary`. `swept` is when
    a sweep came to its end last (wall seconds, 0 for never).
    """

    epoch: int
    revision: int
    fill: int = 0
    verified: bool = False
    canary: int = 0
    since: int = 0
    swept: float = 0.0


@dataclass
class PublishState:
    """What a publisher can say of itself; `last_sweep` is wall seconds, 0 for never.

    `started`: where it stands is on the region's disk. Everything up to `revision` of the source is
    published; `ends` are the topic's ends since; `moved` rises with them. While `revision` is below `fill`
    the link is being filled. `strangers` are rows that the last sweep found from an earlier epoch of the
    source, and left alone; `sweep_problem` says why the last sweep failed, and is empty when it did not.
    """

    started: bool = False
    revision: int = 0
    fill: int = 0
    verified: bool = False
    since: int = 0
    ends: dict[int, int] = field(default_factory=dict[int, int])
    moved: Level = field(default_factory=Level)
    last_sweep: float = 0.0
    sweep_problem: str = ""
    differences_found: int = 0
    strangers: list[str] = field(default_factory=list[str])


@dataclass
class Carrier:
    """Appends to `topic` of `target` for the publisher of `link`; `begin` first.

    Whoever appends holds `turn`, from reading what is to go until it went, so that positions only rise.
    """

    link: str
    target: Log
    topic: str
    lane: Lane
    clock: Clock
    state: PublishState
    confirm: Confirm = always
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _known: int = 0
    _known_at: float = 0.0
    _fence: Fence | None = None
    _epoch: int = 0
    _topic_id: str = ""
    _canaries: Canaries | None = None
    _canary_due: float = 0.0

    async def begin(self, epoch: int) -> SourcePosition | None:
        """Take the link over, for a source of this epoch; returns where it stood, in whatever epoch.

        Raises `UnknownTopicError`; `InvalidError` when a topic with canaries has several partitions.
        """
        await self.target.create([POSITIONS])
        self._fence, self._epoch = await self.target.take_fence(self.link), epoch
        await self.confirm()
        held = await read_position(self.target, self.link, SourcePosition)
        self._topic_id = await self._topic_id_now()
        bounds = await self.target.bounds(self.topic)
        self.state.ends = {number: ends.end for number, ends in bounds.items()}
        if self.lane.canary:
            if len(bounds) > 1:
                wrong = f"has {len(bounds)}; a canary tells the position of one"
                raise InvalidError(f"topic {self.topic!r}", [Problem("partitions", wrong)])
            counter = held.canary if held is not None else 0
            self._canaries = Canaries(self.lane.canary, epoch, counter, self.clock)
        return held

    def learn(self, changes: Changes, asked: float) -> None:
        """What canaries may say from the next append on, with which `changes` go; `asked` (wall seconds) is
        when they were asked for. While there is more than goes now, the time of what is known stands still.
        """
        known = changes.upto if changes.known is None else changes.known
        self._known = max(self._known, known)
        if changes.known != 0 and not changes.more:
            self._known_at = asked

    async def tell(self, message: Message) -> None:
        """Append a message of another topic, once nothing is frozen."""
        await self.thawed()
        await self.target.append([message], fence=self._fence)

    async def append(self, records: Sequence[Record], upto: int) -> None:
        """Append `records`, in parts that a log takes; with the last one the position moves to `upto`."""
        state = self.state
        if self._canaries and self._known_at:
            canary = Canary(self._known, self._known_at, state.verified, state.since)
            records = [*records, self._canaries.next(canary, _encode)]
            self._canary_due = self.clock.monotonic() + self.lane.canary_seconds
        fill = state.fill if upto < state.fill else 0
        counter = self._canaries.counter if self._canaries else 0
        position = SourcePosition(
            self._epoch, upto, fill, state.verified, counter, state.since, state.last_sweep
        )
        *early, last = parts(self._messages(records), self.lane.batch + 1)
        offsets: list[int] = []
        for part in early:
            offsets.extend(await self.target.append(part, fence=self._fence))
        moved = position_message(self.link, position)
        offsets.extend(await self.target.append([*last, moved], fence=self._fence))
        for record, offset in zip(records, offsets, strict=False):  # the last offset is the position's
            state.ends[partition_for(record.key.encode(), len(state.ends))] = offset + 1
        state.revision, state.fill = upto, fill
        state.moved.rise()
        _published.labels(self.link).inc(len(records))

    def canary_due_in(self) -> float | None:
        """In how many seconds the next canary is due, if nothing else goes; None: there is none to send."""
        if self._canaries is None or not self._known_at or self.lane.freeze.on:
            return None
        return max(0.0, self._canary_due - self.clock.monotonic())

    async def check_topic(self) -> None:
        """Raises `ConflictError` when the topic is another one than at the beginning."""
        if await self._topic_id_now() != self._topic_id:
            # Its storage was lost while there was nothing to publish.
            raise ConflictError(
                f"topic {self.topic!r} of {self.link!r} was made anew: all is published again"
            )

    async def thawed(self) -> None:
        """Wait while the lane is frozen."""
        freeze = self.lane.freeze
        while freeze.on:
            await freeze.changed.above(freeze.changed.value)

    def _messages(self, records: Sequence[Record]) -> list[Message]:
        seals: Sequence[Headers] = self.lane.seal(records) if self.lane.seal else [()] * len(records)
        return [to_message(self.topic, record, seal) for record, seal in zip(records, seals, strict=True)]

    async def _topic_id_now(self) -> str:
        topics = await self.target.topics([self.topic])
        if self.topic not in topics:
            raise UnknownTopicError(self.topic)
        return topics[self.topic].topic_id


def parts(messages: Sequence[Message], most: int = _BATCH) -> list[list[Message]]:
    """`messages` in order, in parts of at most `_PART_BYTES` and `most` messages."""
    divided: list[list[Message]] = [[]]
    size = 0
    for message in messages:
        size += payload_bytes(message)
        if divided[-1] and (size > _PART_BYTES or len(divided[-1]) == most):
            divided.append([])
            size = payload_bytes(message)
        divided[-1].append(message)
    return divided
