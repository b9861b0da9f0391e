"""What a publisher publishes: rows that a region is to have, counted by revision.

Next on the data's way: `publish`.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple, Protocol

from transom.model.records import Record
from transom.runtime.signals import Level


class Changes(NamedTuple):
    """Rows changed since a revision, oldest change first, each in its newest state; all up to `upto`.

    `more`: there may be others after `upto`. `known` is for a source whose rows are made of something else
    after it was written: what canaries may say, because everything up to it is in these rows or earlier
    ones; None means `upto`, 0 that nothing newer can be said yet.
    """

    records: list[Record]
    upto: int
    more: bool
    known: int | None = None


class Source(Protocol):
    """Rows that a region is to have. Revisions are counted within an `epoch` of the source's storage."""

    @property
    def changed(self) -> Level:
        """Rises whenever `changes` may have more to say."""
        ...

    @property
    def epoch(self) -> int:
        """The incarnation of the source's storage."""
        ...

    async def revision(self) -> int:
        """The newest revision of the source's storage."""
        ...

    async def begin_epoch(self, above: int) -> None:
        """Become a new incarnation, above the epoch `above`: the storage was found to be an older copy of
        itself.
        """
        ...

    async def changes(self, after: int, most: int, *, every_lane: bool = False) -> Changes:
        """Up to `most` rows changed after revision `after`, deleted ones as delete markers.

        No more than fit into one append: about 4 MiB. A source that is one lane of several leaves out what
        goes by another, except when a new link is filled (`every_lane`). It may hold back rows beyond some
        revision; then `upto` stays below it.
        """
        ...

    def rows(self) -> AsyncIterator[Sequence[Record]]:
        """Every live row of every lane in its newest state, in pages.

        Not from one moment: what changes meanwhile is seen before or after, or not (a new row).
        """
        ...

    async def changed_since(self, keys: Collection[str], revision: int) -> set[str]:
        """Which of `keys` were changed or deleted after `revision`, held back or not."""
        ...
