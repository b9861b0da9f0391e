"""What a table promises, whoever keeps it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from transom.logs.protocol import TopicPartition
from transom.model.records import Record
from transom.runtime.signals import Level
from transom.tables.digests import Digest


class Table(Protocol):
    """The newest record of every key, and how far each topic was read.

    It never goes back: neither rows nor positions. Delete markers are kept, so that an older write that
    comes late stays without effect. Records whose keys begin with "~" are marks of the road (canaries): they
    are kept like any other and found by `get`, but are no rows of what the table holds (`tables.digests`).
    """

    changed: Level
    """Rises after every batch that changed a row or a position."""

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """Keep those of `records` that are newer than what is held, and remember `positions` (the next
        offsets to read), in one transaction; returns the records that changed a row.

        Raises `VersionClashError`, `StorageFullError`; then nothing of the batch is kept.
        """
        ...

    async def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset to read of each partition seen."""
        ...

    async def get(self, key: str) -> Record | None:
        """The newest record of `key`: its delete marker when it was deleted, None when it never was."""
        ...

    async def scan(self, prefix: str = "") -> list[Record]:
        """All records whose keys begin with `prefix`, in the order of their keys, without delete markers.

        Marks only if the prefix asks for them.
        """
        ...

    async def latest(self) -> Record | None:
        """The record with the highest version, delete markers included, marks not; None when empty."""
        ...

    async def count(self) -> int:
        """How many live records there are, without marks. Cheap, however many there are."""
        ...

    async def digest(self) -> Digest:
        """The digest of the stored rows, and the positions they stand for, from one snapshot."""
        ...

    async def in_buckets(self, buckets: Collection[int]) -> list[Record]:
        """The live records in these buckets, without marks."""
        ...

    async def close(self) -> None:
        """Let go of files. What was applied stays."""
        ...
