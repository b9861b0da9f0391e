"""Where the epochs of a partition's leaders ended: so a reader learns whether what it read is still there.

Next on the data's way: `links.kafka.shard`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition

_NOBODY = -1  # asks: no broker, and whoever leads now may answer


class _Response(Response):
    API_KEY = 23  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 4  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("epoch", Int32),
                        ("end", Int64),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _RequestV4(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 23
    API_VERSION = 4
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("replica", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_epoch", Int32),
                        ("epoch", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _EpochRequest(Request[_RequestV4]):
    """Where these epochs ended (KIP-101, KIP-320)."""

    API_KEY: ClassVar[int] = 23

    def __init__(self, epochs: Mapping[TopicPartition, int]) -> None:
        self._epochs = epochs

    def build(self, request_struct_class: type[_RequestV4]) -> _RequestV4:
        """The request as it goes out."""
        no_tags: dict[int, bytes] = {}
        topics: dict[str, list[tuple[int, int, int, dict[int, bytes]]]] = {}
        for at, epoch in self._epochs.items():
            topics.setdefault(at.topic, []).append((at.partition, _NOBODY, epoch, no_tags))
        asked = [(topic, partitions, no_tags) for topic, partitions in topics.items()]
        return request_struct_class(_NOBODY, asked, no_tags)


class EpochEnd(NamedTuple):
    """The newest epoch that the leader knows up to the one asked for, and behind which offset that ended;
    both -1 when it knows neither that one nor any after it.
    """

    epoch: int
    end: int


async def epoch_ends(
    cluster: KafkaCluster, epochs: Mapping[TopicPartition, int]
) -> dict[TopicPartition, EpochEnd]:
    """Where these epochs of leadership ended; the one that lasts ends where the partition does."""

    async def attempt() -> dict[TopicPartition, EpochEnd]:
        found: dict[TopicPartition, EpochEnd] = {}
        for node, mine in (await cluster.by_leader(epochs)).items():
            asked = _EpochRequest({at: epochs[at] for at in mine})
            answer: Any = await cluster.ask(node, asked)
            for topic, partitions, _ in answer.topics:
                for code, partition, epoch, end, _ in partitions:
                    cluster.check(code, f"topic {topic!r}", "Describe")
                    found[TopicPartition(topic, partition)] = EpochEnd(epoch, end)
        return found

    return await cluster.retrying("say where leaders' epochs ended", attempt)
