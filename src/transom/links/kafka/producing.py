"""Sending whole batches to the leaders of their partitions: at most one of each partition in a request.

Encoded here, because aiokafka's encoder copies every batch several times. Version 7 is what 3.9 and 4.x
share with the clients there are, and the first that takes zstd.
Source: Apache Kafka, `ProduceRequest.json`. Next on the data's way: the target's brokers.
"""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.produce import ProduceResponse_v7

from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition

_HEAD = struct.Struct(">hhi")
_COUNT = struct.Struct(">i")
_LENGTH = struct.Struct(">h")
_ABOUT = struct.Struct(">ii")
_NOBODY = -1
_ACKS_ALL = -1
_TIMEOUT_MS = 8_000  # below what the request has


class Produced(NamedTuple):
    """What became of a partition's batch: an error, or the offset at which it begins."""

    error: int
    base: int


async def produce(
    cluster: KafkaCluster, node: int, sent: Sequence[tuple[TopicPartition, bytes | bytearray]], lane: int
) -> dict[TopicPartition, Produced]:
    """Have broker `node` append one batch to each partition; answers once all replicas in sync have them.

    Raises `TransientError`; then any of them may have been appended.
    """
    answer = await cluster.ask(node, _Produce(_encoded(sent)), lane)
    return {
        TopicPartition(topic, told[0]): Produced(told[1], told[2])
        for topic, partitions in answer.topics
        for told in partitions
    }


def _encoded(sent: Sequence[tuple[TopicPartition, bytes | bytearray]]) -> bytes:
    topics: dict[str, list[tuple[int, bytes | bytearray]]] = {}
    for at, data in sent:
        topics.setdefault(at.topic, []).append((at.partition, data))
    pieces: list[bytes | bytearray] = [_HEAD.pack(_NOBODY, _ACKS_ALL, _TIMEOUT_MS), _COUNT.pack(len(topics))]
    for topic, partitions in topics.items():
        name = topic.encode()
        pieces += (_LENGTH.pack(len(name)), name, _COUNT.pack(len(partitions)))
        for partition, data in partitions:
            pieces += (_ABOUT.pack(partition, len(data)), data)
    return b"".join(pieces)


class _ProduceV7(RequestStruct):
    API_KEY = 0
    API_VERSION = 7
    RESPONSE_TYPE = ProduceResponse_v7

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self._encoded = encoded

    def encode(self) -> bytes:
        """The request, but for its header."""
        return self._encoded


class _Produce(Request[_ProduceV7]):
    API_KEY: ClassVar[int] = 0

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded

    def build(self, request_struct_class: Any) -> _ProduceV7:
        """See `Request`."""
        return request_struct_class(self._encoded)
