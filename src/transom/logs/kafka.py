"""A log kept by Apache Kafka, 3.9 or 4.x, through aiokafka.

Offsets leave gaps where transactions end. What goes to one partition without a fence is one idempotent batch;
all else is a transaction. Only what is committed is read. Kafka cleans up by itself, by the times that
entries carry. Parts: `kafka_address`, `kafka_reaching`, `kafka_cluster`, `kafka_topics`, `kafka_fetch`,
`kafka_writers`, `kafka_fences`, `kafka_groups`.
"""

import ssl
from collections.abc import Collection, Mapping, Sequence

from transom.logs import rules
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_bounds import bounds
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_fences import Fences
from transom.logs.kafka_groups import Groups
from transom.logs.kafka_produce import ProducerLostError
from transom.logs.kafka_readers import Readers
from transom.logs.kafka_topics import KafkaTopics
from transom.logs.kafka_writers import Job, Placed, PlainWriter, TransactionWriter, fits_plain
from transom.logs.protocol import (
    Bounds,
    Entry,
    Fence,
    Membership,
    Message,
    Topic,
    TopicInfo,
    TopicPartition,
)
from transom.model.errors import UnreachableError
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness

NOBODYS = "transom-own."
"""What transactional ids of no fence begin with, so that a right to them is none to take a fence."""


class KafkaLog:
    """`Log` on the cluster that `url` names (`kafka_address`); connects with the first call.

    `password` is the user's; `tls` says whom to trust, by default what the system trusts. Raises
    `InvalidError` for an address that is none.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        randomness: Randomness,
        *,
        password: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._cluster = KafkaCluster(parse_address(url), clock, randomness, password=password, tls=tls)
        self._randomness = randomness
        self._topics = KafkaTopics(self._cluster)
        self._readers = Readers(self._cluster)
        self._plain = PlainWriter(self._cluster)
        self._whole: TransactionWriter | None = None
        self._fences = Fences(self._cluster, self._topics, self._readers)
        self._groups = Groups(self._cluster)

    @property
    def trouble(self) -> str:
        """See `Log.trouble`."""
        return self._cluster.trouble

    async def create(self, topics: Sequence[Topic]) -> None:
        """See `Log.create`."""
        await self._topics.create(topics)

    async def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
        """See `Log.topics`."""
        return await self._topics.infos(names)

    async def append(self, batch: Sequence[Message], *, fence: Fence | None = None) -> Sequence[int]:
        """See `Log.append`."""
        rules.check_batch(batch)
        job = [await self._placed(message) for message in batch]
        if not job:
            return []
        if fence is not None:
            return await self._fences.append(job, fence)
        return await (self._plain.append(job) if fits_plain(job) else self._append_whole(job))

    async def read(
        self, positions: Mapping[TopicPartition, int], *, most: int = 1000, wait_seconds: float = 0.0
    ) -> Sequence[Entry]:
        """See `Log.read`."""
        return await self._readers.read(positions, most, wait_seconds)

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """See `Log.bounds`."""
        return await bounds(self._cluster, topic)

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        """See `Log.truncate`."""
        await self._topics.truncate(topic, partition, before)

    async def take_fence(self, name: str) -> Fence:
        """See `Log.take_fence`."""
        return await self._fences.take(name)

    async def join(
        self, group: str, member: str, topics: Sequence[str], *, session_seconds: float = 10.0
    ) -> Membership:
        """See `Log.join`."""
        return await self._groups.join(group, member, topics, session_seconds)

    async def commit(self, membership: Membership, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Log.commit`."""
        await self._groups.commit(membership, offsets)

    async def committed(self, group: str) -> Mapping[TopicPartition, int]:
        """See `Log.committed`."""
        return await self._groups.committed(group)

    async def close(self) -> None:
        """See `Log.close`."""
        await self._groups.close()
        await self._readers.close()
        await self._plain.close()
        if self._whole is not None:
            await self._whole.close()
        await self._fences.close()
        await self._cluster.close()

    async def _placed(self, message: Message) -> Placed:
        layout = await self._cluster.layout(message.topic)
        # Whether it is compacted is Kafka's to know: it refuses an entry without a key itself.
        partition = rules.partition_of(message, Topic(message.topic, len(layout.leaders)))
        return Placed(TopicPartition(message.topic, partition), message)

    async def _append_whole(self, job: Job) -> Sequence[int]:
        """Append in a transaction of nobody's name; whoever had it broken before begins a new one."""
        if self._whole is None or self._whole.broken:
            old, self._whole = self._whole, None
            if old is not None:
                await old.close()
            writer = TransactionWriter(self._cluster, f"{NOBODYS}{self._randomness.uid()}")
            await writer.begin()
            self._whole = writer
        try:
            return await self._whole.append(job)
        except ProducerLostError as error:
            raise UnreachableError(f"{self._cluster.address}: {error}; append again") from None
