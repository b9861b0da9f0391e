"""The hub's store: resources, their history and the outbox, changed in one transaction each time.

Every write of the hub goes through `write`, one at a time in revision order; many waiting writes share a
commit. Reads come from a connection of their own and never wait for writers.
Next on the data's way: `relay` carries the outbox to the hub's log, `rows` shows a region's part.
"""

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import msgspec
from sqlalchemy import Connection, Executable, bindparam, delete, select, update

from transom.hub import store_history, store_quotas, store_reads
from transom.hub.changes import Change, Held
from transom.hub.store_duties import require
from transom.hub.store_engine import Database, News, engine_of
from transom.hub.store_history import Event
from transom.hub.store_levels import StoreLevels
from transom.hub.store_quotas import Difference
from transom.hub.store_reads import KEYS_A_QUERY, Families, Page, RegionRows, standing
from transom.hub.store_schema import counter, outbox, positions
from transom.hub.store_snapshots import Chosen, Snapshot, StoredChange, changes, snapshot
from transom.hub.store_write import Committed, Job, commit
from transom.logs.protocol import TopicPartition
from transom.model.errors import TransomError
from transom.model.kinds import Catalog
from transom.model.names import Key
from transom.model.resources import Resource, from_json
from transom.runtime import tracing
from transom.runtime.batching import Batcher
from transom.runtime.clock import Clock
from transom.runtime.duties import Lease
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level
from transom.runtime.threads import SerialThread

T = TypeVar("T")

_JOBS_A_COMMIT = 256


class OutboxRow(msgspec.Struct, frozen=True):
    """One event for the hub's log."""

    revision: int
    id: str
    aggregatetype: str
    aggregateid: str
    type: str
    payload: bytes
    traceparent: str


_OUTBOX = (
    select(*(outbox.c[name] for name in OutboxRow.__struct_fields__))
    .where(outbox.c.revision > bindparam("behind"))
    .order_by(outbox.c.revision)
    .limit(bindparam("most"))
)


class Store:
    """One hub's store. `changed` rises to each revision once it is committed, by whichever process."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock, randomness: Randomness) -> None:
        self.catalog = catalog
        self._clock = clock
        self.database = database
        self.levels = StoreLevels()
        self.changed = self.levels.changed
        self._writer_db = database.writer()
        self._reader_db = database.reader()
        self._writer = SerialThread("store writer")
        self._reader = SerialThread("store reader")

        def work(jobs: Sequence[Job]) -> Sequence[Committed | Exception]:
            return commit(self._writer_db, jobs, catalog, clock, randomness, self.changed.value)

        self._commits = Batcher(self._writer, work, _JOBS_A_COMMIT)
        self._gets: Batcher[Key, bytes] = Batcher(
            self._reader,
            lambda keys: self._reader_db.run(partial(store_reads.bodies, keys=keys)),
            KEYS_A_QUERY,
        )
        self.leases: frozenset[Lease] = frozenset()
        self.randomness = randomness

    @classmethod
    async def open(
        cls, where: Path | Database, catalog: Catalog, clock: Clock, randomness: Randomness
    ) -> Self:
        """Open the store in a database, or in a SQLite file; made there when missing.

        Raises what `Database.prepare` raises.
        """
        database = engine_of(where)
        # A new storage counts from 1 again; a later epoch makes all it writes newer than what was lost.
        await asyncio.to_thread(database.prepare, int(clock.wall()))
        store = cls(database, catalog, clock, randomness)
        try:
            store.levels.begin(database, *await store.read(standing))
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def epoch(self) -> int:
        """This storage's incarnation."""
        return self.levels.epoch

    async def close(self) -> None:
        """Finish what was accepted and let go of the database."""
        await self._writer.close()
        await self._reader.close()
        await self.levels.close()
        self._writer_db.close()
        self._reader_db.close()

    def under(self, *leases: Lease) -> Self:
        """The same store for whoever holds `leases`: each write is refused with `FencedError`, where it is
        stored, once another process has taken over one of them.
        """
        same = copy.copy(self)
        same.leases = frozenset(leases)
        return same

    async def confirm(self) -> None:
        """Raise `FencedError` unless the leases that this is `under` still hold."""
        if self.leases:
            await self.within(lambda _: None)

    def changed_for(self, region: str) -> Level:
        """Rises to the revision of each commit that changed what `region` is to have."""
        return self.levels.region(region)

    def described(self, kind: str) -> Level:
        """Rises to the revision of each commit that described a resource of `kind` anew."""
        return self.levels.kind(kind)

    # --- writing ---

    async def write(self, change: Change, *, rehearsed: bool = False) -> Held:
        """Make one change; returns what is held then, None when it is gone. Raises why it was refused.

        What is `rehearsed` is not made, and has no new revision.
        """
        (outcome,) = await self.write_all([change], rehearsed=rehearsed)
        if isinstance(outcome, TransomError):
            raise outcome
        return outcome

    async def write_all(
        self,
        changes: Sequence[Change],
        *,
        reader: str = "",
        offsets: Mapping[TopicPartition, int] | None = None,
        together: bool = False,
        rehearsed: bool = False,
    ) -> list[Held | TransomError]:
        """Make changes in one transaction, each for itself: one that is refused leaves the others alone.

        With `reader` and `offsets`, remember in the same transaction how far the hub's log was read. Those
        made `together` are all made or none of them; of those `rehearsed` none, whatever comes of it.
        """
        at, trace = dict(offsets or {}), tracing.current.get()
        job = Job(tuple(changes), reader, at, self.leases, trace, together, rehearsed)
        committed = await self._commits.submit(job)
        _, since, revision, regions, kinds = committed
        self.levels.committed(News(self.epoch, since, revision, kinds, regions))
        return committed.outcomes

    async def within(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a write transaction: for what is kept beside resources (`hub.contexts.store`).

        Whoever moves the counter in it locks it first (`store_counter.locked`), and calls
        `levels.committed` afterwards. `work` may be done twice, see `Transactions.run`.
        """

        def checked(db: Connection) -> T:
            require(db, self.leases)
            return work(db)

        return await self._writer.run(self._writer_db.run, checked)

    async def begin_epoch(self, above: int) -> None:
        """Become an incarnation above `above`, unless it is one already: all that is published from now on is
        newer than all before, also than what was published in the epoch `above`.
        """
        epoch = max(int(self._clock.wall()), above + 1)

        def work(db: Connection) -> int:
            db.execute(update(counter).where(counter.c.epoch <= above).values(epoch=epoch))
            return standing(db)[0]

        self.levels.epoch = await self.within(work)

    async def standing(self) -> tuple[int, int]:
        """The epoch and the newest revision as the database has them now."""
        return await self.read(standing)

    async def forget_outbox(self, upto: int) -> None:
        """Remove outbox rows up to revision `upto`: the log has them."""
        await self._execute_write(delete(outbox).where(outbox.c.revision <= upto))

    async def prune_history(self, status_before: str, all_before: str) -> None:
        """Forget status changes older than the first time, and everything older than the second (RFC 3339).

        A watch that would need what is gone gets `ExpiredError`.
        """
        await self.within(partial(store_history.prune, status_before=status_before, all_before=all_before))

    # --- reading ---

    async def get(self, key: Key) -> Resource:
        """The newest state. Raises `NotFoundError`."""
        return from_json(await self.stored(key))

    async def stored(self, key: Key) -> bytes:
        """The newest state, as it is stored. Raises `NotFoundError`."""
        self._check_rewound()
        return await self._gets.submit(key)

    async def page(
        self, kind: str, namespace: str = "", *, most: int = 500, after: Key | None = None
    ) -> Page:
        """Resources of a kind, in the order of namespace and name, up to `most` after the key `after`."""
        return await self.read(
            partial(store_reads.page, kind=kind, namespace=namespace, most=most, after=after)
        )

    async def all_of(self, kind: str) -> list[Resource]:
        """Every resource of a kind."""
        return await self.read(partial(store_reads.all_of, kind=kind))

    async def families(self, keys: Sequence[Key], others: Sequence[str], *, at_least: int = 0) -> Families:
        """What is held of `keys`, what was made for them, and all resources of some other kinds.

        Raises `ConflictError` when the store is below `at_least`.
        """
        return await self.read(partial(store_reads.families, keys=keys, others=others, at_least=at_least))

    async def snapshot(
        self, chosen: Chosen, at: int | None, after: Key | None, most: int, *, count: bool = False
    ) -> Snapshot:
        """What was chosen, as of revision `at` (None: now); see `store_snapshots.snapshot`."""
        return await self.read(partial(snapshot, chosen=chosen, at=at, after=after, most=most, count=count))

    async def changes(self, after: int, most: int, chosen: Chosen | None = None) -> list[StoredChange]:
        """Changes after revision `after` as they are stored; see `store_snapshots.changes`."""
        return await self.read(partial(changes, after=after, most=most, chosen=chosen))

    async def events(self, after: int, most: int, kind: str = "", namespace: str = "") -> list[Event]:
        """Changes after revision `after`, in order. Raises `ExpiredError` when some are forgotten already."""
        return await self.read(
            partial(store_history.events, after=after, most=most, kind=kind, namespace=namespace)
        )

    async def history_of(self, key: Key, most: int = 100, before: int = 0) -> list[Event]:
        """The newest changes declared under one key (below revision `before`, if given), newest first."""
        return await self.read(partial(store_history.of_one, key=key, most=most, before=before))

    async def at_generation(self, key: Key, generation: int = 0) -> Event:
        """What made the last state of this generation (0: of all). Raises `NotFoundError`, `InvalidError`."""
        return await self.read(partial(store_history.at_generation, key=key, generation=generation))

    async def quota_differences(self) -> list[Difference]:
        """Where what quotas say is used is not what is there: nowhere, unless somebody else wrote to it."""
        return await self.read(partial(store_quotas.differences, catalog=self.catalog))

    async def outbox(self, after: int, most: int) -> list[OutboxRow]:
        """Up to `most` outbox rows after revision `after`, in revision order."""

        def work(db: Connection) -> list[OutboxRow]:
            return [OutboxRow(*row) for row in db.execute(_OUTBOX, {"behind": after, "most": most})]

        return await self.read(work)

    async def region_rows(self, region: str, after: int, most: int) -> RegionRows:
        """See `store_reads.region_rows`."""
        return await self.read(partial(store_reads.region_rows, region=region, after=after, most=most))

    async def positions_of(self, reader: str) -> dict[TopicPartition, int]:
        """How far `reader` has read the hub's log."""
        query = select(positions.c.topic, positions.c.partition, positions.c.next_offset).where(
            positions.c.reader == reader
        )
        return await self.read(
            lambda db: {TopicPartition(topic, number): offset for topic, number, offset in db.execute(query)}
        )

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a read transaction, which sees one revision."""
        self._check_rewound()
        return await self._reader.run(self._reader_db.run, work)

    def _check_rewound(self) -> None:
        if self.levels.rewound is not None:
            raise self.levels.rewound

    async def _execute_write(self, statement: Executable) -> None:
        def work(db: Connection) -> None:
            db.execute(statement)

        await self.within(work)
