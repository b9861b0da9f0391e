"""The desired table, and who must hear which of its rows changed.

A table says only that something changed. An agent with ten thousand rows would have to read all of them for
one; so each agent has an inbox here, which holds the newest record of every key that changed since it
looked. Next on the data's way: `agent`.
"""

from collections.abc import Collection, Mapping, Sequence

from transom.logs.protocol import TopicPartition
from transom.model.records import Record
from transom.runtime.signals import Level
from transom.tables.digests import Digest
from transom.tables.protocol import Table


class Inbox:
    """Changed records, one a key: bounded by the number of keys, however often they change."""

    def __init__(self) -> None:
        self.filled = Level()
        self._records: dict[str, Record] = {}

    def put(self, records: Sequence[Record]) -> None:
        """Add what changed."""
        self._records.update((record.key, record) for record in records)
        self.filled.rise()

    def take(self) -> Sequence[Record]:
        """Take out everything."""
        taken, self._records = self._records, {}
        return list(taken.values())


class DesiredTable:
    """A table that tells each inbox what changed. All else is the inner table's."""

    def __init__(self, inner: Table) -> None:
        self.inner = inner
        self.changed = inner.changed
        self._inboxes: list[Inbox] = []

    def inbox(self) -> Inbox:
        """A new inbox; it hears of everything applied from now on."""
        inbox = Inbox()
        self._inboxes.append(inbox)
        return inbox

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`."""
        changed = await self.inner.apply(records, positions)
        if changed:
            for inbox in self._inboxes:
                inbox.put(changed)
        return changed

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

    async def digest(self) -> Digest:
        """See `Table.digest`."""
        return await self.inner.digest()

    async def in_buckets(self, buckets: Collection[int]) -> list[Record]:
        """See `Table.in_buckets`."""
        return await self.inner.in_buckets(buckets)

    async def close(self) -> None:
        """See `Table.close`."""
        await self.inner.close()
