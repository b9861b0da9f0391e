"""Digests by bucket: 32 KiB that tell whether two tables agree, and where they do not.

A key belongs to one of 1,024 buckets; a bucket's digest is the sum, modulo 2^256, of the fingerprints of its
live records, so it does not depend on their order (AdHash: Bellare and Micciancio, 1997). Delete markers do
not count: how long they are kept is each side's own affair. Nor do marks: records whose keys begin with "~"
belong to the road, not to what travels on it, and no source has them. Fingerprints are taken from the bytes
that are stored, so a table that rotted on disk does not agree.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from transom.logs.protocol import TopicPartition
from transom.model.records import Record

BUCKETS = 1024
MARK = "~"
"""What the keys of marks begin with."""
_DIGEST_BYTES = 32
_PLACE_BITS = 32
_MODULUS = 1 << (8 * _DIGEST_BYTES)


class Digest(msgspec.Struct, frozen=True):
    """One digest a bucket, and the positions (next offsets) at which the table had them."""

    positions: dict[TopicPartition, int]
    buckets: list[bytes]


class Sums:
    """Digests in the making, record by record: what they take does not depend on how many there are."""

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        """How many records of each bucket were added."""
        self._sums = [0] * BUCKETS

    def add(self, record: Record) -> None:
        """Add a record; delete markers and marks count for nothing."""
        if record.deleted or record.key.startswith(MARK):
            return
        bucket = bucket_of(record.key)
        self.counts[bucket] += 1
        # Far below what a number can hold; the modulus is taken once, at the end.
        self._sums[bucket] += int.from_bytes(record.fingerprint(), "big")

    def digests(self) -> list[bytes]:
        """The digests of all buckets."""
        return [(value % _MODULUS).to_bytes(_DIGEST_BYTES, "big") for value in self._sums]


def bucket_of(key: str) -> int:
    """The bucket of a key."""
    return place_of(key) >> _PLACE_BITS


def place_of(key: str) -> int:
    """A number of 42 bits that tells keys apart as well as any: its bucket, then 32 bits of its hash."""
    hashed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return (hashed >> _PLACE_BITS) % BUCKETS << _PLACE_BITS | hashed % (1 << _PLACE_BITS)


def first_place(bucket: int) -> int:
    """The lowest `place_of` that a key in `bucket` may have."""
    return bucket << _PLACE_BITS


def digest_of(records: Iterable[Record]) -> list[bytes]:
    """The digests of all buckets."""
    sums = Sums()
    for record in records:
        sums.add(record)
    return sums.digests()


def summary_of(digests: Sequence[bytes]) -> bytes:
    """32 bytes that differ when any bucket's digest does."""
    return hashlib.sha256(b"".join(digests)).digest()


def differing(left: Sequence[bytes], right: Sequence[bytes]) -> list[int]:
    """The buckets in which two digests differ."""
    return [bucket for bucket in range(BUCKETS) if left[bucket] != right[bucket]]
