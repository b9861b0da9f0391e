"""A PostgreSQL database, looked at before anything is written to it, and brought to this release's tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psycopg.errors import Error, InsufficientPrivilege
from sqlalchemy import Connection, text

from transom.hub.store_address import PostgresAddress, postgres_address
from transom.hub.store_engine import Watcher
from transom.hub.store_migrate import check_known, migrate
from transom.hub.store_postgres import READING, WRITING, Link, PostgresServer, PostgresTransactions
from transom.hub.store_postgres_errors import GRANT, to_change, words_of
from transom.hub.store_postgres_watch import PostgresWatch
from transom.hub.store_schema import HEAD
from transom.model.errors import InvalidError, Problem, UnreachableError
from transom.runtime.secret_files import read_secret

_OLDEST = 15
_MIGRATING = 0x7472616E736F6D  # "transom"; the lock that one process at a time migrates under

_LOOK = """
    SELECT current_setting('server_encoding'),
        pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
        current_schema(), to_regclass('alembic_version') IS NOT NULL AND to_regclass('counter') IS NOT NULL,
        EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = current_schema())
"""


class PostgresDatabase:
    """The database at `address`, as `store_engine.Database`. `password` gives the user's, if it has one."""

    def __init__(self, address: PostgresAddress, password: Callable[[], str] | None = None) -> None:
        self._server = PostgresServer(address, password)
        self._address = address

    is_shared = True

    def __str__(self) -> str:
        return f"store {self._address}"

    def prepare(self, epoch: int) -> None:
        """See `Database.prepare`."""
        try:
            with self._server.connect(bounded=False) as link:
                held = self._held_revision(link)
        except Error as error:
            words = words_of(error)
            if advice := to_change(words):
                raise self._wrong(f"{words}; {advice}") from None
            raise UnreachableError(f"{self} cannot be reached: {words}") from None
        if held != HEAD:
            self._migrate(epoch)

    def writer(self) -> PostgresTransactions:
        """See `Database.writer`."""
        return PostgresTransactions(self._server, WRITING)

    def reader(self) -> PostgresTransactions:
        """See `Database.reader`."""
        return PostgresTransactions(self._server, READING)

    def watch(self, watcher: Watcher) -> PostgresWatch:
        """See `Database.watch`."""
        return PostgresWatch(self._server, watcher)

    def _held_revision(self, link: Link) -> str | None:
        """The migration the database is at; None for an empty one. Raises `InvalidError` for any other."""
        version = link.info.server_version // 10_000
        if version < _OLDEST:
            raise self._wrong(f"is PostgreSQL {version}; {_OLDEST} or newer is needed")
        found = link.execute(_LOOK).fetchone()
        encoding, read_only, schema, ours, used = found or ("", False, None, False, False)
        if encoding != "UTF8":
            raise self._wrong(f"is encoded as {encoding}; make one with 'createdb --encoding=UTF8'")
        if read_only:
            raise self._wrong("is a standby, or set to be read only; name the server that can be written to")
        if schema is None:
            raise self._wrong(f"has no schema that this user may use; {GRANT}")
        if not ours:
            if used:
                raise self._wrong("is some other program's database; make one for transom alone")
            return None
        try:
            row = link.execute("SELECT version_num FROM alembic_version").fetchone()
        except InsufficientPrivilege as error:
            raise self._wrong(f"{words_of(error)}; {GRANT}") from None
        return str(row[0]) if row else None

    def _migrate(self, epoch: int) -> None:
        def work(db: Connection) -> None:
            db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            link: Any = db.connection.driver_connection
            held = self._held_revision(link)  # now: somebody may have migrated meanwhile
            if held is not None:
                check_known(str(self), held)
            if held != HEAD:
                migrate(db, epoch)

        migrating = PostgresTransactions(self._server, WRITING, bounded=False)
        try:
            migrating.run(work)
        except UnreachableError as error:
            if isinstance(getattr(error.__cause__, "orig", None), InsufficientPrivilege):
                raise self._wrong(str(error)) from None
            raise
        finally:
            migrating.close()

    def _wrong(self, what: str) -> InvalidError:
        return InvalidError(str(self), [Problem("", what)])


def postgres_database(url: str, password_file: Path | None, trust: Path | None) -> PostgresDatabase:
    """The database at `url`. Raises `InvalidError` for an address or a password file that cannot be used."""
    address = postgres_address(url, trust)
    if password_file is None:
        return PostgresDatabase(address)
    read_secret(password_file)
    return PostgresDatabase(address, lambda: read_secret(password_file))
