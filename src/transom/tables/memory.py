"""A table in memory: for tests, for simulations, and the model that others are tested against."""

from collections.abc import Collection, Mapping, Sequence

from transom.logs.protocol import TopicPartition
from transom.model.records import Record
from transom.runtime.signals import Level
from transom.tables.core import newest
from transom.tables.digests import MARK, Digest, bucket_of, digest_of


class MemoryTable:
    """Keeps the promises of `tables.protocol.Table` for as long as the process lives."""

    def __init__(self) -> None:
        self.changed = Level()
        self._rows: dict[str, Record] = {}
        self._positions: dict[TopicPartition, int] = {}

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`."""
        winners = newest(records, self._rows.get)
        self._rows.update(winners)
        for partition, offset in positions.items():
            self._positions[partition] = max(offset, self._positions.get(partition, 0))
        if winners or positions:
            self.changed.rise()
        return list(winners.values())

    async def positions(self) -> Mapping[TopicPartition, int]:
        """See `Table.positions`."""
        return dict(self._positions)

    async def get(self, key: str) -> Record | None:
        """See `Table.get`."""
        return self._rows.get(key)

    async def scan(self, prefix: str = "") -> list[Record]:
        """See `Table.scan`."""
        return [
            row
            for key, row in sorted(self._rows.items())
            if key.startswith(prefix) and not row.deleted and (prefix or not key.startswith(MARK))
        ]

    async def latest(self) -> Record | None:
        """See `Table.latest`."""
        rows = (row for key, row in self._rows.items() if not key.startswith(MARK))
        return max(rows, key=lambda row: row.version, default=None)

    async def count(self) -> int:
        """See `Table.count`."""
        return len(await self.scan())

    async def digest(self) -> Digest:
        """See `Table.digest`."""
        return Digest(dict(self._positions), digest_of(self._rows.values()))

    async def in_buckets(self, buckets: Collection[int]) -> list[Record]:
        """See `Table.in_buckets`."""
        return [row for row in await self.scan() if bucket_of(row.key) in buckets]

    async def close(self) -> None:
        """Nothing to let go of."""
