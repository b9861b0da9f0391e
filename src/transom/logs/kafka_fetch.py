"""Fetching from a Kafka log, and what of the fetched is committed.

Aborted records are left out by the list that comes with each answer (KIP-98). Next on the data's way:
`kafka_bounds`, `kafka_readers`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.control_record import ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from transom.logs import kafka_api as api
from transom.logs import rules
from transom.logs.kafka_cluster import MAIN, KafkaCluster
from transom.logs.protocol import Entry, TopicPartition

_ABORT = 0


async def fetch(
    cluster: KafkaCluster,
    node: int,
    wanted: Mapping[TopicPartition, int],
    seconds: float,
    lane: int = MAIN,
) -> Any:
    """What broker `node` has in the partitions `wanted` at or after these offsets, up to about 8 MiB; it
    waits for up to `seconds` when there is nothing. Raises `TransientError`.
    """
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for at, offset in wanted.items():
        topics.setdefault(at.topic, []).append((at.partition, offset, rules.READ_BYTES_MAX))
    wait_ms = int(seconds * 1000)
    request = FetchRequest(wait_ms, 1, rules.READ_BYTES_MAX, api.READ_COMMITTED, list(topics.items()))
    return await cluster.ask(node, request, lane)


def committed(
    at: TopicPartition, offset: int, aborted: Iterable[tuple[int, int]] | None, records: bytes
) -> tuple[list[Entry], int]:
    """The entries at or after `offset` in fetched `records`, and where to fetch next.

    `aborted` are (producer id, first offset) of transactions in reach that were aborted.
    """
    begin = sorted(aborted or (), key=lambda each: each[1])
    dropping: set[int] = set()
    entries: list[Entry] = []
    for batch in _batches(records):
        while begin and begin[0][1] <= batch.base_offset:
            dropping.add(begin.pop(0)[0])
        if batch.is_control_batch:
            if _is_abort(batch):
                dropping.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in dropping):
            entries.extend(_entry(at, record) for record in batch if record.offset >= offset)
        offset = max(offset, batch.next_offset)
    if entries and (holes := offset - entries[-1].offset - 1):
        # Where an entry follows, that one's being there says as much.
        entries[-1] = msgspec.structs.replace(entries[-1], holes=holes)
    return entries, offset


def _batches(records: bytes) -> Iterator[Any]:
    # An answer may end in a batch that is cut off; what is left of it is ignored.
    found = MemoryRecords(records)
    while found.has_next():
        yield found.next_batch()


def _is_abort(batch: Any) -> bool:
    for record in batch:
        return ControlRecord.parse(record.key).type_ == _ABORT
    return False


def _entry(at: TopicPartition, record: Any) -> Entry:
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Entry(at.topic, at.partition, record.offset, record.timestamp, record.key, record.value, headers)
