"""Fences on Kafka: a fence is a transactional id, whose newest owner shuts out all earlier ones (KIP-98).

The brokers do the shutting out, at the moment of writing. Tokens, which rise with each taking and which
versions are made of, stand in a compacted topic: each is written in the first transaction of the one who
took the fence, so no two takers get the same. Next on the data's way: `kafka`.
"""

from collections.abc import Sequence

from transom.logs import rules
from transom.logs.kafka_bounds import bounds
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_produce import ProducerLostError
from transom.logs.kafka_readers import Readers
from transom.logs.kafka_topics import KafkaTopics
from transom.logs.kafka_writers import Job, Placed, TransactionWriter
from transom.logs.protocol import Fence, Message, Topic, TopicPartition
from transom.model.errors import ConflictError, FencedError, OutOfRangeError, UnknownTopicError

FENCES = Topic("fences", compact=True)
PREFIX = "transom."
"""What the transactional ids of fences begin with, so that one right can name them."""

_AT = TopicPartition(FENCES.name, 0)
_TRIES = 5


class Fences:
    """The fences that this process has taken."""

    def __init__(self, cluster: KafkaCluster, topics: KafkaTopics, readers: Readers) -> None:
        self._cluster = cluster
        self._topics = topics
        self._readers = readers
        self._writers: dict[str, tuple[int, TransactionWriter]] = {}

    async def take(self, name: str) -> Fence:
        """See `Log.take_fence`."""
        await self._topics.create([FENCES])
        for _ in range(_TRIES):
            writer = TransactionWriter(self._cluster, PREFIX + name)
            await writer.begin()
            token = (await self._held(name) or 0) + 1
            try:
                await writer.append([Placed(_AT, Message(FENCES.name, name.encode(), str(token).encode()))])
            except ProducerLostError:
                await writer.close()
                continue  # somebody took it between: take it after them
            if (old := self._writers.pop(name, None)) is not None:
                await old[1].close()
            self._writers[name] = (token, writer)
            return Fence(name, token)
        raise FencedError(f"fence {name!r} is taken by others again and again; look who else runs under it")

    async def append(self, job: Job, fence: Fence) -> Sequence[int]:
        """Append under `fence`. Raises `FencedError`, `ConflictError` as `Log.append` does."""
        token, writer = self._writers.get(fence.name, (0, None))
        if writer is not None and token == fence.token:
            try:
                return await writer.append(job)
            except ProducerLostError:
                pass
        rules.check_fence(fence, await self._held(fence.name))
        raise ConflictError(f"this process does not hold fence {fence.name!r} any more; take the fence again")

    async def close(self) -> None:
        """Stop every writer."""
        for _, writer in self._writers.values():
            await writer.close()
        self._writers.clear()

    async def _held(self, name: str) -> int | None:
        """The newest token under `name`; None when it was never taken in this cluster."""
        try:
            offset = (await bounds(self._cluster, FENCES.name))[0].start
            token = None
            while entries := await self._readers.read({_AT: offset}, 10_000, 0.0):
                offset = entries[-1].offset + 1
                for entry in entries:
                    if entry.key == name.encode():
                        token = int(entry.value or b"0")
        except (UnknownTopicError, OutOfRangeError):
            return None
        return token
