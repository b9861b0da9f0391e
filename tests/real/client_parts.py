"""A topic, a producer and a reader, as the tests of the real parts need them."""

from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


async def new_topic(bootstrap: str, name: str, copies: int = 1, **security: Any) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(name, 1, copies)])
    finally:
        await admin.close()


async def append(bootstrap: str, topic: str, *values: bytes, **settings: Any) -> None:
    """Acknowledged by every copy, once each."""
    settings = {"acks": "all", "enable_idempotence": True, "retry_backoff_ms": 20, **settings}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **settings)
    try:
        await producer.start()
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def read(bootstrap: str, topic: str, **security: Any) -> list[bytes | None]:
    """Everything there is."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, **security)
    async with consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes | None] = []
        while await consumer.position(partition) < end:
            found += [record.value for record in (await consumer.getmany(timeout_ms=500)).get(partition, [])]
        return found
