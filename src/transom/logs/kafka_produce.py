"""Writing batches to a Kafka log: what a batch holds, and sending batches to the leaders of their partitions.

A batch carries its producer's id, epoch and sequence, so that sending it again after a lost answer appends it
once (KIP-98). Next on the data's way: `kafka_writers`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from transom.logs import kafka_api as api
from transom.logs import rules
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import Message, TopicPartition
from transom.model.errors import InvalidError, Problem

BATCH_BYTES = 900 * 1024
"""Batches stay below this, so that they fit a topic with Kafka's own limit, unless one entry is larger."""

TRANSACTION_MS = 15_000
"""After this a transaction that nobody ends is aborted; readers wait for its end as long."""

_ACKS_ALL = -1
_TIMEOUT_MS = 8_000  # below what the request has
_MAGIC = 2
_RECORD_BYTES = 64  # what a record takes beside its payload, at most
_UNCOMPRESSED = 0


class ProducerLostError(Exception):
    """The producer may not write any more: another took its name, or the cluster knows it no longer."""


class Producer(NamedTuple):
    """Who writes: Kafka's number for it and how often it was taken over."""

    id: int
    epoch: int


async def begin_producer(cluster: KafkaCluster, transactional_id: str | None) -> Producer:
    """Become a producer. With a transactional id every earlier producer of that id is shut out, and what it
    left unfinished is aborted.
    """

    async def attempt() -> Producer:
        node = None if transactional_id is None else await cluster.transaction_coordinator(transactional_id)
        request = InitProducerIdRequest(transactional_id, TRANSACTION_MS)  # pyright: ignore[reportArgumentType]
        answer = await cluster.ask(node, request)
        where = f"transactional id {transactional_id!r}" if transactional_id else "an idempotent producer"
        cluster.check(answer.error_code, where, "Write")
        return Producer(answer.producer_id, answer.producer_epoch)

    return await cluster.retrying("begin a producer", attempt)


def chunks(messages: Iterable[Message]) -> list[list[Message]]:
    """`messages` in runs that fit into a batch each, in order."""
    runs: list[list[Message]] = []
    room = 0
    for message in messages:
        size = rules.payload_bytes(message) + _RECORD_BYTES
        if not runs or size > room:
            runs.append([])
            room = BATCH_BYTES
        runs[-1].append(message)
        room -= size
    return runs


def batch_bytes(
    messages: Sequence[Message], producer: Producer, sequence: int, now_ms: int, *, transactional: bool
) -> bytes:
    """One record batch of format 2."""
    builder = DefaultRecordBatchBuilder(
        _MAGIC, _UNCOMPRESSED, int(transactional), producer.id, producer.epoch, sequence, 16 * rules.MEBIBYTE
    )
    for offset, each in enumerate(messages):
        headers = list(each.headers)
        # None for a full batch, which the limits on what is appended at once rule out.
        if not builder.append(offset, each.timestamp_ms or now_ms, each.key, each.value, headers):  # pyright: ignore[reportArgumentType]
            raise InvalidError("batch to append", [Problem("", "does not fit into one of Kafka's batches")])
    return bytes(builder.build())


async def produce(
    cluster: KafkaCluster, batches: Mapping[TopicPartition, bytes], transactional_id: str | None = None
) -> dict[TopicPartition, int]:
    """Send one batch to each partition; returns the offset that each begins at, once all replicas have it.

    Raises `ProducerLostError`, `UnreachableError`, what `KafkaCluster.check` raises; then some may have been
    written.
    """
    left = dict(batches)
    offsets: dict[TopicPartition, int] = {}

    async def attempt() -> dict[TopicPartition, int]:
        for node, mine in (await cluster.by_leader(left)).items():
            topics: dict[str, list[tuple[int, bytes]]] = {}
            for at in mine:
                topics.setdefault(at.topic, []).append((at.partition, left[at]))
            request = ProduceRequest(transactional_id, _ACKS_ALL, _TIMEOUT_MS, list(topics.items()))
            answer = await cluster.ask(node, request)
            for topic, partitions in answer.topics:
                for told in partitions:
                    at = TopicPartition(topic, told[0])
                    if told[1] == api.NONE:
                        offsets[at] = told[2]
                        del left[at]
                    else:
                        _refused(cluster, at, told[1])
        return offsets

    return await cluster.retrying("append", attempt)


_LOST = {
    45,  # OUT_OF_ORDER_SEQUENCE_NUMBER
    46,  # DUPLICATE_SEQUENCE_NUMBER: written, but at an offset that nobody remembers
    api.INVALID_PRODUCER_EPOCH,
    48,  # INVALID_TXN_STATE
    api.INVALID_PRODUCER_ID_MAPPING,
    59,  # UNKNOWN_PRODUCER_ID
    api.PRODUCER_FENCED,
}


def is_lost(code: int) -> bool:
    """Whether the producer is at its end: another took its name, or brokers know it no longer."""
    return code in _LOST


def check_producer(cluster: KafkaCluster, code: int, where: str) -> None:
    """As `KafkaCluster.check`, and `ProducerLostError` when this producer is at its end."""
    if is_lost(code):
        raise ProducerLostError(f"{where}: {api.code_name(code)}")
    cluster.check(code, where, "Write")


def _refused(cluster: KafkaCluster, at: TopicPartition, code: int) -> None:
    if code in (api.MESSAGE_TOO_LARGE, api.RECORD_LIST_TOO_LARGE):
        what = f"is larger than the topic takes; raise its max.message.bytes to {2 * rules.MEBIBYTE}"
        raise InvalidError(f"an entry for {at.topic}/{at.partition}", [Problem("", what)])
    check_producer(cluster, code, f"{at.topic}/{at.partition}")
