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
_FARTHER = 8


class Tail(NamedTuple):
    """The end of a partition, the offset behind its last record, and whose number the batch has that holds
    it (None: there is none to be seen).
    """

    end: int
    records_end: int
    writer: int | None


NO_TAIL = Tail(0, 0, None)


class _Place(NamedTuple):
    """Where to look for what stands at `upto`, or last before it: from `offset` on. `seen` is the last thing
    found on the way there: a record, or a mark, before which one has to look.
    """

    upto: int
    offset: int
    seen: "Tail | _Place | None" = None


async def tails(
    cluster: KafkaCluster, known: Mapping[TopicPartition, Tail], lane: int
) -> dict[TopicPartition, Tail]:
    """The tails of the partitions in `known`, which says what they were once: what is behind is looked at."""
    ends = await list_offsets(cluster, known, LATEST)
    looking = {at: _Place(end - 1, end - 1) for at, end in ends.items()}
    found: dict[TopicPartition, Tail] = {}

    async def attempt() -> None:
        while True:
            for at in [at for at, place in looking.items() if place.upto < known[at].records_end]:
                found[at] = Tail(ends[at], looking.pop(at).upto + 1, known[at].writer)
            if not looking:
                return
            for node, mine in (await cluster.by_leader(looking)).items():
                places = {at: (looking[at], known[at]) for at in mine}
                for at, before in await _look(cluster, node, places, lane):
                    if isinstance(before, _Place):
                        looking[at] = before
                    else:
                        del looking[at]
                        found[at] = before._replace(end=ends[at])

    await cluster.retrying("show what stands at the end of partitions", attempt)
    return found


async def _look(
    cluster: KafkaCluster, node: int, places: Mapping[TopicPartition, tuple[_Place, Tail]], lane: int
) -> list[tuple[TopicPartition, Tail | _Place]]:
    """What stands at these places, as far as there was room in the answer."""
    ids = {UUID((await cluster.layout(at.topic)).topic_id).bytes: at.topic for at in places}
    names = {topic: topic_id for topic_id, topic in ids.items()}
    wanted = [
        Wanted(names[at.topic], at.partition, place.offset, _BATCH_BYTES) for at, (place, _) in places.items()
    ]
    found: list[tuple[TopicPartition, Tail | _Place]] = []
    for told in await fetch(
        cluster, node, wanted, wait_ms=0, bytes_max=_ANSWER_BYTES, isolation=api.READ_UNCOMMITTED, lane=lane
    ):
        at = TopicPartition(ids[told.topic_id], told.partition)
        if told.error not in (api.NONE, api.OFFSET_OUT_OF_RANGE):
            cluster.check(told.error, f"{at.topic}/{at.partition}", "Read")
        before = _before(told, *places[at])
        if before is not None:
            found.append((at, before))
    return found


def _before(told: Fetched, place: _Place, known: Tail) -> Tail | _Place | None:
    """What stands at `place`: a record, or where to look next; None: ask again."""
    if told.error:
        return Tail(0, place.upto + 1, None)  # what was there is gone
    upto, offset, seen = place
    for batch in batches.split(told.records):
        offset = batch.next
        if batch.base > upto:
            break
        at = batch.base - 1
        seen = _Place(at, at) if batch.is_control else Tail(0, batch.next, batch.producer_id)
    if offset == place.offset:
        return None  # there was no room for anything in the answer
    if offset <= upto:
        return _Place(upto, offset, seen)
    if seen is not None:
        return seen
    # Compaction took what was there: marks most likely, and no record that anybody could still read.
    least = max(known.records_end, told.start)
    if place.offset <= least:
        return Tail(0, least, known.writer if least == known.records_end else None)
    return _Place(upto, max(least, upto + 1 - _FARTHER * (upto + 1 - place.offset)))
