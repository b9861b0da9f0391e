"""What the mirror's figures are measured with: topics, exact batches into them, and where they end.

`make_batches` builds record batches of format 2 byte by byte as a producer would send them; `Wire.load` sends
them whole, as many partitions a request as there are, so that a batch of 16 KiB is a batch of 16 KiB in the
source. No client's own batching comes in between, and loading is nearly as quick as the broker. Next on the
data's way: `mirror_sides.py`.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.protocol.admin import CreateTopicsRequest, DeleteTopicsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

_ONLY = 1  # the id of the one broker that a cluster has here
_REQUEST_BYTES_MAX = 4 << 20
_TIMEOUT_MS = 30_000
_FETCH_BYTES = 4 << 20
_HEADER_BYTES, _RECORD_BYTES = 61, 9  # beside the values
_VARIANTS = 16
_NO_TOPIC = 3
_LATEST = -1
_FOR_EVER = "-1"


def make_batch(values: Sequence[bytes], timestamp_ms: int, keys: Sequence[bytes | None] = ()) -> bytes:
    """One uncompressed batch with these values, as a producer that is not idempotent sends it."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 64 << 20)
    for offset, value in enumerate(values):
        builder.append(offset, timestamp_ms, keys[offset] if keys else None, value, [])
    return bytes(builder.build())


def make_batches(record_bytes: int, batch_bytes: int) -> tuple[list[bytes], int]:
    """Different batches of about `batch_bytes` with values of `record_bytes`, and how many records each has.

    Half of a value is random, half looks like any other one's, as in JSON: LZ4 makes about half of it.
    """
    now_ms = int(SystemClock().wall() * 1000)
    count = max(1, (batch_bytes - _HEADER_BYTES) // (record_bytes + _RECORD_BYTES))
    made: list[bytes] = []
    for variant in range(_VARIANTS):
        values = [_value(record_bytes, variant * count + number) for number in range(count)]
        made.append(make_batch(values, now_ms))
    return made, count


def _value(size: int, number: int) -> bytes:
    begin = b'{"order": %08d, "state": "accepted", "note": "' % number
    half = hashlib.shake_128(b"%d" % number).digest(size)
    text = begin + half.hex().encode()[: size // 2]
    return text[: size - 2].ljust(size - 2, b".") + b'"}'


class Wire:
    """Requests to one cluster of one broker."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.cluster = cluster

    async def create(self, topic: str, partitions: int, **configs: str) -> None:
        """Make a topic that keeps what is in it; `configs`: with `_` where Kafka has a dot."""
        told = {"retention.ms": _FOR_EVER} | {name.replace("_", "."): to for name, to in configs.items()}
        made: list[Any] = [(topic, partitions, 1, [], list(told.items()))]
        answer = await self.cluster.ask(None, CreateTopicsRequest(made, _TIMEOUT_MS, False))
        assert not answer.topic_errors[0][1], answer
        while True:
            if await self.ends(topic):
                return
            await asyncio.sleep(0.02)

    async def delete(self, *topics: str) -> None:
        """Remove topics, so that others can be made under their names: the broker learns of it a moment after
        the controller.
        """
        await self.cluster.ask(None, DeleteTopicsRequest(list(topics), _TIMEOUT_MS))
        while True:
            if not await self.cluster.layouts(topics):
                return
            await asyncio.sleep(0.02)

    async def end(self, topic: str) -> int | None:
        """How many records were ever appended to a topic that began empty (with what ends transactions);
        None when it is not there.
        """
        ends = await self.ends(topic)
        return sum(ends.values()) if ends else None

    async def ends(self, topic: str) -> dict[int, int]:
        """Where each partition ends; nothing for a topic that is not there."""
        held = (await self.cluster.layouts([topic])).get(topic)
        if held is None:
            return {}
        asked = [(partition, _LATEST) for partition in held.leaders]
        answer: Any = await self.cluster.ask(_ONLY, OffsetRequest(-1, 0, [(topic, asked)]))
        ends = [partition for _, partitions in answer.topics for partition in partitions]
        return {} if any(end[1] for end in ends) else {end[0]: end[3] for end in ends}

    async def load(
        self,
        topic: str,
        partitions: int,
        batches: Sequence[bytes],
        count: int,
        *,
        acks: int = 1,
        connections: int = 3,
    ) -> None:
        """Append `count` batches, taken in turn, to the partitions in turn: one of each a request."""
        width = max(1, min(partitions, _REQUEST_BYTES_MAX // len(batches[0])))
        requests = iter(range(0, count, width))

        async def work(lane: int) -> None:
            for first in requests:
                parts = [
                    (number % partitions, batches[number % len(batches)])
                    for number in range(first, min(first + width, count))
                ]
                await self.produce(topic, parts, acks=acks, lane=lane)

        async with asyncio.TaskGroup() as group:
            for lane in range(1, connections + 1):
                group.create_task(work(lane))

    async def produce(
        self, topic: str, parts: list[tuple[int, bytes]], *, acks: int = 1, lane: int = 0
    ) -> int:
        """Append one batch to each of these partitions; the offset of the first."""
        request = ProduceRequest(None, acks, _TIMEOUT_MS, [(topic, parts)])
        answer: Any = await self.cluster.ask(_ONLY, request, lane)
        told = [part for _, found in answer.topics for part in found]
        assert not any(part[1] for part in told), answer
        return told[0][2]

    async def fetch(self, topic: str, offsets: dict[int, int], wait_ms: int, lane: int) -> list[Any]:
        """The batches at or after an offset of each partition, with what is before it in the first, as
        (partition, batch); waits when there are none, and for the topic.
        """
        asked = [(partition, offset, 1 << 20) for partition, offset in offsets.items()]
        request = FetchRequest(wait_ms, 1, _FETCH_BYTES, 0, [(topic, asked)])
        answer: Any = await self.cluster.ask(_ONLY, request, lane)
        found: list[Any] = []
        for _, parts in answer.topics:
            for part in parts:
                if part[1] == _NO_TOPIC:
                    await asyncio.sleep(0.02)
                records = MemoryRecords(part[-1] or b"")
                while records.has_next():
                    found.append((part[0], records.next_batch()))
        return found


@asynccontextmanager
async def wire(bootstrap: str) -> AsyncGenerator[Wire]:
    """Requests to the cluster at `bootstrap`, with connections of their own."""
    cluster = KafkaCluster(parse_address(f"kafka://{bootstrap}"), SystemClock(), Randomness())
    try:
        yield Wire(cluster)
    finally:
        await cluster.close()
