"""Where the partitions of a Kafka topic begin and end.

Next on the data's way: `kafka_readers`, `kafka_topics`.
"""

from collections.abc import Iterable
from typing import Any

from aiokafka.protocol.offset import OffsetRequest

from transom.logs import kafka_api as api
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.kafka_fetch import committed, fetch
from transom.logs.protocol import Bounds, TopicPartition
from transom.model.errors import UnknownTopicError

EARLIEST, LATEST = -2, -1
_FARTHER = 8


async def bounds(cluster: KafkaCluster, topic: str) -> dict[int, Bounds]:
    """See `Log.bounds`. The end is behind the last entry that can be read: not behind what ends a
    transaction, or whoever has read everything would look as if something were missing.
    """

    async def attempt() -> dict[int, Bounds]:
        leaders = (await cluster.layout(topic)).leaders
        places = [TopicPartition(topic, partition) for partition in leaders]
        starts = await _offsets(cluster, places, EARLIEST, api.READ_COMMITTED)
        stable = await _offsets(cluster, places, LATEST, api.READ_COMMITTED)
        found: dict[int, Bounds] = {}
        for partition, leader in leaders.items():
            at = TopicPartition(topic, partition)
            start = min(starts[at], stable[at])  # what was truncated between the two questions
            found[partition] = Bounds(start, await _end(cluster, leader, at, start, stable[at]))
        return found

    return await cluster.retrying(f"say where {topic} begins and ends", attempt)


async def _end(cluster: KafkaCluster, leader: int, at: TopicPartition, start: int, stable: int) -> int:
    """Behind the last entry below `stable`, looked for from there backwards."""
    back = 2  # most often an entry and what ends its transaction
    while start < stable:
        offset = max(start, stable - back)
        answer = await fetch(cluster, leader, {at: offset}, 0.0)
        told = answer.topics[0][1][0]
        if told[1] == api.OFFSET_OUT_OF_RANGE:
            # It expired, or was truncated, since it was asked where it begins.
            raise TransientError(f"{at.topic}/{at.partition} moves", error="moves")
        cluster.check(told[1], f"{at.topic}/{at.partition}", "Read")
        entries, _ = committed(at, offset, told[5], told[-1])
        if entries:
            return entries[-1].offset + 1
        if offset == start:
            break
        back *= _FARTHER
    return start


async def list_offsets(
    cluster: KafkaCluster, partitions: Iterable[TopicPartition], which: int
) -> dict[TopicPartition, int]:
    """Where partitions begin (`EARLIEST`) or end (`LATEST`), open transactions included."""
    wanted = list(partitions)
    return await cluster.retrying(
        "say where partitions begin and end", lambda: _offsets(cluster, wanted, which, api.READ_UNCOMMITTED)
    )


async def _offsets(
    cluster: KafkaCluster, partitions: Iterable[TopicPartition], which: int, isolation: int
) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for node, mine in (await cluster.by_leader(partitions)).items():
        topics: dict[str, list[tuple[int, int]]] = {}
        for at in mine:
            topics.setdefault(at.topic, []).append((at.partition, which))
        answer: Any = await cluster.ask(node, OffsetRequest(-1, isolation, list(topics.items())))
        for topic, told in answer.topics:
            for partition, code, _, offset, *_ in told:
                if code == api.UNKNOWN_TOPIC and topic not in await cluster.layouts([topic]):
                    raise UnknownTopicError(topic)
                cluster.check(code, f"topic {topic!r}", "Read")
                found[TopicPartition(topic, partition)] = offset
    return found
