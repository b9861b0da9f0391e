"""A shard: the partitions that one process carries at a time, and what it takes to be the only one.

Taking a shard takes its transactional id, so that the brokers know a newer epoch of its producer; then an
empty transaction leaves a mark of that epoch in every copy, and in the ledger. From then on whatever a former
owner sends there is refused, in flight or woken up later (KIP-98), and what is found there is final.
Next on the data's way: `lanes`.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple
from zlib import crc32

import msgspec

from transom.links.kafka import batches
from transom.links.kafka.lane import Lane, Stopped
from transom.links.kafka.ledger import (
    MAP_TOPIC,
    SHARDS,
    Kept,
    PartitionRecord,
    chunk_messages,
    copy_message,
    partition_message,
    read_copies,
    read_ledger,
)
from transom.links.kafka.resuming import Policy, Sight, Skip, resumed, with_deletes
from transom.links.kafka.tail import NO_TAIL, Tail, tails
from transom.links.kafka.topic_plan import Copy
from transom.logs.kafka_bounds import EARLIEST, LATEST, list_offsets
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_epochs import epoch_ends
from transom.logs.kafka_produce import (
    Producer,
    ProducerLostError,
    batch_bytes,
    begin_producer,
    chunks,
    produce,
)
from transom.logs.kafka_transactions import add_partitions, end_transaction
from transom.logs.protocol import SECOND, Message, TopicPartition
from transom.runtime.clock import Clock
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

_LANE_OF_CONNECTION = 1 << 18


class Copied(NamedTuple):
    """A topic that is mirrored: its copy's name, the ids of both, how many partitions, and how long it keeps
    delete markers (infinite: it is not compacted).
    """

    source: str
    target: str
    source_id: str
    target_id: str
    partitions: int
    deletes_kept_seconds: float = inf


class Ends(NamedTuple):
    """The two clusters, and the mirror's name."""

    mirror: str
    source: KafkaCluster
    target: KafkaCluster
    clock: Clock


def transactional_id(mirror: str, number: int) -> str:
    """The id that whoever has a shard holds."""
    return f"transom.mirror.{mirror}.{number}"


def shard_of(at: TopicPartition) -> int:
    """Which shard a partition belongs to."""
    return (crc32(at.topic.encode()) + at.partition) % SHARDS


@dataclass
class Shard:
    """A shard that this process has taken."""

    number: int
    ends: Ends
    producer: Producer
    lanes: dict[TopicPartition, Lane] = field(default_factory=dict[TopicPartition, Lane])
    records: dict[TopicPartition, PartitionRecord] = field(
        default_factory=dict[TopicPartition, PartitionRecord]
    )
    _sequence: int = 0
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _in_doubt: bool = False

    async def keep(self) -> None:
        """Keep what maps of its lanes have not kept yet. Raises `ProducerLostError` when it was taken."""
        unkept = [(lane, lane.version) for lane in self.lanes.values() if lane.unkept]
        await self._write(
            message for lane, _ in unkept for message in (*self._record(lane), *self._map(lane))
        )
        for lane, version in unkept:
            lane.kept(version)

    async def keep_beginnings(self) -> None:
        """Keep where its lanes begin, each with what became of the partition: who finds but one of the two
        passes over a gap, or believes in one that is not there.
        """
        versions = {lane: lane.version for lane in self.lanes.values()}
        await self._write(
            message
            for at, lane in self.lanes.items()
            for message in (*self._map(lane), partition_message(self.ends.mirror, at, self.records[at]))
        )
        for lane, version in versions.items():
            lane.kept(version)

    def _record(self, lane: Lane) -> list[Message]:
        """What is to be kept anew about deletes, and about who wrote what was read."""
        deletes, before = lane.deletes, self.records[lane.source]
        if not (deletes.missing or deletes.outdated) and lane.epochs.known == before.epochs:
            return []
        record = msgspec.structs.replace(
            with_deletes(before, deletes, self.ends.clock.wall()), epochs=lane.epochs.known
        )
        if len(record.gaps) > len(before.gaps):
            log_event.warning(
                "deletes may be missing in a copy",
                topic=lane.source.topic,
                partition=lane.source.partition,
                why=record.gaps[-1].why,
            )
        self.records[lane.source] = record
        return [partition_message(self.ends.mirror, lane.source, record)]

    def _map(self, lane: Lane) -> list[Message]:
        return chunk_messages(self.ends.mirror, lane.source, lane.map.unkept())

    async def keep_copies(self, copies: Mapping[str, Copy]) -> None:
        """Keep whose copies topics of the target are."""
        await self._write(copy_message(name, copy) for name, copy in copies.items())

    async def forget(self, starts: Mapping[TopicPartition, int]) -> None:
        """Forget of the maps what the copies, which begin at `starts`, hold no more."""
        await self._write(
            message
            for at, lane in self.lanes.items()
            if lane.target in starts
            for message in chunk_messages(
                self.ends.mirror, at, {number: [] for number in lane.map.forget(starts[lane.target])}
            )
        )

    async def _write(self, messages: Iterable[Message]) -> None:
        """Append to the ledger: one after another, and nothing behind what may or may not be there, or
        brokers would take the next batch for that one sent again.
        """
        at = TopicPartition(MAP_TOPIC, self.number)
        async with self._writing:
            for run in chunks(messages):
                if self._in_doubt:
                    raise ProducerLostError(f"{at.topic}/{at.partition}: an earlier write may have failed")
                now_ms = int(self.ends.clock.wall() * SECOND)
                batch = batch_bytes(run, self.producer, self._sequence, now_ms, transactional=False)
                self._in_doubt = True
                await produce(self.ends.target, {at: batch})
                self._in_doubt = False
                self._sequence = batches.after(self._sequence, len(run))


async def take_shard(
    number: int,
    ends: Ends,
    copies: Iterable[Copied],
    policy: Policy,
    skips: Mapping[TopicPartition, Skip],
) -> Shard:
    """Take a shard from whoever has it, and find out where its partitions go on.

    Raises `ProducerLostError` when another takes it meanwhile, and what the clusters raise.
    """
    mine = {
        TopicPartition(copy.source, partition): copy
        for copy in copies
        for partition in range(copy.partitions)
        if shard_of(TopicPartition(copy.source, partition)) == number
    }
    targets = {at: TopicPartition(copy.target, at.partition) for at, copy in mine.items()}
    await list_offsets(ends.source, mine, LATEST)  # or each try while the source is away leaves its marks
    shard = Shard(number, ends, await _fence(number, ends, targets.values()))
    step("carry.fenced")
    kept = (await read_ledger(ends.target, [number], _LANE_OF_CONNECTION)).partitions.get(ends.mirror, {})
    sights = await _sights(ends, mine, targets, kept, shard.producer)
    for at, sight in sights.items():
        lane, record = resumed(sight, kept.get(at, Kept()), policy, skips.get(at))
        shard.lanes[at], shard.records[at] = lane, record
    await shard.keep_beginnings()
    await _check_circles(ends, shard)
    step("carry.taken")
    return shard


async def _fence(number: int, ends: Ends, targets: Collection[TopicPartition]) -> Producer:
    """Shut out who had the shard; returns who writes from now on."""
    name = transactional_id(ends.mirror, number)
    # Each is led by now: a transaction that ends in partitions which were just made may take Kafka 30 s.
    await list_offsets(ends.target, targets, EARLIEST)
    marking = await begin_producer(ends.target, name)
    await add_partitions(ends.target, name, marking, [TopicPartition(MAP_TOPIC, number), *targets])
    await end_transaction(ends.target, name, marking, commit=True)
    step("carry.marked")
    # Answered once the transaction has ended everywhere: what is read now is final.
    writing = await begin_producer(ends.target, name)
    if writing != (marking.id, marking.epoch + 1):
        # Another took it between these two, and may be writing: its mark is newer than ours.
        raise ProducerLostError(f"{name}: another process takes the shard, too")
    return writing


async def _sights(
    ends: Ends,
    mine: Mapping[TopicPartition, Copied],
    targets: Mapping[TopicPartition, TopicPartition],
    kept: Mapping[TopicPartition, Kept],
    producer: Producer,
) -> dict[TopicPartition, Sight]:
    """What is seen of each partition."""
    known = {targets[at]: _known(kept.get(at), copy) for at, copy in mine.items()}
    found = await tails(ends.target, known, _LANE_OF_CONNECTION)
    read = {at: each.record.epochs for at, each in kept.items() if each.record and at in mine}
    epochs = await epoch_ends(ends.source, {at: each[-1].number for at, each in read.items() if each})
    starts = await list_offsets(ends.source, mine, EARLIEST)
    stops = await list_offsets(ends.source, mine, LATEST)
    return {
        at: Sight(
            at,
            copy.source_id,
            starts[at],
            stops[at],
            targets[at],
            copy.target_id,
            found[targets[at]],
            producer.id,
            ends.clock.wall(),
            copy.deletes_kept_seconds,
            epochs.get(at),
        )
        for at, copy in mine.items()
    }


def _known(kept: Kept | None, copy: Copied) -> Tail:
    """What was at the copy's end when it was taken before. Its map does not say it: breaks are kept before
    what is in front of them is written, and that may never have been.
    """
    record = kept.record if kept else None
    if record is None or record.target_id != copy.target_id:
        return NO_TAIL
    return record.tail


async def _check_circles(ends: Ends, shard: Shard) -> None:
    """Stop what is a copy at the source itself, whatever it is called: looked up after this mirror has said
    what its own copies are, so of two mirrors in a circle at least one sees the other.
    """
    copied = await read_copies(ends.source, _LANE_OF_CONNECTION)
    for at, lane in shard.lanes.items():
        if at.topic in copied:
            lane.stopped = Stopped(
                lane.fetch_at,
                f"{at.topic} is a copy, which mirror {copied[at.topic].mirror!r} makes; mirror the original",
            )
