"""Fetching whole batches: one request for many partitions, and the answer's batches as they are.

Version 13 of the request, because it names topics by their ids: a topic that was made anew under the same
name answers with an error, never with another topic's records (KIP-516). Encoded here: what comes back is
many megabytes that nobody needs to copy.
Source: Apache Kafka, `FetchRequest.json`, `FetchResponse.json`. Next on the data's way: `lane`.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from transom.links.kafka.epochs import UNKNOWN
from transom.logs import kafka_api as api
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_stream import Call

_FETCH = Call(key=1, version=13, is_flexible=True)

_HEAD = struct.Struct(">iiiibii")
_PARTITION = struct.Struct(">iiqiqi")
_ANSWER = struct.Struct(">ihi")
_ABOUT = struct.Struct(">ihqqq")
_ABORTED = struct.Struct(">qq")
_ID_BYTES = 16
_NO_TAGS = b"\0"
_DIVERGING_EPOCH = 0
"""The tag of the field that says so; it is left out when nothing diverges."""


class Wanted(NamedTuple):
    """What to fetch: a partition, by its topic's id, from this offset on, this many bytes of it at most.

    With `epoch`, in which the record before was written, it is answered whether that is there (KIP-595).
    """

    topic_id: bytes
    partition: int
    offset: int
    bytes_max: int
    epoch: int = UNKNOWN


class Fetched(NamedTuple):
    """What a broker has of a partition: where it begins and ends (`stable`: to where transactions have
    ended), which transactions (producer id, first offset) were aborted, and the batches; `diverged`: nothing,
    as the record before was written in an epoch that did not come so far.
    """

    topic_id: bytes
    partition: int
    error: int
    high: int
    stable: int
    start: int
    aborted: Sequence[tuple[int, int]]
    records: memoryview
    diverged: bool = False


async def fetch(
    cluster: KafkaCluster,
    node: int,
    wanted: Sequence[Wanted],
    *,
    wait_ms: int,
    bytes_max: int,
    isolation: int = api.READ_COMMITTED,
    lane: int,
) -> list[Fetched]:
    """What broker `node` has of `wanted`, `bytes_max` in all, or a batch more; waits for up to `wait_ms` when
    there is nothing. Raises `TransientError`.
    """
    request = _encoded(wanted, wait_ms, bytes_max, isolation)
    error, found = _decoded(await cluster.stream(node, _FETCH, [request], lane))
    cluster.check(error, "a fetch")
    return found


def _encoded(wanted: Sequence[Wanted], wait_ms: int, bytes_max: int, isolation: int) -> bytes:
    """The request; partitions of a topic that follow one another share its id."""
    topics: list[tuple[bytes, list[Wanted]]] = []
    for each in wanted:
        if not topics or topics[-1][0] != each.topic_id:
            topics.append((each.topic_id, []))
        topics[-1][1].append(each)
    pieces = [_HEAD.pack(-1, wait_ms, 1, bytes_max, isolation, 0, -1), _count(len(topics))]
    for topic_id, partitions in topics:
        pieces += (topic_id, _count(len(partitions)))
        for each in partitions:
            # No leader epoch, as whoever leads may answer; no start: that is for followers.
            pieces.append(_PARTITION.pack(each.partition, -1, each.offset, each.epoch, -1, each.bytes_max))
            pieces.append(_NO_TAGS)
        pieces.append(_NO_TAGS)
    pieces += (_count(0), b"\1", _NO_TAGS)  # no session, so nothing to forget; no rack
    return b"".join(pieces)


def _decoded(held: memoryview) -> tuple[int, list[Fetched]]:
    """The answer: an error for all, and what there is of each partition; batches are not copied."""
    found: list[Fetched] = []
    at = _behind_tags(held, 0)
    _, error, _ = _ANSWER.unpack_from(held, at)
    topics, at = _unsigned(held, at + _ANSWER.size)
    for _ in range(topics - 1):
        topic_id = bytes(held[at : at + _ID_BYTES])
        partitions, at = _unsigned(held, at + _ID_BYTES)
        for _ in range(partitions - 1):
            one, at = _fetched(held, at, topic_id)
            found.append(one)
        at = _behind_tags(held, at)
    return error, found


def _fetched(held: memoryview, at: int, topic_id: bytes) -> tuple[Fetched, int]:
    partition, error, high, stable, start = _ABOUT.unpack_from(held, at)
    count, at = _unsigned(held, at + _ABOUT.size)
    aborted: list[tuple[int, int]] = []
    for _ in range(count - 1):
        aborted.append(_ABORTED.unpack_from(held, at))
        at = _behind_tags(held, at + _ABORTED.size)
    size, at = _unsigned(held, at + 4)  # behind the replica that would be nearer
    end = at + max(0, size - 1)
    tags, behind = _tags(held, end)
    diverged = _DIVERGING_EPOCH in tags
    return Fetched(topic_id, partition, error, high, stable, start, aborted, held[at:end], diverged), behind


def _count(items: int) -> bytes:
    """The length of a compact array."""
    value, encoded = items + 1, bytearray()
    while value > 0x7F:  # noqa: PLR2004
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _unsigned(held: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = held[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, at
        shift += 7


def _behind_tags(held: memoryview, at: int) -> int:
    return _tags(held, at)[1]


def _tags(held: memoryview, at: int) -> tuple[Sequence[int], int]:
    """Which tagged fields there are, and what is behind them."""
    count, at = _unsigned(held, at)
    if not count:
        return (), at
    found: list[int] = []
    for _ in range(count):
        tag, at = _unsigned(held, at)
        size, at = _unsigned(held, at)
        found.append(tag)
        at += size
    return found, at
