"""A table in front of another, for those who must see what is applied. All else is the inner table's.

Who stands in front: `desired.DesiredTable` (inboxes of the agents), `contexts.table.ContextTable` (the caches
of a gateway), `gateway.instances.InstanceTable`.
"""

from collections.abc import Collection, Mapping, Sequence

from transom.logs.protocol import TopicPartition
from transom.model.records import Record
from transom.tables.digests import Digest
from transom.tables.protocol import Table


class ForwardingTable:
    """`Table` that passes everything on to `inner`."""

    def __init__(self, inner: Table) -> None:
        self.inner = inner
        self.changed = inner.changed

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`."""
        return await self.inner.apply(records, positions)

    async def positions(self) -> Mapping[TopicPartition, int]:
        """See `Table.positions`."""
        return await self.inner.positions()

    async def get(self, key: str) -> Record | None:
        """See `Table.get`."""
        return await self.inner.get(key)

    async def scan(self, prefix: str = "") -> list[Record]:
        """See `Table.scan`."""
        return await self.inner.scan(prefix)

    async def latest(self) -> Record | None:
        """See `Table.latest`."""
        return await self.inner.latest()

    async def count(self) -> int:
        """See `Table.count`."""
        return await self.inner.count()

    async def digest(self) -> Digest:
        """See `Table.digest`."""
        return await self.inner.digest()

    async def in_buckets(self, buckets: Collection[int]) -> list[Record]:
        """See `Table.in_buckets`."""
        return await self.inner.in_buckets(buckets)

    async def close(self) -> None:
        """See `Table.close`."""
        await self.inner.close()
