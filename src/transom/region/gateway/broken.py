"""A table that could not be opened, in its place: the gateway starts, says what is wrong, and answers 503.

The damaged file is left as it is, for whoever wants to look at it: move it away and start the gateway again,
and it is filled anew.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from transom.logs.protocol import TopicPartition
from transom.model.errors import Advice, TransomError
from transom.model.records import Record
from transom.runtime.signals import Level
from transom.tables.digests import Digest


class UnreadableTableError(TransomError):
    """A table's file cannot be read: move it away and start the gateway again, and it is filled anew."""

    advice = Advice.RETRY


class BrokenTable:
    """`Table` whose every call raises why it could not be opened."""

    def __init__(self, why: str) -> None:
        self.changed = Level()
        self.why = why

    def _fail(self) -> NoReturn:
        raise UnreadableTableError(self.why)

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """Raises `UnreadableTableError`."""
        del records, positions
        self._fail()

    async def positions(self) -> Mapping[TopicPartition, int]:
        """Raises `UnreadableTableError`."""
        self._fail()

    async def get(self, key: str) -> Record | None:
        """Raises `UnreadableTableError`."""
        del key
        self._fail()

    async def scan(self, prefix: str = "") -> list[Record]:
        """Raises `UnreadableTableError`."""
        del prefix
        self._fail()

    async def count(self) -> int:
        """Raises `UnreadableTableError`."""
        self._fail()

    async def latest(self) -> Record | None:
        """Raises `UnreadableTableError`."""
        self._fail()

    async def digest(self) -> Digest:
        """Raises `UnreadableTableError`."""
        self._fail()

    async def in_buckets(self, buckets: Collection[int]) -> list[Record]:
        """Raises `UnreadableTableError`."""
        del buckets
        self._fail()

    async def close(self) -> None:
        """Nothing to let go of."""
