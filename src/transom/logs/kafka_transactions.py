"""What a transactional producer asks of its coordinator, beside what it writes (KIP-98).

Next on the data's way: `kafka_writers`.
"""

from collections.abc import Iterable

from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest

from transom.logs import kafka_api as api
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_produce import Producer, check_producer
from transom.logs.protocol import TopicPartition

_NOT_ATTEMPTED = 55
"""Because another partition was refused."""


async def add_partitions(
    cluster: KafkaCluster, transactional_id: str, producer: Producer, partitions: Iterable[TopicPartition]
) -> None:
    """Have the transaction, which begins with this, end in these partitions, too.

    Raises `ProducerLostError`, `UnreachableError`, what `KafkaCluster.check` raises.
    """
    topics: dict[str, list[int]] = {}
    for at in partitions:
        topics.setdefault(at.topic, []).append(at.partition)

    async def attempt() -> None:
        node = await cluster.transaction_coordinator(transactional_id)
        asked = AddPartitionsToTxnRequest(transactional_id, *producer, list(topics.items()))
        answer = await cluster.ask(node, asked)
        for topic, told in answer.errors:
            for code in {code for _, code in told} - {api.NONE, _NOT_ATTEMPTED}:
                of_topic = code == api.TOPIC_AUTHORIZATION_FAILED
                where = f"topic {topic!r}" if of_topic else f"transactional id {transactional_id!r}"
                check_producer(cluster, code, where)

    await cluster.retrying("begin a transaction", attempt)


async def end_transaction(
    cluster: KafkaCluster, transactional_id: str, producer: Producer, *, commit: bool
) -> None:
    """Commit or abort. Raises as `add_partitions` does; then it may have happened."""

    async def attempt() -> None:
        node = await cluster.transaction_coordinator(transactional_id)
        answer = await cluster.ask(node, EndTxnRequest(transactional_id, *producer, commit))
        check_producer(cluster, answer.error_code, f"transactional id {transactional_id!r}")

    await cluster.retrying("end a transaction", attempt)
