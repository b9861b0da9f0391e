"""The store in a SQLite file: its pragmas, its migrations, its errors. Next: `store_engine` names engines."""

import contextlib
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import StaticPool

from transom.hub.store_migrate import check_known, migrate
from transom.hub.store_schema import HEAD
from transom.model.errors import InvalidError, Problem, StorageFullError, UnreachableError

T = TypeVar("T")

_BUSY_SECONDS = 10.0


class SqliteDatabase:
    """The file at `path`, as `store_engine.Database`. One process uses it at a time: nobody else wakes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    is_shared = False

    def __str__(self) -> str:
        return f"store {self.path}"

    def prepare(self, epoch: int) -> None:
        """See `Database.prepare`. A new file has mode 0600."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        held = self._held_revision()
        if held == HEAD:
            return
        if held is not None:
            check_known(str(self), held)
        self.path.touch(mode=0o600)
        writer = self.writer()
        try:
            writer.run(lambda db: migrate(db, epoch))
        finally:
            writer.close()

    def writer(self) -> "SqliteTransactions":
        """See `Database.writer`."""
        return SqliteTransactions(self.path, "BEGIN IMMEDIATE")

    def reader(self) -> "SqliteTransactions":
        """See `Database.reader`."""
        return SqliteTransactions(self.path, "BEGIN")

    def watch(self, watcher: object) -> None:
        """See `Database.watch`."""

    def _held_revision(self) -> str | None:
        """The migration the file is at, read without changing anything; None for no file or an empty one."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return None
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
                tables = {
                    name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
                }
                if "alembic_version" not in tables:
                    raise InvalidError(str(self), [Problem("", "is some other program's database")])
                row = db.execute("SELECT version_num FROM alembic_version").fetchone()
                return str(row[0]) if row else None
        except sqlite3.DatabaseError as error:
            raise InvalidError(str(self), [Problem("", f"is not a transom store ({error})")]) from None


class SqliteTransactions:
    """One connection to the file, as `store_engine.Transactions`; `begin` is how its transactions begin."""

    def __init__(self, path: Path, begin: str) -> None:
        self.engine = _engine(path, begin)

    def run(self, work: Callable[[Connection], T]) -> T:
        """See `Transactions.run`."""
        with _translated(), self.engine.begin() as db:
            return work(db)

    def close(self) -> None:
        """See `Transactions.close`."""
        self.engine.dispose()


def _engine(path: Path, begin: str) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        # One thread uses it at a time; closing may be another's.
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": _BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql(begin)

    return engine


@contextlib.contextmanager
def _translated() -> Generator[None]:
    """Turn the database's errors into ours."""
    try:
        yield
    except OperationalError as error:
        cause = error.orig
        if isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageFullError("the disk of the hub's store is full; free some room") from error
        raise UnreachableError(f"the hub's store cannot be used now: {cause}") from error
    except DatabaseError as error:
        raise UnreachableError(f"the hub's store failed: {error.orig}") from error
