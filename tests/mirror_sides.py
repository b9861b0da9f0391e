"""Two clusters as a mirror has them: what tests make there, read there, and remove again."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteRecordsRequest
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as At

from engines.kafka import Brokers
from kafka_logs import empty
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness


class Side:
    """One cluster: `cluster` as the mirror knows it, `brokers` as anybody else does."""

    def __init__(self, brokers: Brokers, cluster: KafkaCluster) -> None:
        self.brokers, self.cluster = brokers, cluster

    async def make(
        self,
        topic: str,
        partitions: int = 1,
        configs: Mapping[str, str] | None = None,
        *,
        replicas: int = 1,
    ) -> None:
        """Create a topic, as its owner would."""
        asked = [(topic, partitions, replicas, [], list((configs or {}).items()))]
        answer = await self.cluster.ask(None, CreateTopicsRequest(asked, 10_000, validate_only=False))
        assert [code for _, code, *_ in answer.topic_errors] == [0], answer
        while not all(
            leader >= 0
            for layout in [(await self.cluster.layouts([topic])).get(topic)]
            for leader in (layout.leaders.values() if layout else [-1])
        ):
            await self.cluster.clock.sleep(0.01)

    async def fill(self, topic: str, values: Sequence[bytes], partition: int = 0) -> None:
        """Append records, each in a batch of its own."""
        async with AIOKafkaProducer(bootstrap_servers=self.brokers.bootstrap) as producer:
            for value in values:
                await producer.send_and_wait(topic, value, partition=partition)

    async def drop(self, topic: str, before: int, partition: int = 0) -> None:
        """Remove the records before an offset."""
        leader = await self.cluster.leader(topic, partition)
        request = DeleteRecordsRequest([(topic, [(partition, before)])], 10_000)
        answer = await self.cluster.ask(leader, request)
        assert answer.topics[0][1][0][2] == 0

    @contextlib.asynccontextmanager
    async def consumer(self, group: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A plain member of `group` that has its partitions; it commits when told to."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.brokers.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            while not consumer.assignment():
                await self.cluster.clock.sleep(0.01)
            yield consumer
        finally:
            await consumer.stop()

    async def reads(self, group: str, topic: str, count: int) -> list[bytes]:
        """What a plain consumer of `group` gets next; it commits that and leaves."""
        async with self.consumer(group, topic) as consumer:
            return await take(consumer, count)

    async def place(self, group: str, topic: str, partition: int = 0) -> int | None:
        """What `group` has committed, as a plain client is told."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.brokers.bootstrap, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return await consumer.committed(At(topic, partition))
        finally:
            await consumer.stop()

    async def put(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit for an empty group, as `kafka-consumer-groups.sh --reset-offsets` does."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.brokers.bootstrap, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign([At(*at) for at in offsets])
            # Or it fetches, and a fetch from a broker that is away fails its end.
            consumer.pause(*(At(*at) for at in offsets))
            await consumer.commit({At(*at): OffsetAndMetadata(offset, "") for at, offset in offsets.items()})
        finally:
            await consumer.stop()


async def take(consumer: AIOKafkaConsumer, count: int) -> list[bytes]:
    """The values of the next records, committed one by one."""
    found: list[bytes] = []
    for _ in range(count):
        record = await consumer.getone()
        found.append(record.value)
        await consumer.commit({At(record.topic, record.partition): record.offset + 1})
    return found


@contextlib.asynccontextmanager
async def side_of(brokers: Brokers) -> AsyncIterator[Side]:
    """A cluster without topics and groups; without them again when the block is left."""
    await empty(brokers)
    cluster = KafkaCluster(parse_address(f"kafka://{brokers.bootstrap}"), SystemClock(), Randomness())
    try:
        yield Side(brokers, cluster)
    finally:
        await cluster.close()
        await empty(brokers)
