"""What each region is to have, as rows for its publisher. Next on the data's way: `links.publish`."""

from transom.hub.store import RegionRow, Store
from transom.links.publish import Changes, Snapshot
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.version import Version
from transom.runtime.signals import Level

ORIGIN = "hub"

_SNAPSHOT_BATCH = 2000


class DesiredRows:
    """The resources of one region, without their status, as `links.publish.Source`.

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

    async def changes(self, after: int, most: int) -> Changes:
        """See `Source.changes`."""
        rows, upto, more = await self._store.region_rows(self._region, after, most)
        return Changes([self._record(row) for row in rows], upto, more)

    async def snapshot(self) -> Snapshot:
        """See `Source.snapshot`."""
        newest: dict[str, Record] = {}
        after = 0
        while True:
            rows, after, more = await self._store.region_rows(self._region, after, _SNAPSHOT_BATCH)
            newest.update((record.key, record) for record in map(self._record, rows))
            if not more:
                return Snapshot([record for record in newest.values() if not record.deleted], after)

    def _record(self, row: RegionRow) -> Record:
        version = Version(self._store.epoch, row.revision, ORIGIN)
        return Record(str(row.resource.key), version, to_json(row.resource.desired()), row.deleted)
