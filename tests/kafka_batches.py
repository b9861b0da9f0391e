"""The batches of a partition as a broker keeps them on its disk: what no client shows, such as codecs,
control batches, batches that the cleaner emptied, and delete horizons.

The layout is that of the message format v2 (KIP-98, KIP-534).
"""

import contextlib
import struct
from pathlib import Path
from typing import NamedTuple

from engines.kafka import Brokers

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH = 12
"""Bytes of the base offset and of the length, which counts what follows it."""


class Batch(NamedTuple):
    """The header of one batch. `count`: of records in it; `size_bytes`: with its header."""

    base_offset: int
    last_offset: int
    count: int
    size_bytes: int
    codec: str
    log_append_time: bool
    transactional: bool
    control: bool
    delete_horizon: bool
    producer_id: int


def batches(brokers: Brokers, topic: str, partition: int) -> list[Batch]:
    """Every batch of the partition on the first broker that has it, in order."""
    while True:
        # A segment may be gone between the list and the look: the cleaner has put another in its place.
        with contextlib.suppress(FileNotFoundError):
            return [one for segment in _segments(brokers, topic, partition) for one in _of(segment)]


def newest_segment(brokers: Brokers, topic: str, partition: int) -> int:
    """Where the segment begins that is written to, which no cleaner touches."""
    return int(_segments(brokers, topic, partition)[-1].stem)


def _segments(brokers: Brokers, topic: str, partition: int) -> list[Path]:
    for number in range(brokers.count):
        folder = brokers.data(number) / f"{topic}-{partition}"
        if folder.is_dir():
            return sorted(folder.glob("*.log"))
    raise AssertionError(f"no broker has {topic}-{partition}")


def _of(segment: Path) -> list[Batch]:
    data, place, found = segment.read_bytes(), 0, list[Batch]()
    while place + _HEADER.size <= len(data):
        base, length, _, _, _, bits, last, _, _, producer, _, _, count = _HEADER.unpack_from(data, place)
        size = _BEFORE_LENGTH + length
        if place + size > len(data):
            break  # being written
        found.append(
            Batch(
                base,
                base + last,
                count,
                size,
                CODECS[bits & 7],
                log_append_time=bool(bits & 8),
                transactional=bool(bits & 16),
                control=bool(bits & 32),
                delete_horizon=bool(bits & 64),
                producer_id=producer,
            )
        )
        place += size
    return found
