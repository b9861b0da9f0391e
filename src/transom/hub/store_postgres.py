"""The store in PostgreSQL: connections that come back by themselves, and transactions whose end is known.

Writers run at READ COMMITTED and lock the counter's row first, so each sees all that was committed before it
and none can fail for another's sake. Readers run at REPEATABLE READ: a read sees one revision. A process that
stops answering in the middle of a transaction is cut off by the server (`_FROZEN_SECONDS`) before those who
wait for its lock give up. Next on the data's way: `store_postgres_setup` looks at a database before it is
used, `store_postgres_watch` wakes other processes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import OperationalError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from transom.hub.store_address import PostgresAddress
from transom.hub.store_postgres_errors import our_error
from transom.model.errors import InvalidError, UnreachableError

T = TypeVar("T")

_CONNECT_SECONDS = 5
_FROZEN_SECONDS = 10
_LOCK_SECONDS = 15
_STATEMENT_SECONDS = 30
_ANSWER_SECONDS = 45.0
"""How long an answer may take before the server counts as gone: it ends its statements before that."""
_CUT_OFF_WHILE_IDLE = {"25P03", "25P04"}
"""The server had ended the session for its silence before it heard of the commit."""

_TRIES = 4

_SESSION = {
    "lock_timeout": f"{_LOCK_SECONDS}s",
    "statement_timeout": f"{_STATEMENT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{_FROZEN_SECONDS}s",
    # A machine that lost its power tells nobody; the server asks it, to free what it had locked.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
    "jit": "off",
}
_MIGRATION = {"lock_timeout": "60s", "idle_in_transaction_session_timeout": "60s"}

# A client in the middle of sending is not idle: since 17 a transaction as a whole can be bounded, too.
_WHOLE_TRANSACTIONS = """
    SELECT set_config(name, %s, false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'
"""
# What is acknowledged must be on disk. An even safer setting of the server's stays as it is.
_DURABLE = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


class SilentError(OperationalError):
    """The server holds the connection open but does not answer."""


class Link(psycopg.Connection[Any]):
    """A connection that gives up, and closes, when an answer takes longer than `patience_seconds`."""

    patience_seconds: float | None = _ANSWER_SECONDS

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See `psycopg.Connection.wait`."""
        if timeout is not None or self.patience_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience_seconds)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self.pgconn.finish()
            raise SilentError(f"no answer within {self.patience_seconds:g} s") from None


class PostgresServer:
    """How the server at `address` is connected to; the password is asked for each time."""

    def __init__(self, address: PostgresAddress, password: Callable[[], str] | None) -> None:
        self.address = address
        self._password = password

    def connect(self, *, bounded: bool = True) -> Link:
        """A connection; `bounded` says whether its statements are limited in time."""
        hosts, ports = zip(*self.address.hosts, strict=True)
        trust = self.address.trust
        session = _SESSION if bounded else _MIGRATION
        link = Link.connect(
            host=",".join(hosts),
            port=",".join(map(str, ports)),
            user=self.address.user,
            dbname=self.address.database,
            password=self._secret(),
            sslmode="verify-full" if trust else "prefer",
            sslrootcert=str(trust) if trust else None,
            gssencmode="disable",
            target_session_attrs="read-write" if len(hosts) > 1 else "any",
            application_name="transom hub",
            client_encoding="utf8",
            connect_timeout=_CONNECT_SECONDS,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            options=" ".join(f"-c {name}={value}" for name, value in session.items()),
            autocommit=True,
        )
        if bounded:
            link.execute(_WHOLE_TRANSACTIONS, [f"{2 * _STATEMENT_SECONDS}s"])
        else:
            link.patience_seconds = None
        link.execute(_DURABLE)
        link.autocommit = False
        return link

    def _secret(self) -> str | None:
        try:
            return self._password() if self._password else None
        except InvalidError as error:  # as good as refused: somebody may be changing it
            raise UnreachableError(str(error)) from None


def engine(connect: Callable[[], Link], **options: Any) -> Engine:
    """An engine with one connection, made anew when it breaks; `options` are its executions'."""
    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        use_native_hstore=False,
        # What is written may be secret, and errors are logged.
        hide_parameters=True,
        execution_options=options,
    )


class Kind(NamedTuple):
    """A kind of transactions."""

    isolation: IsolationLevel
    read_only: bool | None


WRITING = Kind(IsolationLevel.READ_COMMITTED, read_only=None)
READING = Kind(IsolationLevel.REPEATABLE_READ, read_only=True)


class PostgresTransactions:
    """Transactions on one connection, as `store_engine.Transactions`."""

    def __init__(self, server: PostgresServer, kind: Kind, *, bounded: bool = True) -> None:
        def connect() -> Link:
            link = server.connect(bounded=bounded)
            link.isolation_level, link.read_only = kind
            return link

        self.engine = engine(connect)
        self._where = f"store {server.address}"

    def run(self, work: Callable[[Connection], T]) -> T:
        """See `Transactions.run`."""
        for left in reversed(range(_TRIES)):
            try:
                return self._once(work)
            except DBAPIError as error:
                if not left or not _leaves_nothing(error):
                    raise our_error(error, self._where) from error
        raise AssertionError  # the last try returns or raises

    def close(self) -> None:
        """See `Transactions.close`."""
        self.engine.dispose()

    def _once(self, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as db, db.begin() as transaction:
            result = work(db)
            try:
                transaction.commit()
            except DBAPIError as error:
                if error.connection_invalidated and _state(error) not in _CUT_OFF_WHILE_IDLE:
                    raise UnreachableError(
                        f"{self._where} broke off at the commit, which may or may not have happened: "
                        f"{our_error(error, self._where)}"
                    ) from error
                raise
            return result


def _leaves_nothing(error: DBAPIError) -> bool:
    """Whether what failed, before the commit or at it, is certainly undone and may go well at once."""
    if isinstance(error.orig, SilentError):
        return False
    return error.connection_invalidated or _state(error).startswith("40")


def _state(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
