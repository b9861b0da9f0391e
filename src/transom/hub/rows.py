"""What each region is to have, as rows for its publisher. Next on the data's way: `links.publish`."""

from collections.abc import AsyncIterator, Collection, Sequence

from transom.hub.store import Store
from transom.hub.store_reads import RegionRow, RegionRows
from transom.links.source import Changes
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.version import Version
from transom.runtime.signals import Level

ORIGIN = "hub"

_PAGE = 2000


class DesiredRows:
    """The resources of one region, without their status, as `links.source.Source`.

    A row's version is (the store's epoch, the revision that last described it, "hub"): a status coming back
    from the region does not make the row new.
    """

    def __init__(self, store: Store, region: str) -> None:
        self.changed: Level = store.changed_for(region)
        self._store = store
        self._region = region

    @property
    def epoch(self) -> int:
        """See `Source.epoch`."""
        return self._store.epoch

    async def revision(self) -> int:
        """See `Source.revision`."""
        return self._store.changed.value

    async def begin_epoch(self, above: int) -> None:
        """See `Source.begin_epoch`."""
        await self._store.begin_epoch(above)

    async def changes(self, after: int, most: int, *, every_lane: bool = False) -> Changes:  # noqa: ARG002
        """See `Source.changes`. There is one lane."""
        rows, upto, more = await self._store.region_rows(self._region, after, most)
        return Changes([self._record(row) for row in rows], upto, more)

    async def rows(self) -> AsyncIterator[Sequence[Record]]:
        """See `Source.rows`."""
        async for page in self._pages(0):
            yield [self._record(row) for row in page.rows if not row.deleted]

    async def changed_since(self, keys: Collection[str], revision: int) -> set[str]:
        """See `Source.changed_since`."""
        wanted = set(keys)
        found: set[str] = set()
        async for page in self._pages(revision):
            found.update(key for row in page.rows if (key := str(row.resource.key)) in wanted)
        return found

    async def _pages(self, after: int) -> AsyncIterator[RegionRows]:
        while True:
            page = await self._store.region_rows(self._region, after, _PAGE)
            yield page
            if not page.more:
                return
            after = page.upto

    def _record(self, row: RegionRow) -> Record:
        version = Version(self._store.epoch, row.revision, ORIGIN)
        return Record(str(row.resource.key), version, to_json(row.resource.desired()), row.deleted)
