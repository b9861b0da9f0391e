"""The lanes that a process carries, and who is to look at them again. Next on the data's way: `fetcher`."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from transom.links.kafka.lane import Lane
from transom.links.kafka.shard import Shard
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition
from transom.model.errors import TransomError

LANE_BYTES_MAX = 4 << 20
"""A lane that holds more waits until some of it is written."""


async def leader_of(cluster: KafkaCluster, at: TopicPartition) -> tuple[int, str]:
    """The broker that leads a partition; below 0 when nobody does, or that cannot be told, and why not."""
    leader = cluster.known_leader(*at)
    try:
        return (leader if leader >= 0 else await cluster.leader(*at)), ""
    except TransomError as error:
        return -1, str(error)


@dataclass
class Lanes:
    """The shards that this process has, and their lanes."""

    shards: dict[int, Shard] = field(default_factory=dict[int, Shard])
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Something may be fetched."""
    work: asyncio.Event = field(default_factory=asyncio.Event)
    """Something may be sent."""
    unkept: asyncio.Event = field(default_factory=asyncio.Event)
    """A map has grown."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A shard is to be taken anew."""

    def __iter__(self) -> Iterator[Lane]:
        return (lane for shard in list(self.shards.values()) for lane in shard.lanes.values())

    def find(self, at: TopicPartition) -> Lane | None:
        """The lane of a partition of the source, if it is carried here."""
        return next((shard.lanes[at] for shard in self.shards.values() if at in shard.lanes), None)

    def put(self, shard: Shard) -> None:
        """Carry a shard from now on."""
        self.shards[shard.number] = shard
        self.wake()

    def take_off(self, number: int) -> None:
        """Carry a shard no more; what is under way may still arrive."""
        self.shards.pop(number, None)

    def wake(self) -> None:
        """Have everybody look again."""
        for event in (self.room, self.work, self.unkept):
            event.set()

    def sent(self, lanes: Iterable[Lane]) -> None:
        """Something of these lanes was answered: have those look again who may have something to do now."""
        self.work.set()
        for lane in lanes:
            if not lane.fetching and lane.bytes_held <= LANE_BYTES_MAX:
                self.room.set()
            if lane.unkept:
                self.unkept.set()

    @property
    def bytes_held(self) -> int:
        """What all that was fetched and is not written takes."""
        return sum(lane.bytes_held for lane in self)
