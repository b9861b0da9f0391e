"""What the store needs of a database, and what engines spell differently. Next on the data's way: `store`.

`store_sqlite` and `store_postgres` know one engine each. Whoever has a `Database` writes the same SQLAlchemy
code for both; inserting or replacing a row (`put`) and finding bytes within bytes (`contains`) are all that
engines spell differently.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Executable, Table, func
from sqlalchemy.dialects import postgresql, sqlite

from transom.hub.store_sqlite import SqliteDatabase
from transom.model.errors import InvalidError, Problem

T = TypeVar("T")


class Transactions(Protocol):
    """A connection to the database, used by one thread at a time; made anew by itself when it breaks."""

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction, and commit it.

        `work` may be done twice: a connection that broke before the commit was asked for has left nothing.
        Raises what `work` raises, then nothing was committed; `StorageFullError`; `UnreachableError`, also
        when the connection broke at the commit, and then it may or may not have happened.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class News(NamedTuple):
    """What was committed after revision `since`, up to `revision`, in the incarnation `epoch`.

    `kinds` and `regions` are those of which anything was described anew, `lanes` the newest revision of each
    lane of contexts that got rows.
    """

    epoch: int
    since: int
    revision: int
    kinds: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    lanes: Mapping[str, int] = {}


class Watcher(Protocol):
    """Who wants to know what other processes commit. All is called on the watch's own thread."""

    def known(self) -> int:
        """The revision up to which it knows all that was described."""
        ...

    def learn(self, news: News) -> None:
        """What there is after that; when nothing is, this is said, too."""
        ...


class Watch(Protocol):
    """Hears of commits by other processes, and tells them of this one's."""

    def ring(self) -> None:
        """This process has committed something. Never waits."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class Database(Protocol):
    """Where a store is. `str` names it for messages, without any secret. `is_shared`: several processes may
    use it at once.
    """

    is_shared: bool

    def prepare(self, epoch: int) -> None:
        """Bring it to this release's tables; `epoch` is for a new one. Several processes may do it at once.

        Raises `NewerDataError` when a newer release wrote it (it stays untouched), `InvalidError` when it is
        not a store or cannot be one, `UnreachableError` when it is away.
        """
        ...

    def writer(self) -> Transactions:
        """Transactions that write."""
        ...

    def reader(self) -> Transactions:
        """Transactions that read, each of which sees one revision."""
        ...

    def watch(self, watcher: Watcher) -> Watch | None:
        """Begin to tell `watcher` of other processes' commits; None where there are no other processes."""
        ...


def engine_of(where: Path | Database) -> Database:
    """The database that `where` is: itself, or the SQLite file of that path."""
    return SqliteDatabase(where) if isinstance(where, Path) else where


def named_database(url: str, default: Path, password_file: Path | None, trust: Path | None) -> Database:
    """The database that configuration names; when it names none, the SQLite file `default`.

    Raises `InvalidError` for an address or a password file that cannot be used.
    """
    if not url:
        return SqliteDatabase(default)
    try:
        from transom.hub.store_postgres_setup import postgres_database  # noqa: PLC0415  # an extra
    except ImportError as error:
        wrong = f"PostgreSQL needs a driver ({error}); pip install 'transom[postgres]'"
        raise InvalidError("store", [Problem("", wrong)]) from None
    return postgres_database(url, password_file, trust)


def put(db: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write whole rows, each in the place of the one with the same primary key. No key is in there twice."""
    db.execute(_putting(table, db.dialect.name), rows)


def put_missing(db: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write whole rows, but for those whose primary key is there already."""
    db.execute(_dialect(db.dialect.name).insert(table).on_conflict_do_nothing(), rows)


def contains(db: Connection, column: Column[bytes], part: bytes) -> ColumnElement[bool]:
    """Whether the bytes in `column` contain `part`."""
    # PostgreSQL's `position(part IN column)` is this function underneath.
    find = func.pg_catalog.position if db.dialect.name == "postgresql" else func.instr
    return find(column, part) > 0


@functools.cache
def _putting(table: Table, dialect: str) -> Executable:
    insert = _dialect(dialect).insert(table)
    return insert.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={column.name: insert.excluded[column.name] for column in table.c if not column.primary_key},
    )


def is_storable(text: str) -> bool:
    """Whether every database takes it: whole characters, and in PostgreSQL no NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _dialect(name: str) -> Any:
    return postgresql if name == "postgresql" else sqlite
