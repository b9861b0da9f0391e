"""Opening the store's database: its URL, its pragmas, its migrations. Next on the data's way: `store`."""

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import StaticPool

from transom.hub.store_schema import HEAD, counter
from transom.model.errors import InvalidError, NewerDataError, Problem, StorageFullError, UnreachableError

_BUSY_SECONDS = 10.0


def sqlite_engine(path: Path, begin: str) -> Engine:
    """An engine with one connection to the file; `begin` is how its transactions begin."""
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


def prepare(path: Path, epoch: int) -> None:
    """Bring the database in `path` to this release's tables; `epoch` is for a new one (mode 0600).

    Raises `NewerDataError` when a newer release wrote it (it stays untouched), `InvalidError` when it is
    not a store.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = _held_revision(path)
    if held == HEAD:
        return
    if held is not None and held not in _known_revisions():
        raise NewerDataError(
            f"store {path} is at migration {held!r}, which this release does not know (it knows {HEAD}); "
            "start the release that wrote it, or a newer one"
        )
    path.touch(mode=0o600)
    _migrate(path, epoch)


def _held_revision(path: Path) -> str | None:
    """The migration the file is at, read without changing anything; None for no file or an empty one."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            if "alembic_version" not in names:
                raise InvalidError(f"store {path}", [Problem("", "is some other program's database")])
            row = db.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None
    except sqlite3.DatabaseError as error:
        raise InvalidError(f"store {path}", [Problem("", f"is not a transom store ({error})")]) from None


def _migrate(path: Path, epoch: int) -> None:
    from alembic import command  # noqa: PLC0415  # slow to load, and seldom needed

    engine = sqlite_engine(path, "BEGIN IMMEDIATE")
    try:
        with translated(), engine.begin() as connection:
            config = _alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if connection.execute(select(counter.c.id)).first() is None:
                connection.execute(insert(counter).values(id=1, epoch=epoch, revision=0, pruned_revision=0))
    finally:
        engine.dispose()


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}


def _alembic() -> Any:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@contextlib.contextmanager
def translated() -> Generator[None]:
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
