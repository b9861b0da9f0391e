"""One batch out of several, or out of one that cannot go on as it is: records are numbered anew, their keys,
values and headers are never looked into.

Needed where compaction took records out of a batch, where the source's broker gave the times
(LogAppendTime), where a road begins in the middle of a batch, and where many small batches are better one.
Source: Apache Kafka, `DefaultRecord`, `DefaultRecordBatch` (varints are zigzag). Next on the data's way:
`lane`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aiokafka import codec

from transom.links.kafka.batches import (
    CODEC,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    BadBatchError,
    Batch,
    Body,
)

_PLAIN = 0
_NO_TIMESTAMP, _TIMESTAMPS = -1, 1 << 63

_DECODERS: dict[int, Callable[[bytes], bytes]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}
_ENCODERS: dict[int, Callable[[bytes], bytes]] = {
    1: lambda data: codec.gzip_encode(data, compresslevel=6),
    2: codec.snappy_encode,
    3: codec.lz4_encode,
    4: codec.zstd_encode,
}


class Record(NamedTuple):
    """A record of a batch: its offset, its time, and the rest of it as bytes."""

    offset: int
    timestamp: int
    rest: bytes


def records(batch: Batch, start: int = 0) -> Iterator[Record]:
    """The records of `batch` at or behind the offset `start`. Raises `BadBatchError`."""
    data = _unpacked(batch)
    appended = bool(batch.attributes & LOG_APPEND_TIME)
    at, before = 0, -1
    try:
        for _ in range(batch.size):
            length, at = _varint(data, at)
            end = at + length
            delta, ahead = _varint(data, at + 1)  # behind the attributes, of which there are none yet
            number, ahead = _varint(data, ahead)
            if end > len(data) or ahead > end:
                raise BadBatchError("has a record that is longer than the batch")
            if not before < number <= batch.last_delta:
                raise BadBatchError("has a record whose offset is not its own")
            timestamp = batch.max_timestamp if appended else batch.base_timestamp + delta
            if not _NO_TIMESTAMP <= timestamp < _TIMESTAMPS:
                raise BadBatchError("has a record of a time that there is not")
            if batch.base + number >= start:
                yield Record(batch.base + number, timestamp, data[ahead:end])
            at, before = end, number
    except IndexError:
        raise BadBatchError("ends in the middle of a record") from None
    if at != len(data):
        raise BadBatchError("holds more than the records that it counts")


def joined(found: Sequence[Record], attributes: int) -> Body:
    """`found` as one body, compressed by the codec in `attributes`; at least one record."""
    base = found[0].timestamp
    pieces: list[bytes] = []
    for number, (_, timestamp, rest) in enumerate(found):
        head = b"\0" + _zigzag(timestamp - base) + _zigzag(number)
        pieces += (_zigzag(len(head) + len(rest)), head, rest)
    data = b"".join(pieces)
    kind = attributes & CODEC
    return Body(
        _ENCODERS[kind](data) if kind else data,
        kind,
        len(found),
        base,
        max(record.timestamp for record in found),
    )


def joined_bytes(batch: Batch) -> int:
    """About how many bytes `batch` adds to one that it is joined to."""
    return len(batch.data) - HEADER_BYTES + 4 * batch.size


def _unpacked(batch: Batch) -> bytes:
    kind = batch.attributes & CODEC
    if kind == _PLAIN:
        return bytes(batch.payload)
    decode = _DECODERS.get(kind)
    if decode is None:
        raise BadBatchError(f"is compressed by codec {kind}, which nobody knows")
    try:
        return decode(bytes(batch.payload))
    except Exception as error:  # noqa: BLE001  # each codec has its own
        raise BadBatchError(f"cannot be decompressed: {error}") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:  # noqa: PLR2004  # one byte, as most are
        return (byte >> 1) ^ -(byte & 1), at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _encoded(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = 1 << 13
_ENCODED = [_encoded(value) for value in range(_SMALL)]


def _zigzag(value: int) -> bytes:
    return _ENCODED[value] if 0 <= value < _SMALL else _encoded(value)
