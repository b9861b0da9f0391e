"""Record batches as brokers store them (magic 2), without looking at their records.

A batch begins with 61 bytes that say who wrote it, where it begins, how many records follow and how they are
compressed; a checksum covers all from the attributes on. Whoever passes a batch on puts a producer's number
into these bytes and leaves the rest alone.
Source: Apache Kafka, `DefaultRecordBatch`; KIP-98; KIP-534 (delete horizon). Next on the data's way: `lane`,
and for batches that cannot go on as they are `recoding`.
"""

import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

from crc32c import crc32c

from transom.logs.kafka_produce import Producer

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH = struct.Struct(">qi")
_CRC = struct.Struct(">I")
HEADER_BYTES = _HEADER.size
_LENGTH_BYTES = _LENGTH.size
_CRC_AT = 17
_CHECKED_FROM = 21
_MAGIC_AT = 16
_MAGIC = 2
_SEQUENCES = 1 << 31

CODEC = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
_KEPT = CODEC
"""The attributes that go on: not whose transaction it was (it is committed), not the time at which the source
would forget a delete marker, which the target decides for itself.
"""


class BadBatchError(Exception):
    """A batch that cannot be passed on: what is wrong with it."""


class Batch(NamedTuple):
    """A record batch of the source: `data` is all of it, the rest is what its header said when it came."""

    data: memoryview
    base: int
    next: int
    """The offset behind its last one."""
    attributes: int
    last_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    size: int
    checksum: int
    epoch: int
    """Of the leader that it was written by."""

    @property
    def is_control(self) -> bool:
        """Whether it ends a transaction and holds no records of anybody."""
        return bool(self.attributes & CONTROL)

    def is_of(self, producers: Container[int]) -> bool:
        """Whether it is part of a transaction of one of them."""
        return bool(self.attributes & TRANSACTIONAL) and self.producer_id in producers

    @property
    def is_whole(self) -> bool:
        """Whether it can go on as it is: no record was taken out of it by compaction, and its records carry
        their own times.
        """
        return self.size == self.last_delta + 1 and not self.attributes & LOG_APPEND_TIME

    @property
    def payload(self) -> memoryview:
        """Its records, compressed as its codec says."""
        return self.data[HEADER_BYTES:]


def split(records: memoryview) -> Iterator[Batch]:
    """The batches in what a broker sent; one that is cut off at the end is left out.

    Raises `BadBatchError` for formats before magic 2.
    """
    at, end = 0, len(records)
    while end - at >= HEADER_BYTES:
        length = _LENGTH.unpack_from(records, at)[1] + _LENGTH_BYTES
        if records[at + _MAGIC_AT] != _MAGIC:
            raise BadBatchError(
                f"is of format {records[at + _MAGIC_AT]}, from before Kafka 0.11; have it written anew"
            )
        if length < HEADER_BYTES:
            raise BadBatchError(
                f"says that it is {length} bytes long, and its header alone is {HEADER_BYTES}"
            )
        if length > end - at:
            return
        base, _, epoch, _, crc, attributes, last, first_ms, last_ms, producer, _, _, count = (
            _HEADER.unpack_from(records, at)
        )
        whole, following = records[at : at + length], base + last + 1
        yield Batch(whole, base, following, attributes, last, first_ms, last_ms, producer, count, crc, epoch)
        at += length


def check(batch: Batch) -> None:
    """Raise `BadBatchError` unless the bytes are those that were checksummed when it was written."""
    if crc32c(batch.data[_CHECKED_FROM:]) != batch.checksum:
        raise BadBatchError("does not match its checksum; it was damaged at the source, or on the way")


class Body(NamedTuple):
    """Records to be written as a batch, but for who writes it."""

    records: bytes
    attributes: int
    size: int
    base_timestamp: int
    max_timestamp: int


def stamped(body: Body, producer: Producer, sequence: int) -> memoryview:
    """`body` as the batch that `producer` writes as its `sequence`-th record to the partition."""
    written = memoryview(bytearray(HEADER_BYTES + len(body.records)))
    written[HEADER_BYTES:] = body.records
    _stamp(written, body, body.attributes, producer, sequence)
    return written


def restamped(batch: Batch, producer: Producer, sequence: int) -> memoryview:
    """`batch`, one that `is_whole`, as `producer` writes it: changed where it lies, its records untouched.

    What was read of its header before still holds for its records.
    """
    _stamp(batch.data, batch, batch.attributes & _KEPT, producer, sequence)
    return batch.data


def _stamp(data: memoryview, held: Body | Batch, attributes: int, producer: Producer, sequence: int) -> None:
    _HEADER.pack_into(
        data,
        0,
        0,
        len(data) - _LENGTH_BYTES,
        -1,
        _MAGIC,
        0,
        attributes,
        held.size - 1,
        held.base_timestamp,
        held.max_timestamp,
        producer.id,
        producer.epoch,
        sequence,
        held.size,
    )
    _CRC.pack_into(data, _CRC_AT, crc32c(data[_CHECKED_FROM:]))


def after(sequence: int, count: int) -> int:
    """The sequence of the record `count` after that of `sequence`: they wrap."""
    return (sequence + count) % _SEQUENCES
