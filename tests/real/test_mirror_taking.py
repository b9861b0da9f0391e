"""Taking a shard: where partitions go on is found whenever the former owner died, and is kept as a whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from client_parts import append, new_topic

import kafka_batches
from engines.kafka import Brokers
from engines.process import free_port
from mirror_batches import batch_bytes, record
from mirror_loads import make_topic
from mirror_world import emptied
from transom.links.kafka import shard as taking
from transom.links.kafka.lane import Lane, Outcome
from transom.links.kafka.ledger import MAP_TOPIC, read_ledger
from transom.links.kafka.mirroring import MAP
from transom.links.kafka.producing import produce
from transom.links.kafka.resuming import Policy, Skip
from transom.links.kafka.shard import Copied, Ends, Shard, shard_of, take_shard
from transom.links.kafka.topic_plan import Copy
from transom.logs import kafka_cluster
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_bounds import LATEST, list_offsets
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition
from transom.model.errors import UnreachableError
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

AT = TopicPartition("taken", 0)
SHARD = shard_of(AT)


class Mirror:
    """One partition of one cluster, mirrored within it, step by step."""

    def __init__(self, brokers: Brokers, cluster: KafkaCluster) -> None:
        self.brokers, self.cluster = brokers, cluster
        self.ends = Ends("taking", cluster, cluster, SystemClock())
        self.copied: list[Copied] = []
        self.shard: Shard | None = None

    async def look(self, copy: str = "copy") -> None:
        ids = {name: each.topic_id for name, each in (await self.cluster.layouts(["taken", copy])).items()}
        self.copied = [Copied("taken", copy, ids["taken"], ids[copy], 1)]

    async def take(self, skip: Skip | None = None) -> Lane:
        """Take the shard as another process would, when this one has died."""
        skips = {AT: skip} if skip else {}
        self.shard = await take_shard(SHARD, self.ends, self.copied, Policy(), skips)
        return self.shard.lanes[AT]

    async def send(self, lane: Lane) -> None:
        """Send the next batch."""
        assert self.shard is not None
        sent = lane.take(self.shard.producer, join=False)
        leader = await self.cluster.leader(*lane.target)
        told = (await produce(self.cluster, leader, [(lane.target, sent.data)], 1))[lane.target]
        assert told.error == 0
        lane.answered(sent, Outcome.WRITTEN, told.base)

    async def keep(self) -> None:
        assert self.shard is not None
        await self.shard.keep()


@asynccontextmanager
async def opened(brokers: Brokers) -> AsyncIterator[KafkaCluster]:
    address, clock, randomness = f"kafka://{brokers.bootstrap}", SystemClock(), Randomness(1)
    log = KafkaLog(address, clock, randomness)
    cluster = KafkaCluster(parse_address(address), clock, randomness)
    try:
        await log.create([MAP])
        yield cluster
    finally:
        await log.close()
        await cluster.close()


@pytest.fixture
async def mirror(brokers: Brokers, far_brokers: Brokers) -> AsyncIterator[Mirror]:
    async with emptied(brokers, far_brokers), opened(brokers) as cluster:
        for topic in ("taken", "copy"):
            await new_topic(brokers.bootstrap, topic)
        await append(brokers.bootstrap, "taken", *(b"%d" % number for number in range(9)))
        made = Mirror(brokers, cluster)
        await made.look()
        yield made


def fetched(lane: Lane, *runs: tuple[int, ...]) -> None:
    # As the broker has it: nobody but its first leader has written.
    data = b"".join(batch_bytes([record(offset) for offset in run], epoch=0) for run in runs)
    lane.fetched(memoryview(bytearray(data)), [])


@pytest.mark.parametrize("died_taking", [0, 1, 2])
async def test_a_break_that_was_kept_and_never_reached_hides_no_record(mirror: Mirror, died_taking: int):
    lane = await mirror.take()
    fetched(lane, (0, 1), (3,), (6,))
    await mirror.keep()
    await mirror.send(lane)
    for _ in range(died_taking):
        await taking._fence(SHARD, mirror.ends, [lane.target])
    lane = await mirror.take()
    assert lane.stopped is None
    assert 2 <= lane.fetch_at <= 3  # at 2 there is no record
    fetched(lane, (3,), (6,))
    await mirror.keep()
    await mirror.send(lane)
    lane = await mirror.take()
    assert 4 <= lane.fetch_at <= 6


async def test_nothing_written_at_all_is_begun_anew(mirror: Mirror):
    lane = await mirror.take()
    fetched(lane, (0,), (2,), (4,))
    await mirror.keep()
    for _ in range(3):
        assert (await mirror.take()).fetch_at == 0


async def test_strangers_are_seen_again_until_somebody_says_where_to_go_on(mirror: Mirror):
    lane = await mirror.take()
    fetched(lane, (0, 1))
    await mirror.keep()
    await mirror.send(lane)
    await append(mirror.brokers.bootstrap, "copy", b"a stranger's")
    for _ in range(3):
        lane = await mirror.take()
        assert lane.stopped is not None
        assert "somebody else" in lane.stopped.why
    lane = await mirror.take(Skip("order 1", 2))
    assert (lane.stopped, lane.fetch_at) == (None, 2)
    lane = await mirror.take(Skip("order 1", 2))  # which was carried out
    assert (lane.stopped, lane.fetch_at) == (None, 2)


async def test_what_is_kept_at_the_same_time_is_all_kept(mirror: Mirror):
    lane = await mirror.take()
    fetched(lane, (0,), (2,))
    assert mirror.shard is not None
    copies = {f"copy{number}": Copy("taking", "taken") for number in range(3)}
    await asyncio.gather(
        mirror.shard.keep(), *(mirror.shard.keep_copies({name: copy}) for name, copy in copies.items())
    )
    kept = await read_ledger(mirror.cluster, [SHARD], 1)
    assert kept.partitions["taking"][AT].chunks[0] == lane.map.breaks
    assert set(kept.copies) == set(copies)


async def test_where_a_partition_begins_is_kept_in_one_batch_with_what_became_of_it(mirror: Mirror):
    await mirror.take()
    (written,) = [
        batch for batch in kafka_batches.batches(mirror.brokers, MAP_TOPIC, SHARD) if not batch.control
    ]
    assert written.count == 2


async def test_marks_that_the_target_cleaned_away_are_not_taken_for_records(mirror: Mirror):
    """Those who died taking a compacted copy left marks, of which the cleaner removed all but the newest."""
    settings = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.0",
        "delete.retention.ms": "1",
    }
    await asyncio.to_thread(make_topic, mirror.brokers.bootstrap, "compacted", 1, settings)
    await mirror.look("compacted")
    lane = await mirror.take()
    fetched(lane, (0, 1))
    await mirror.keep()
    await mirror.send(lane)
    async with asyncio.timeout(60):
        while min((at for at in _marks(mirror) if at > lane.written), default=0) < lane.written + 3:
            await taking._fence(SHARD, mirror.ends, [lane.target])
            await asyncio.sleep(0.2)
    lane = await mirror.take()
    assert (lane.stopped, lane.fetch_at) == (None, 2)


async def test_who_cannot_reach_the_source_leaves_no_marks(mirror: Mirror, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_cluster, "_PATIENCE_SECONDS", 2.0)
    copy = mirror.copied[0].target
    before = await list_offsets(mirror.cluster, [TopicPartition(copy, 0)], LATEST)
    address = f"127.0.0.1:{free_port()}"
    away = KafkaCluster(parse_address(f"kafka://{address}"), SystemClock(), Randomness(1))
    with pytest.raises(UnreachableError, match=address):
        await take_shard(SHARD, mirror.ends._replace(source=away), mirror.copied, Policy(), {})
    await away.close()
    assert await list_offsets(mirror.cluster, [TopicPartition(copy, 0)], LATEST) == before


def _marks(mirror: Mirror) -> list[int]:
    """Where marks stand in the compacted copy."""
    return [
        batch.base_offset for batch in kafka_batches.batches(mirror.brokers, "compacted", 0) if batch.control
    ]
