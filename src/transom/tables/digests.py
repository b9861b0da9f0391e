"""Digests by bucket: 32 KiB that tell whether two tables agree, and where they do not.

A key belongs to one of 1,024 buckets; a bucket's digest is the sum, modulo 2^256, of the fingerprints of its
live records, so it does not depend on their order (AdHash: Bellare and Micciancio, 1997). Delete markers do
not count: how long they are kept is each side's own affair. Fingerprints are taken from the bytes that are
stored, so a table that rotted on disk does not agree.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from transom.logs.protocol import TopicPartition
from transom.model.records import Record

BUCKETS = 1024
_DIGEST_BYTES = 32
_MODULUS = 1 << (8 * _DIGEST_BYTES)


class Digest(msgspec.Struct, frozen=True):
    """One digest a bucket, and the positions (next offsets) at which the table had them."""

    positions: dict[TopicPartition, int]
    buckets: list[bytes]


def bucket_of(key: str) -> int:
    """The bucket of a key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % BUCKETS


def digest_of(records: Iterable[Record]) -> list[bytes]:
    """The digests of all buckets."""
    sums = [0] * BUCKETS
    for record in records:
        if not record.deleted:
            bucket = bucket_of(record.key)
            sums[bucket] = (sums[bucket] + int.from_bytes(record.fingerprint(), "big")) % _MODULUS
    return [value.to_bytes(_DIGEST_BYTES, "big") for value in sums]


def differing(left: list[bytes], right: list[bytes]) -> list[int]:
    """The buckets in which two digests differ."""
    return [bucket for bucket in range(BUCKETS) if left[bucket] != right[bucket]]
