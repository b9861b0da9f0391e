"""What people order while a mirror runs, and what its processes tell: two compacted topics in the target.

Orders stand under `MIRROR/pause/TOPIC` and `MIRROR/skip/TOPIC/PARTITION`; every process of the mirror reads
them all. Next on the data's way: `mirroring`.
"""

from collections.abc import Iterable

import msgspec

from transom.links.kafka.resuming import Skip
from transom.logs.protocol import Entry, Log, Message, Topic, TopicPartition
from transom.model.errors import UNREADABLE, OutOfRangeError
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

ORDERS = Topic("transom-mirror-control", compact=True)

_AT = TopicPartition(ORDERS.name, 0)
_PAUSED = b"paused"


class _Skip(msgspec.Struct, frozen=True):
    id: str
    to: int


class Orders:
    """The orders of one mirror, as far as they were read."""

    def __init__(self, log: Log, mirror: str) -> None:
        self.paused: set[str] = set()
        self.resumed: set[str] = set()
        """Topics that were told to go on; whoever has seen to it takes them out."""
        self.skips: dict[TopicPartition, Skip] = {}
        self._log, self._mirror = log, mirror
        self._next: int | None = None

    async def read(self, wait_seconds: float = 0.0) -> bool:
        """Read what is new, once there is something or `wait_seconds` are over; whether there was."""
        if self._next is None:
            self._next = (await self._log.bounds(ORDERS.name))[0].start
        try:
            entries = await self._log.read({_AT: self._next}, wait_seconds=wait_seconds)
        except OutOfRangeError as gap:
            self._next = gap.start  # compacted meanwhile: what counts is there
            return True
        self._hear(entries)
        if entries:
            self._next = entries[-1].offset + 1
        return bool(entries)

    async def pause(self, topic: str) -> None:
        """Have a topic of the source mirrored no further."""
        await self._log.append([self._message(f"pause/{topic}", _PAUSED)])

    async def resume(self, topic: str) -> None:
        """Have it mirrored again."""
        await self._log.append([self._message(f"pause/{topic}", None)])

    async def skip(self, at: TopicPartition, skip: Skip) -> None:
        """Have a partition of the source go on at an offset."""
        value = msgspec.json.encode(_Skip(skip.id, skip.to))
        await self._log.append([self._message(f"skip/{at.topic}/{at.partition}", value)])

    def _pause(self, topic: str, *, paused: bool) -> None:
        if paused:
            self.paused.add(topic)
        else:
            self.paused.discard(topic)
            self.resumed.add(topic)

    def _message(self, key: str, value: bytes | None) -> Message:
        return Message(ORDERS.name, f"{self._mirror}/{key}".encode(), value)

    def _hear(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            try:
                mirror, kind, topic, *partition = (entry.key or b"").decode().split("/")
                if mirror != self._mirror:
                    continue
                if kind == "pause":
                    self._pause(topic, paused=entry.value is not None)
                elif entry.value:
                    said = msgspec.json.decode(entry.value, type=_Skip)
                    self.skips[TopicPartition(topic, int(partition[0]))] = Skip(said.id, said.to)
            except (ValueError, IndexError, *UNREADABLE) as error:
                log_event.warning("an order cannot be understood", offset=entry.offset, error=str(error))
