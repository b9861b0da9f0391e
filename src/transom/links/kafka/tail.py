"""Where partitions begin and end, and what stands at their end: the last record, or marks behind it.

Whoever takes a partition over leaves a mark of a transaction there, which has an offset and is no record. How
far the copy reaches is told by what is before such marks. Next on the data's way: `shard`.
"""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from transom.links.kafka import batches
from transom.links.kafka.fetching import Fetched, Wanted, fetch
from transom.logs import kafka_api as api
from transom.logs.kafka_bounds import LATEST, list_offsets
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition

_BATCH_BYTES = 2 << 20
_ANSWER_BYTES = 8 << 20


class Tail(NamedTuple):
    """The end of a partition, the offset behind its last record, and whose number the batch has that holds
    it (None: there is none to be seen).
    """

    end: int
    records_end: int
    writer: int | None


NO_TAIL = Tail(0, 0, None)


async def tails(
    cluster: KafkaCluster, known: Mapping[TopicPartition, Tail], lane: int
) -> dict[TopicPartition, Tail]:
    """The tails of the partitions in `known`, which says what they were once: what is behind is looked at."""
    ends = await list_offsets(cluster, known, LATEST)
    looking = {at: end - 1 for at, end in ends.items()}
    found: dict[TopicPartition, Tail] = {}

    async def attempt() -> None:
        while True:
            for at in [at for at, offset in looking.items() if offset < known[at].records_end]:
                found[at] = Tail(ends[at], looking.pop(at) + 1, known[at].writer)
            if not looking:
                return
            for node, mine in (await cluster.by_leader(looking)).items():
                for at, before in await _look(cluster, node, {at: looking[at] for at in mine}, lane):
                    if isinstance(before, int):
                        looking[at] = before
                    else:
                        del looking[at]
                        found[at] = before._replace(end=ends[at])

    await cluster.retrying("show what stands at the end of partitions", attempt)
    return found


async def _look(
    cluster: KafkaCluster, node: int, places: Mapping[TopicPartition, int], lane: int
) -> list[tuple[TopicPartition, Tail | int]]:
    """What stands at these offsets, as far as there was room in the answer."""
    ids = {UUID((await cluster.layout(at.topic)).topic_id).bytes: at.topic for at in places}
    names = {topic: topic_id for topic_id, topic in ids.items()}
    wanted = [Wanted(names[at.topic], at.partition, offset, _BATCH_BYTES) for at, offset in places.items()]
    found: list[tuple[TopicPartition, Tail | int]] = []
    for told in await fetch(
        cluster, node, wanted, wait_ms=0, bytes_max=_ANSWER_BYTES, isolation=api.READ_UNCOMMITTED, lane=lane
    ):
        at = TopicPartition(ids[told.topic_id], told.partition)
        if told.error not in (api.NONE, api.OFFSET_OUT_OF_RANGE):
            cluster.check(told.error, f"{at.topic}/{at.partition}")
        before = _before(told, places[at])
        if before is not None:
            found.append((at, before))
    return found


def _before(told: Fetched, offset: int) -> Tail | int | None:
    """What stands at `offset`: a record, or a mark, and then where to look next; None: ask again."""
    if told.error:
        return Tail(0, offset + 1, None)  # what was there is gone
    batch = next(batches.split(told.records), None)
    if batch is None:
        return None  # there was no room for it in the answer
    if batch.is_control and batch.base <= offset:
        return batch.base - 1
    return Tail(0, offset + 1, None if batch.base > offset else batch.producer_id)
