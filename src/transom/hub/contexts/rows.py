"""What each region is to know, as rows for its publishers: one source a lane. Next: `links.publish`."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence

from transom.hub.contexts.row import BULK, FAST, NOTHING, Row, Told, told
from transom.hub.contexts.store import ContextStore
from transom.hub.rows import ORIGIN
from transom.links.source import Changes
from transom.model.contexts import DELETED
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.signals import Level

_PAGE = 2000


class ContextRows:
    """The contexts of one region in one lane, as `links.source.Source`.

    `known` is the builder's claim (`ContextBuilder.known`). The bulk lane ends at the gate, but not while a
    link is filled: a region that has nothing yet has nothing to lose.
    """

    def __init__(self, contexts: ContextStore, region: str, lane: str, known: Callable[[], int]) -> None:
        self._contexts = contexts
        self._region = region
        self._lane = lane
        self._known = known
        self._gate: int | None = None
        # The level of a gated lane rises no higher than its gate: nobody is woken for what may not go.
        self.changed: Level = contexts.news if lane == FAST else Level()

    @property
    def epoch(self) -> int:
        """See `Source.epoch`."""
        return self._contexts.store.epoch

    @property
    def gate(self) -> int | None:
        """The revision up to which it goes; None when there is no gate."""
        return self._gate

    def open_to(self, gate: int | None) -> None:
        """Set the gate, and wake the publisher for what it lets through. Call it for new rows, too."""
        self._gate = gate
        newest = self._contexts.changed[BULK].value
        self.changed.rise(newest if gate is None else min(newest, gate))

    async def revision(self) -> int:
        """See `Source.revision`."""
        return self._contexts.store.changed.value

    async def begin_epoch(self, above: int) -> None:
        """See `Source.begin_epoch`."""
        await self._contexts.store.begin_epoch(above)

    async def changes(self, after: int, most: int, *, every_lane: bool = False) -> Changes:
        """See `Source.changes`."""
        # Asked before the rows are read: what is known now is in them.
        known = self._known()
        if every_lane:
            page = await self._contexts.lane_rows("", after, most)
        else:
            page = await self._contexts.lane_rows(self._lane, after, most, self._gate)
        records = [record for row in page.rows if (record := self._record(row)) is not None]
        if self._lane == BULK:
            return Changes(records, page.upto, page.more)
        return Changes(records, page.upto, page.more, known=0 if page.more else known)

    async def rows(self) -> AsyncIterator[Sequence[Record]]:
        """See `Source.rows`."""
        page, after = await self._contexts.live_page(self._region, "", _PAGE)
        while after:
            epoch = self.epoch
            yield [Record(key, Version(epoch, at, ORIGIN), value) for key, at, value in page]
            page, after = await self._contexts.live_page(self._region, after, _PAGE)

    async def changed_since(self, keys: Collection[str], revision: int) -> set[str]:
        """See `Source.changed_since`."""
        return await self._contexts.changed_since(keys, revision)

    def _record(self, row: Row) -> Record | None:
        """The record for the region; None when the row is none of its business."""
        what = told(row, self._region)
        if what is None:
            return None
        version = Version(self.epoch, row.revision, ORIGIN)
        if what is Told.MARKER:
            return Record(row.key, version, DELETED if row.deleted else NOTHING, deleted=True)
        return Record(row.key, version, row.value)
