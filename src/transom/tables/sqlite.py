"""A table in an SQLite file beside the process that reads it.

Rows and positions change in one transaction. `synchronous=NORMAL`: power loss may take the last
transactions, whole ones, and the log brings them again from the position that was lost with them.

Keys come in no order. Kept in the order of their keys, a million rows are touched all over by every batch, a
page for almost each row; so they stand in the order in which they came, and only the index by `place_of`,
some twenty bytes a row, is touched all over.

Whoever only reads has a connection and a thread of its own, opened when it is first needed: one for what
looks at many rows (a sweep of a million takes seconds), one for single rows. So a get waits neither for a
sweep nor for an apply, and a sweep for nobody.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from transom.logs.protocol import TopicPartition
from transom.model.errors import InvalidError, NewerDataError, Problem, StorageFullError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.signals import Level
from transom.runtime.steps import step
from transom.runtime.threads import SerialThread
from transom.tables.core import newest
from transom.tables.digests import MARK, Digest, digest_of, first_place, place_of

T = TypeVar("T")

APPLICATION_ID = 0x7472_7462
SCHEMA_VERSION = 2
_CACHE_KIB = 64 * 1024
_CHECKPOINT_PAGES = 8000
"""Every batch of a fill changes most pages of the index; one that is changed again before it is checkpointed
is written once."""

_SCHEMA = """
CREATE TABLE rows (
    id      INTEGER PRIMARY KEY,
    place   INTEGER NOT NULL,
    key     TEXT NOT NULL,
    epoch   INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    origin  TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    value   BLOB NOT NULL
) STRICT;

CREATE INDEX rows_by_place ON rows (place);

CREATE TABLE positions (
    topic          TEXT NOT NULL,
    partition      INTEGER NOT NULL,
    next_offset    INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
"""

_COLUMNS = "key, epoch, counter, origin, value, deleted"
_NO_MARK = f"key NOT GLOB '{MARK}*'"
_LIVE = f"SELECT {_COLUMNS} FROM rows WHERE deleted = 0"  # noqa: S608  # constants only
_FIND = f"SELECT {_COLUMNS} FROM rows WHERE place = ? AND key = ?"  # noqa: S608
# One question for all: asking for each alone costs more than everything else that is done with a new row.
_HELD = f"SELECT id, {_COLUMNS} FROM rows WHERE place IN (SELECT value FROM json_each(?))"  # noqa: S608
# The upper bound comes as bytes: 0xFF stands in no UTF-8 text, so no key with the prefix lies above it.
_SCAN = f"{_LIVE} AND key >= ? AND key < CAST(? AS TEXT) ORDER BY key"
_ALL = f"{_LIVE} AND {_NO_MARK}"
_BUCKET = f"{_ALL} AND place >= ? AND place < ?"
_COUNT = f"SELECT count(*) FROM rows WHERE deleted = 0 AND {_NO_MARK}"  # noqa: S608
_LATEST = f"""SELECT {_COLUMNS} FROM rows WHERE {_NO_MARK}
ORDER BY epoch DESC, counter DESC, origin DESC LIMIT 1"""  # noqa: S608
# Without an id it is a new row, with one it takes the place of the row that has it.
_PUT = f"INSERT OR REPLACE INTO rows (id, place, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_MOVE = """
INSERT INTO positions (topic, partition, next_offset) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)
"""
_POSITIONS = "SELECT topic, partition, next_offset FROM positions"

_FULL = "the disk of this table is full; free some room"


class SqliteTable:
    """Keeps the promises of `tables.protocol.Table` in one file, used by one process."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: SerialThread) -> None:
        self.changed = Level()
        self._db = connection
        self._thread = thread
        self._count: int | None = None
        """Live rows, once somebody has asked; changed on the table's thread only."""
        self._latest: Record | None = None
        """The newest row, once somebody has asked: rows never go, so only a newer one takes its place."""
        self._single = _Reading(path, "single rows")
        self._many = _Reading(path, "many rows")

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the table in `path`, made there when missing (mode 0600).

        Raises `NewerDataError` when a newer release wrote it, `InvalidError` when it is not a table.
        """
        thread = SerialThread(f"table {path.name}")
        try:
            return cls(path, await thread.run(_open, path), thread)
        except BaseException:
            await thread.close()
            raise

    async def apply(
        self, records: Sequence[Record], positions: Mapping[TopicPartition, int]
    ) -> Sequence[Record]:
        """See `Table.apply`."""
        winners = await self._thread.run(self._apply, records, positions)
        if winners or positions:
            self.changed.rise()
        return winners

    async def positions(self) -> Mapping[TopicPartition, int]:
        """See `Table.positions`."""
        return await self._single.run(_positions)

    async def get(self, key: str) -> Record | None:
        """See `Table.get`."""
        return await self._single.run(lambda db: _one(db.execute(_FIND, (place_of(key), key))))

    async def scan(self, prefix: str = "") -> list[Record]:
        """See `Table.scan`."""
        return await self._many.run(lambda db: list(_scan(db, prefix)))

    async def latest(self) -> Record | None:
        """See `Table.latest`. The first asking looks at every row."""
        return await self._thread.run(self._newest)

    async def count(self) -> int:
        """See `Table.count`. The first asking counts, about a second for a million rows."""
        return await self._thread.run(self._counted)

    async def digest(self) -> Digest:
        """See `Table.digest`."""
        return await self._many.run(_digest)

    async def in_buckets(self, buckets: Collection[int]) -> list[Record]:
        """See `Table.in_buckets`."""
        wanted = set(buckets)
        return await self._many.run(lambda db: [row for bucket in wanted for row in _bucket(db, bucket)])

    async def close(self) -> None:
        """See `Table.close`."""
        await self._single.close()
        await self._many.close()
        await self._thread.run(self._db.close)
        await self._thread.close()

    def _apply(self, records: Sequence[Record], positions: Mapping[TopicPartition, int]) -> list[Record]:
        places = {row.key: place_of(row.key) for row in records}
        ids: dict[str, int] = {}
        before: dict[str, Record] = {}

        def write() -> list[Record]:
            for number, *held in self._db.execute(_HELD, (str(list(places.values())),)):
                row = _record(held)
                ids[row.key], before[row.key] = number, row
            winners = list(newest(records, before.get).values())
            puts = [
                (ids.get(row.key), places[row.key], row.key, *row.version, row.value, row.deleted)
                for row in winners
            ]
            self._db.executemany(_PUT, puts)
            self._db.executemany(_MOVE, [(*partition, offset) for partition, offset in positions.items()])
            step("table.applying")
            return winners

        winners = self._transaction("BEGIN IMMEDIATE", write)
        step("table.applied")
        if self._count is not None:
            self._count += sum(_counts(row) - _counts(before.get(row.key)) for row in winners)
        if self._latest is not None:
            rows = (row for row in winners if not row.key.startswith(MARK))
            self._latest = max([self._latest, *rows], key=lambda row: row.version)
        return winners

    def _newest(self) -> Record | None:
        if self._latest is None:
            self._latest = _one(self._db.execute(_LATEST))
        return self._latest

    def _counted(self) -> int:
        if self._count is None:
            self._count = int(self._db.execute(_COUNT).fetchone()[0])
        return self._count

    def _transaction(self, begin: str, work: Callable[[], T]) -> T:
        self._db.execute(begin)
        try:
            result = work()
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._roll_back()
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StorageFullError(_FULL) from error
            raise
        except BaseException:
            self._roll_back()
            raise
        return result

    def _roll_back(self) -> None:
        # SQLite itself rolls back on some errors (a full disk among them).
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


class _Reading:
    """A read-only connection on a thread of its own, both made when they are first used."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._name = f"{what} of table {path.name}"
        self._thread: SerialThread | None = None
        self._db: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one snapshot of the table."""
        if self._thread is None:
            self._thread = SerialThread(self._name)
        return await self._thread.run(self._on_snapshot, work)

    async def close(self) -> None:
        """Let go of the file; what runs is finished first."""
        if self._thread is not None:
            await self._thread.run(self._let_go)
            await self._thread.close()

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()

    def _on_snapshot(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            db = self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")
        try:
            return work(db)
        finally:
            db.execute("ROLLBACK")


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    # The connection is used by one thread at a time; `close` may come from another.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _claim(db, path)
    except sqlite3.DatabaseError as error:
        db.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageFullError(_FULL) from error
        raise InvalidError(f"table {path}", [Problem("", f"is not a transom table ({error})")]) from None
    except BaseException:
        db.close()
        raise
    return db


def _claim(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (objects,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and objects:
        raise InvalidError(f"table {path}", [Problem("", "is some other program's database")])
    if version > SCHEMA_VERSION:
        raise NewerDataError(f"table {path} has schema {version}; this release knows up to {SCHEMA_VERSION}")
    if objects and version < SCHEMA_VERSION:
        wrong = f"has the layout {version} of before 0.1; move it away, and it is filled anew from the log"
        raise InvalidError(f"table {path}", [Problem("", wrong)])
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    if not objects:
        db.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; {_SCHEMA} COMMIT;"
        )


def _positions(db: sqlite3.Connection) -> dict[TopicPartition, int]:
    rows: Iterator[tuple[str, int, int]] = iter(db.execute(_POSITIONS))
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


def _scan(db: sqlite3.Connection, prefix: str = "") -> Iterator[Record]:
    if not prefix:
        return map(_record, db.execute(f"{_ALL} ORDER BY key"))
    return map(_record, db.execute(_SCAN, (prefix, prefix.encode() + b"\xff")))


def _bucket(db: sqlite3.Connection, bucket: int) -> Iterator[Record]:
    return map(_record, db.execute(_BUCKET, (first_place(bucket), first_place(bucket + 1))))


def _digest(db: sqlite3.Connection) -> Digest:
    return Digest(_positions(db), digest_of(map(_record, db.execute(_ALL))))


def _counts(row: Record | None) -> int:
    return int(row is not None and not row.deleted and not row.key.startswith(MARK))


def _record(row: Sequence[Any]) -> Record:
    key, epoch, counter, origin, value, deleted = row
    return Record(key, Version(epoch, counter, origin), value, bool(deleted))


def _one(cursor: Any) -> Record | None:
    row = cursor.fetchone()
    return None if row is None else _record(row)
