"""What a mirror keeps in the target cluster: offset maps, and what became of each partition.

One compacted topic for all mirrors into a cluster, with a partition for each shard, which only the shard's
owner writes to. Under the key `MIRROR/TOPIC/PARTITION/N` stands a chunk of breaks, under
`MIRROR/TOPIC/PARTITION` which topics these are and where something was lost; in the partition of the first
shard stands under `MIRROR/TOPIC` whose copy a topic of this cluster is. All JSON, so that others may read it.
Next on the data's way: `shard`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from transom.links.kafka.epochs import Epoch
from transom.links.kafka.fetching import Wanted, fetch
from transom.links.kafka.offset_map import Break
from transom.links.kafka.tail import NO_TAIL, Tail
from transom.links.kafka.topic_plan import Copy
from transom.logs.kafka_bounds import EARLIEST, LATEST, list_offsets
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_fetch import committed
from transom.logs.protocol import Message, TopicPartition
from transom.model.errors import UNREADABLE
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

MAP_TOPIC = "transom-mirror-map"
SHARDS = 8
COPIES_SHARD = 0
"""The shard whose owner makes copies, and keeps whose they are."""

GAPS_MAX = 10

_READ_BYTES = 1 << 20
_READ_WAIT_MS = 500


class Gap(msgspec.Struct, frozen=True):
    """Where records of the source never came: offsets from `begin` to before `end`, why, and when it was
    noticed (seconds since the epoch).
    """

    begin: int
    end: int
    why: str
    at: float


class PartitionRecord(msgspec.Struct, frozen=True):
    """Which incarnations of two topics a map is for, the numbers of the producers that wrote the copy, the
    newest gaps, the last order to skip something that was carried out, the copy's tail when the partition was
    taken (its writer None: nobody, or it was accepted), of a compacted topic, when the copy had all that the
    source had, about (seconds since the epoch; 0: not known), and which leaders wrote what was read.
    """

    source_id: str
    target: str
    target_id: str
    writers: tuple[int, ...] = ()
    gaps: tuple[Gap, ...] = ()
    skipped: str = ""
    tail: Tail = NO_TAIL
    complete_at: float = 0.0
    epochs: tuple[Epoch, ...] = ()


@dataclass
class Ledger:
    """What all mirrors keep: of partitions, by mirror and by partition of its source, and which topics are
    copies.
    """

    partitions: dict[str, dict[TopicPartition, "Kept"]] = field(
        default_factory=dict[str, dict[TopicPartition, "Kept"]]
    )
    copies: dict[str, Copy] = field(default_factory=dict[str, Copy])


@dataclass
class Kept:
    """What is kept of a partition."""

    record: PartitionRecord | None = None
    chunks: dict[int, list[Break]] = field(default_factory=dict[int, list[Break]])


def partition_message(mirror: str, at: TopicPartition, record: PartitionRecord) -> Message:
    """The message that keeps what became of a partition."""
    return _message(f"{mirror}/{at.topic}/{at.partition}", msgspec.json.encode(record))


def copy_message(name: str, copy: Copy) -> Message:
    """The message that keeps whose copy a topic is."""
    return _message(f"{copy.mirror}/{name}", msgspec.json.encode(copy))


def chunk_messages(mirror: str, at: TopicPartition, chunks: Mapping[int, list[Break]]) -> list[Message]:
    """The messages that keep these chunks, and forget empty ones."""
    return [
        _message(
            f"{mirror}/{at.topic}/{at.partition}/{number}", msgspec.json.encode(breaks) if breaks else None
        )
        for number, breaks in chunks.items()
    ]


def _message(key: str, value: bytes | None) -> Message:
    return Message(MAP_TOPIC, key.encode(), value)


async def read_ledger(cluster: KafkaCluster, shards: Iterable[int], lane: int) -> Ledger:
    """All that is kept in these shards."""
    found = Ledger()
    places = [TopicPartition(MAP_TOPIC, shard) for shard in shards]
    starts = await list_offsets(cluster, places, EARLIEST)
    ends = await list_offsets(cluster, places, LATEST)
    for at in places:
        offset = starts[at]
        while offset < ends[at]:
            entries, offset = await _read(cluster, at, offset, lane)
            for key, value in entries:
                _hear(found, key, value)
    return found


async def _read(
    cluster: KafkaCluster, at: TopicPartition, offset: int, lane: int
) -> tuple[list[tuple[str, bytes | None]], int]:
    async def attempt() -> tuple[list[tuple[str, bytes | None]], int]:
        layout = await cluster.layout(at.topic)
        wanted = [Wanted(UUID(layout.topic_id).bytes, at.partition, offset, _READ_BYTES)]
        node = await cluster.leader(*at)
        (told,) = await fetch(cluster, node, wanted, wait_ms=_READ_WAIT_MS, bytes_max=_READ_BYTES, lane=lane)
        cluster.check(told.error, f"{at.topic}/{at.partition}", "Read")
        entries, following = committed(at, offset, told.aborted, bytes(told.records))
        return [((entry.key or b"").decode(), entry.value) for entry in entries], following

    return await cluster.retrying("read what a mirror keeps", attempt)


async def read_copies(cluster: KafkaCluster, lane: int) -> dict[str, Copy]:
    """The topics of a cluster that are copies of others, by name."""
    if MAP_TOPIC not in await cluster.layouts([MAP_TOPIC]):
        return {}
    return (await read_ledger(cluster, [COPIES_SHARD], lane)).copies


def _hear(found: Ledger, key: str, value: bytes | None) -> None:
    try:
        mirror, topic, *rest = key.split("/")
        if not rest:
            found.copies.pop(topic, None)
            if value:
                found.copies[topic] = msgspec.json.decode(value, type=Copy)
            return
        partition, *number = rest
        partitions = found.partitions.setdefault(mirror, {})
        kept = partitions.setdefault(TopicPartition(topic, int(partition)), Kept())
        if not number:
            kept.record = msgspec.json.decode(value, type=PartitionRecord) if value else None
        elif value is None:
            kept.chunks.pop(int(number[0]), None)
        else:
            kept.chunks[int(number[0])] = msgspec.json.decode(value, type=list[Break])
    except (ValueError, *UNREADABLE) as error:
        log_event.warning("what a mirror keeps cannot be understood", key=key, error=str(error))
