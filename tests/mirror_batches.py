"""Record batches made by hand for tests of the mirror, and what a client reads in them."""

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import strategies as st

from transom.links.kafka import batches, recoding
from transom.links.kafka.batches import Batch, Body
from transom.logs.kafka_produce import Producer

CODECS = (0, 1, 2, 3, 4)
SOURCES_PRODUCER = Producer(4711, 3)
LEADERS_EPOCH = 5
_BASE, _EPOCH, _ATTRIBUTES, _LAST, _COUNT = (0, 8), (12, 4), (21, 2), (23, 4), (57, 4)


Headers = tuple[tuple[str, bytes | None], ...]


class Made(NamedTuple):
    """A record as somebody wrote it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def record(offset: int) -> Made:
    """A record that can be told from all others."""
    return Made(offset, 1_700_000_000_000 + offset, b"k%d" % offset, b"v%d" % offset)


def batch_bytes(
    made: Sequence[Made],
    *,
    codec: int = 0,
    base: int | None = None,
    last: int | None = None,
    attributes: int = 0,
    producer: Producer = SOURCES_PRODUCER,
    max_timestamp: int | None = None,
    epoch: int = LEADERS_EPOCH,
) -> bytes:
    """A batch of the source. `base` and `last` are its first and last offset, where records at its ends are
    gone; `attributes` are set beside the codec.
    """
    base = made[0].offset if base is None else base
    last = made[-1].offset if last is None else last
    first_ms = made[0].timestamp if made else 0
    rows = [_row(each, each.offset - base, each.timestamp - first_ms) for each in made]
    newest = max((each.timestamp for each in made), default=0) if max_timestamp is None else max_timestamp
    data = b"".join(rows)
    packed = recoding._ENCODERS[codec](data) if codec else data
    body = Body(packed, codec | attributes, len(made), first_ms, newest)
    whole = bytearray(batches.stamped(body, producer, 17))
    _put(whole, _BASE, base)
    _put(whole, _EPOCH, epoch)
    _put(whole, _LAST, last - base)
    return bytes(checksummed(whole))


def _row(made: Made, number: int, delta: int) -> bytes:
    """A record by the book (KIP-82, KIP-98), so that nothing here is the mirror's."""
    out = b"\0" + varint(delta) + varint(number) + _nullable(made.key) + _nullable(made.value)
    out += varint(len(made.headers))
    for key, value in made.headers:
        out += _nullable(key.encode()) + _nullable(value)
    return varint(len(out)) + out


def _nullable(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def varint(value: int) -> bytes:
    """A zigzag varint."""
    left = value * 2 if value >= 0 else -value * 2 - 1
    out = bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _put(data: bytearray, place: tuple[int, int], value: int) -> None:
    at, size = place
    data[at : at + size] = value.to_bytes(size, "big", signed=True)


def checksummed(data: bytearray) -> bytearray:
    """`data` with the checksum that belongs to it."""
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return data


def control_bytes(offset: int, producer: Producer, *, commit: bool) -> bytes:
    """The mark at the end of a transaction."""
    key, value = b"\0\0" + int(commit).to_bytes(2, "big"), b"\0\0\0\0\0\0"
    attributes = batches.CONTROL | batches.TRANSACTIONAL
    return batch_bytes([Made(offset, 1, key, value)], attributes=attributes, producer=producer)


def one(data: bytes) -> Batch:
    """The only batch in `data`."""
    (found,) = batches.split(memoryview(bytearray(data)))
    return found


def client_reads(data: bytes) -> list[Made]:
    """What a plain client reads in batches, each checked against its checksum."""
    found: list[Made] = []
    read = MemoryRecords(bytes(data))
    while (batch := read.next_batch()) is not None:
        assert batch.validate_crc()
        if not batch.is_control_batch:
            found += [
                Made(each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in batch
            ]
    return found


def header(data: bytes) -> DefaultRecordBatch:
    """The first batch in `data` as a client sees it."""
    found = MemoryRecords(bytes(data)).next_batch()
    assert found is not None
    return found


_DATA = st.sampled_from((None, b"", b"k", b"a key", bytes(range(256)) * 2))
_HEADERS = st.sampled_from(
    ((), (("", None),), (("trace", b"1"), ("trace", b"")), (("né", b"\xff" * 70), ("n", None)))
)
_TIMES = st.sampled_from((0, 1, 1_700_000_000_000, 1_700_000_000_063, 1 << 45))
_STEPS = st.sampled_from((1, 1, 2, 64, 9000, 1 << 21))
_PARTS = st.tuples(_STEPS, _TIMES, _DATA, _DATA, _HEADERS)


def records_made(*, most: int = 8) -> st.SearchStrategy[list[Made]]:
    """Records as compaction leaves them: offsets rise and have gaps, times are in any order."""
    return st.builds(_made, st.sampled_from((0, 5, 1 << 40)), st.lists(_PARTS, min_size=1, max_size=most))


def _made(offset: int, parts: Sequence[tuple[int, int, bytes | None, bytes | None, Headers]]) -> list[Made]:
    made: list[Made] = []
    for step, *rest in parts:
        offset += step
        made.append(Made(offset, *rest))
    return made
