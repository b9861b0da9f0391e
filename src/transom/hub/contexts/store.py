"""The part of the hub's store that contexts need: rows read by lane and revision, written with progress.

Rows take revisions from the store's one counter, so a context's version compares with everything else.
Reading has connections of its own: one for what is waited for, one for going through everything (sweeps).
Next on the data's way: `rows` shows a region's part to its publishers.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Select, bindparam, func, select, true

from transom.hub.contexts.row import EVERY_REGION, FAST, LANES, Row
from transom.hub.contexts.state import PROGRESS, Scope
from transom.hub.store import Store
from transom.hub.store_counter import locked, move
from transom.hub.store_engine import News, put
from transom.hub.store_portions import Portions
from transom.hub.store_schema import context_state, contexts, counter, resources
from transom.model.names import Key
from transom.model.resources import Resource, from_json
from transom.runtime.signals import Level
from transom.runtime.steps import step
from transom.runtime.threads import SerialThread

T = TypeVar("T")

_KEYS_A_QUERY = 300
_ROWS_BYTES_MAX = 4 * 1024 * 1024
_LOOKED_AT_MAX = 1000
_NO_GATE = (1 << 63) - 1
"""The most that a revision can be."""


class Described(NamedTuple):
    """A resource as it is now, and the revision that last described it; `resource` None: it is gone."""

    key: Key
    resource: Resource | None
    revision: int


class DescribedPage(NamedTuple):
    """Some resources, the revision up to which they are complete, and whether there may be more."""

    items: list[Described]
    upto: int
    more: bool


class RowsPage(NamedTuple):
    """Some rows, the revision up to which they are complete, and whether there may be more."""

    rows: list[Row]
    upto: int
    more: bool


class LiveRow(NamedTuple):
    """A row as a region has it."""

    key: str
    revision: int
    value: bytes


class Written(NamedTuple):
    """The rows as they were written, the store's revision then, and the builder's progress."""

    rows: list[Row]
    revision: int
    progress: int


class ContextStore:
    """Contexts in a hub's store. `changed` has a level a lane, which rises to its newest row's revision.
    `news` rises with every row of the fast lane, and when more can be claimed of the rows there are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.changed: dict[str, Level] = {lane: Level() for lane in LANES}
        self.news = Level()
        self._quick = _Reader(store, "contexts reader")
        self._slow = _Reader(store, "contexts pager")

    async def open(self) -> None:
        """Learn how far each lane is, and from now on what other processes write."""
        self.store.levels.lane_listeners.append(self._rise)
        for lane in LANES:
            self.changed[lane].rise(await self.newest(lane))

    async def close(self) -> None:
        """Let go of the connections."""
        if self._rise in self.store.levels.lane_listeners:
            self.store.levels.lane_listeners.remove(self._rise)
        await self._quick.close()
        await self._slow.close()

    # --- what the builder reads ---

    async def described(self, after: int, kinds: Collection[str], most: int) -> DescribedPage:
        """Resources of `kinds` among the next `most` described after revision `after`, oldest first, those
        that are gone included.
        """
        # Kinds are chosen here: a database that chose them would go through all resources of a kind.
        query = (
            select(resources.c.kind, resources.c.body, resources.c.described_revision, resources.c.deleted)
            .where(resources.c.described_revision > after)
            .order_by(resources.c.described_revision)
            .limit(most)
        )

        def work(db: Connection) -> DescribedPage:
            found = db.execute(query).all()
            items = [_described(*rest) for kind, *rest in found if kind in kinds]
            more = len(found) == most
            return DescribedPage(items, found[-1].described_revision if more else _revision(db), more)

        return await self._quick.run(work)

    async def subjects(self, kind: str, tenant: str, after: Key | None, most: int) -> list[Described]:
        """Resources of a kind (of one tenant, or "" for all), gone ones included, after the key `after`."""
        query = select(resources.c.body, resources.c.described_revision, resources.c.deleted).where(
            resources.c.kind == kind
        )
        if tenant:
            query = query.where(resources.c.namespace == tenant)
        if after is not None:
            # Written out, so that the index is used to its end.
            query = query.where(
                (resources.c.namespace >= after.namespace)
                & ((resources.c.namespace > after.namespace) | (resources.c.name > after.name))
            )
        query = query.order_by(resources.c.namespace, resources.c.name).limit(most)
        return await self._quick.run(lambda db: [_described(*found) for found in db.execute(query)])

    async def existing(self, kind: str, names: Collection[str] | None = None) -> dict[str, Resource]:
        """Resources of a kind that belongs to no tenant, by name; all of them, or those called `names`."""

        def work(db: Connection) -> dict[str, Resource]:
            query = select(resources.c.body).where(resources.c.deleted.is_(False))
            if names is None:
                return _by_name(db, query.where(resources.c.kind == kind))
            keys = [str(Key(kind, "", name)) for name in names]
            found: dict[str, Resource] = {}
            for part in _parts(keys):
                found.update(_by_name(db, query.where(resources.c.key.in_(part))))
            return found

        return await self._quick.run(work)

    async def names(self, kind: str) -> frozenset[str]:
        """The names of all resources of a kind that belongs to no tenant."""
        query = select(resources.c.name).where(resources.c.kind == kind, resources.c.deleted.is_(False))
        return await self._quick.run(lambda db: frozenset(db.execute(query).scalars()))

    async def held(self, subjects: Collection[str], keys: Collection[str]) -> list[Row]:
        """The rows of these subjects, and those with these keys."""

        def work(db: Connection) -> list[Row]:
            found: dict[str, Row] = {}
            for column, values in ((contexts.c.subject, subjects), (contexts.c.key, keys)):
                for part in _parts(list(values)):
                    found.update({row.key: row for row in _rows(db, _ALL.where(column.in_(part)))})
            return list(found.values())

        return await self._quick.run(work)

    async def count(self, scope: Scope, most: int) -> int:
        """How many live contexts a scope has, up to `most`."""
        query = select(contexts.c.kind).where(contexts.c.deleted.is_(False))
        if scope.kind:
            query = query.where(contexts.c.kind == scope.kind)
        if scope.tenant:
            query = query.where(contexts.c.tenant == scope.tenant)
        some = query.limit(most).subquery()
        return await self._quick.run(
            lambda db: db.execute(select(func.count()).select_from(some)).scalar_one()
        )

    async def moving(self, after: int, most: int) -> list[Row]:
        """Rows that regions are still to leave, after revision `after`, oldest first."""
        query = _ALL.where(contexts.c.leaving != "", contexts.c.revision > after)
        query = query.order_by(contexts.c.revision).limit(most)
        return await self._quick.run(lambda db: _rows(db, query))

    async def newest(self, lane: str) -> int:
        """The revision of a lane's newest row; 0 when it has none."""
        query = select(func.max(contexts.c.revision)).where(contexts.c.lane == lane)
        return await self._quick.run(lambda db: db.execute(query).scalar() or 0)

    async def waiting(self, lane: str, after: int, most: int, upto: int | None = None) -> int:
        """How many rows of a lane are newer than `after`, and none newer than `upto`; up to `most`."""
        query = select(contexts.c.key).where(contexts.c.lane == lane, contexts.c.revision > after)
        if upto is not None:
            query = query.where(contexts.c.revision <= upto)
        some = query.limit(most).subquery()
        return await self._quick.run(
            lambda db: db.execute(select(func.count()).select_from(some)).scalar_one()
        )

    async def _count(self, query: Select[Any]) -> int:
        counted = select(func.count()).select_from(query.subquery())
        return await self._quick.run(lambda db: db.execute(counted).scalar_one())

    async def remembered(self, name: str) -> bytes | None:
        """What was last written under this name of `context_state`."""
        query = select(context_state.c.value).where(context_state.c.name == name)
        return await self._quick.run(lambda db: db.execute(query).scalar())

    # --- what the builder writes ---

    async def write(
        self,
        rows: Sequence[Row],
        *,
        upto: int,
        unseen: Collection[str],
        state: Mapping[str, bytes] | None = None,
    ) -> Written:
        """Write rows at new revisions, `state`, and that resources were looked at up to `upto`, in one
        transaction.

        When no resource of the kinds `unseen` was described since `upto`, the progress is the new revision:
        there is nothing up to there that is not in the rows.
        """

        def work(db: Connection) -> Written:
            standing = locked(db, self.store.changed.value)
            written = [
                row._replace(revision=number, added=row.added or number)
                for number, row in enumerate(rows, standing.revision + 1)
            ]
            last = standing.revision + len(rows)
            progress = upto if _described_since(db, upto, unseen) else last
            if written:
                put(db, contexts, [row._asdict() for row in written])
                move(db, standing._replace(revision=last))
            _remember(db, {**(state or {}), PROGRESS: str(progress).encode()})
            return Written(written, last, progress)

        written = await self.store.within(work)
        # In order: each lane's last row is its newest.
        lanes = {row.lane: row.revision for row in written.rows}
        since = written.revision - len(written.rows)
        self.store.levels.committed(News(self.store.epoch, since, written.revision, lanes=lanes))
        self._rise(lanes)
        step("contexts.written")
        return written

    def _rise(self, lanes: Mapping[str, int]) -> None:
        """Wake who waits for rows of these lanes; each is now at that revision."""
        for lane, revision in lanes.items():
            self.changed[lane].rise(revision)
            if lane == FAST:
                self.news.rise()

    async def remember(self, name: str, value: bytes) -> None:
        """Write `value` under a name of `context_state`."""
        await self.store.within(lambda db: _remember(db, {name: value}))

    # --- what publishers read ---

    async def lane_rows(self, lane: str, after: int, most: int, gate: int | None = None) -> RowsPage:
        """Rows of a lane ("" for all) after revision `after`, oldest first, none beyond the `gate`.

        Up to `most` of them, and about 4 MiB. While there are rows beyond the gate they are complete up to
        the gate and no further.
        """
        ends, portions = _asked_of(lane)
        upto = _NO_GATE if gate is None else gate

        def work(db: Connection) -> RowsPage:
            rows: list[Row] = []
            size = 0
            newest, revision = db.execute(ends).one()
            newest = newest or 0
            # Mostly there is nothing, and then nothing more is asked.
            for each in portions.rows(db, after, most if newest > after else 0, upto=upto):
                row = Row._make(each)
                rows.append(row)
                size += len(row.value)
                if size >= _ROWS_BYTES_MAX or len(rows) == most:
                    return RowsPage(rows, row.revision, more=True)
            held_back = gate is not None and newest > gate
            return RowsPage(rows, max(after, gate or 0) if held_back else revision, more=False)

        return await self._quick.run(work)

    async def live_page(self, region: str, after: str, most: int) -> tuple[list[LiveRow], str]:
        """What `region` has among the next `most` live rows after the key `after`, in the order of keys;
        and the last key looked at ("" at the end).
        """
        table = contexts.c
        query = select(table.key, table.revision, table.value, table.regions, table.leaving)
        query = query.where(table.key > after, table.deleted.is_(False)).order_by(table.key).limit(most)
        name = f",{region},"

        def work(db: Connection) -> tuple[list[LiveRow], str]:
            # As `row.told` has it, written out: a sweep asks it of every row there is.
            found = db.execute(query).all()
            mine = [
                LiveRow(key, revision, value)
                for key, revision, value, regions, leaving in found
                if regions == EVERY_REGION or name in regions or name in leaving
            ]
            return mine, found[-1].key if found else ""

        return await self._slow.run(work)

    async def changed_since(self, keys: Collection[str], revision: int) -> set[str]:
        """Which of `keys` were written after `revision`."""
        query = select(contexts.c.key).where(contexts.c.revision > revision)

        def work(db: Connection) -> set[str]:
            found: set[str] = set()
            for part in _parts(list(keys)):
                found.update(db.execute(query.where(contexts.c.key.in_(part))).scalars())
            return found

        return await self._slow.run(work)


@functools.cache
def _asked_of(lane: str) -> tuple[Select[int | None, int], Portions]:
    """Where a lane ("" for all) ends and where the store is; and its rows up to a revision."""
    mine = contexts.c.lane == lane if lane else true()
    ends = select(
        select(func.max(contexts.c.revision)).where(mine).scalar_subquery(),
        select(counter.c.revision).scalar_subquery(),
    )
    return ends, Portions(_ALL.where(mine, contexts.c.revision <= bindparam("upto")), contexts.c.revision)


class _Reader:
    """A connection for reading, on a thread of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self._reads = store.database.reader()
        self._thread = SerialThread(name)

    async def run(self, work: Callable[[Connection], T]) -> T:
        return await self._thread.run(self._reads.run, work)

    async def close(self) -> None:
        await self._thread.close()
        self._reads.close()


_ALL: Select[Any] = select(contexts)


def _rows(db: Connection, query: Select[Any]) -> list[Row]:
    return [Row._make(found) for found in db.execute(query)]


def _revision(db: Connection) -> int:
    return db.execute(select(counter.c.revision)).scalar_one()


def _described(body: bytes, revision: int, deleted: bool) -> Described:  # noqa: FBT001  # a row's columns
    resource = from_json(body)
    return Described(resource.key, None if deleted else resource, revision)


def _described_since(db: Connection, after: int, kinds: Collection[str]) -> bool:
    """Whether a resource of `kinds` was described after a revision, or so much that it is not looked at."""
    query = select(resources.c.kind).where(resources.c.described_revision > after).limit(_LOOKED_AT_MAX)
    found = db.execute(query).scalars().all()
    return len(found) == _LOOKED_AT_MAX or any(kind in kinds for kind in found)


def _by_name(db: Connection, query: Select[Any]) -> dict[str, Resource]:
    return {found.metadata.name: found for found in map(from_json, db.execute(query).scalars())}


def _remember(db: Connection, state: Mapping[str, bytes]) -> None:
    put(db, context_state, [{"name": name, "value": value} for name, value in state.items()])


def _parts(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[at : at + _KEYS_A_QUERY] for at in range(0, len(values), _KEYS_A_QUERY))
