"""Sending whole batches to the leaders of their partitions: at most one of each partition in a request.

Version 7 is the first that takes zstd; 3.9 and 4.x have it.
Source: Apache Kafka, `ProduceRequest.json`. Next on the data's way: the target's brokers.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_stream import Buffer, Call
from transom.logs.protocol import TopicPartition

_PRODUCE = Call(key=0, version=7, is_flexible=False)
_HEAD = struct.Struct(">hhi")
_COUNT = struct.Struct(">i")
_LENGTH = struct.Struct(">h")
_ABOUT = struct.Struct(">ii")
_TOLD = struct.Struct(">ihqqq")
_NOBODY = -1
_ACKS_ALL = -1
_TIMEOUT_MS = 8_000  # below what the request has


class Produced(NamedTuple):
    """What became of a partition's batch: an error, or the offset at which it begins."""

    error: int
    base: int


async def produce(
    cluster: KafkaCluster, node: int, sent: Sequence[tuple[TopicPartition, Buffer]], lane: int
) -> dict[TopicPartition, Produced]:
    """Have broker `node` append one batch to each partition; answers once all replicas in sync have them.

    Raises `TransientError`; then any of them may have been appended.
    """
    return _decoded(await cluster.stream(node, _PRODUCE, _encoded(sent), lane))


def _encoded(sent: Sequence[tuple[TopicPartition, Buffer]]) -> list[Buffer]:
    """The request, in pieces: batches stay where they are."""
    topics: dict[str, list[tuple[int, Buffer]]] = {}
    for at, data in sent:
        topics.setdefault(at.topic, []).append((at.partition, data))
    pieces: list[Buffer] = [_HEAD.pack(_NOBODY, _ACKS_ALL, _TIMEOUT_MS), _COUNT.pack(len(topics))]
    for topic, partitions in topics.items():
        name = topic.encode()
        pieces += (_LENGTH.pack(len(name)), name, _COUNT.pack(len(partitions)))
        for partition, data in partitions:
            pieces += (_ABOUT.pack(partition, len(data)), data)
    return pieces


def _decoded(held: memoryview) -> dict[TopicPartition, Produced]:
    found: dict[TopicPartition, Produced] = {}
    (topics,) = _COUNT.unpack_from(held)
    at = _COUNT.size
    for _ in range(topics):
        (size,) = _LENGTH.unpack_from(held, at)
        at += _LENGTH.size
        topic = str(held[at : at + size], "utf-8")
        (partitions,) = _COUNT.unpack_from(held, at + size)
        at += size + _COUNT.size
        for _ in range(partitions):
            partition, error, base, _, _ = _TOLD.unpack_from(held, at)
            found[TopicPartition(topic, partition)] = Produced(error, base)
            at += _TOLD.size
    return found
