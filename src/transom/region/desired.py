"""The desired table, and who must hear which of its rows changed.

A table says only that something changed. An agent with ten thousand rows would have to read all of them for
one; so each agent has an inbox here, which holds the newest record of every key that changed since it
looked. Next on the data's way: `agent`.
"""

from collections.abc import Mapping, Sequence

from transom.logs.protocol import TopicPartition
from transom.model.records import Record
from transom.region.forwarding import ForwardingTable
from transom.runtime.signals import Level
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


class DesiredTable(ForwardingTable):
    """A table that tells each inbox what changed."""

    def __init__(self, inner: Table) -> None:
        super().__init__(inner)
        self._inboxes: list[Inbox] = []

    def inbox(self) -> Inbox:
        """A new inbox; it hears of everything applied from now on, until `close_inbox`."""
        inbox = Inbox()
        self._inboxes.append(inbox)
        return inbox

    def close_inbox(self, inbox: Inbox) -> None:
        """`inbox` hears nothing any more."""
        self._inboxes.remove(inbox)

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`."""
        changed = await self.inner.apply(records, positions)
        if changed:
            for inbox in self._inboxes:
                inbox.put(changed)
        return changed
