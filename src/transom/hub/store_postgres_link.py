"""A connection to PostgreSQL that gives up when the server is silent, and waits as seldom as it can.

Each answer that is waited for costs two switches between processes, under load far more than the statement
itself. After `take_off` a link keeps what needs no answer (BEGIN, and what writes without returning rows)
until something does, and sends all of it at once, in libpq's pipeline mode
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html). A transaction that writes waits three
times instead of a dozen, one that reads once for each question. An error of what flew along is raised by
whatever waits next, at the latest by the commit, and nothing was committed then. Next: `store_postgres`.
"""

from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import Cursor, Pipeline
from psycopg.errors import Error, OperationalError
from psycopg.generators import fetch_many, send
from psycopg.pq import ConnStatus

_ANSWER_SECONDS = 45.0
"""How long an answer may take before the server counts as gone: it ends its statements before that."""

_HELD_MAX = 100
"""So many statements are kept at most: the server may work while more is made."""


class SilentError(OperationalError):
    """The server holds the connection open but does not answer."""


class Link(psycopg.Connection[Any]):
    """A connection that gives up, and closes, when an answer takes longer than `patience_seconds`."""

    patience_seconds: float | None = _ANSWER_SECONDS
    _begun = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See `psycopg.Connection.wait`."""
        if timeout is not None or self.patience_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience_seconds)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self.pgconn.finish()
            raise SilentError(f"no answer within {self.patience_seconds:g} s") from None

    def take_off(self) -> None:
        """From now on it is for transactions alone, of the kind that its attributes say, and waits seldom."""
        self.cursor_factory = _FlyingCursor
        self._pipeline = _Flight(self)
        self._pipeline.__enter__()

    def commit(self) -> None:
        """See `psycopg.Connection.commit`. The end of what only read is sent, and not waited for."""
        with self.lock:
            if self._pipeline is None:
                self.wait(self._commit_gen())
            elif self._begun:
                self.wait(self._ending())
                self._begun = False

    def rollback(self) -> None:
        """See `psycopg.Connection.rollback`."""
        with self.lock:
            if self._pipeline is None:
                self.wait(self._rollback_gen())
            elif self._begun:
                self._begun = False
                self.wait(self._undoing())

    def _start_query(self) -> Generator[Any, Any, None]:
        if self._pipeline is None:
            yield from super()._start_query()
        elif not self._begun:
            self._begun = True
            yield from self._exec_command(self._get_tx_start_command())

    def _ending(self) -> Generator[Any, Any, None]:
        flight = self._pipeline
        assert isinstance(flight, _Flight)  # noqa: S101  # `take_off` has put it there
        yield from self._exec_command(b"COMMIT")
        yield from flight.depart() if self.read_only else flight.arrive()

    def _undoing(self) -> Generator[Any, Any, None]:
        flight = self._pipeline
        assert isinstance(flight, _Flight)  # noqa: S101  # `take_off` has put it there
        flight.drop()
        yield from self._rollback_gen()
        # What was to be prepared may have been dropped, or undone.
        self._prepared.clear()
        yield from self._prepared.maintain_gen(self)


class _Flight(Pipeline):
    """Keeps commands until an answer is wanted, or there are many of them."""

    def depart(self) -> Generator[Any, Any, None]:
        """Send all that is kept, and wait for nothing."""
        # A unit ends here. Otherwise the server would count as busy while it waits for us, and its bound on
        # idle transactions would not hold.
        self._enqueue_sync()
        yield from self._send()

    def arrive(self) -> Generator[Any, Any, None]:
        """Send all that is kept, and wait for every answer. Raises the first error among them."""
        yield from self.depart()
        failed: Error | None = None
        while self.result_queue:
            try:
                answers = yield from fetch_many(self.pgconn)
                self._process_results(self.result_queue.popleft(), answers)
            except Error as error:
                failed = failed or error
                if self.pgconn.status == ConnStatus.BAD:
                    break
        if failed is not None:
            raise failed

    def drop(self) -> None:
        """Forget what was not sent."""
        for _ in range(len(self.command_queue)):
            self.command_queue.pop()
            self.result_queue.pop()

    def _sync_gen(self) -> Generator[Any, Any, None]:
        yield from self.arrive()

    def _communicate_gen(self) -> Generator[Any, Any, None]:
        if len(self.command_queue) >= _HELD_MAX:
            yield from self._send()

    def _fetch_gen(self, *, flush: bool) -> Generator[Any, Any, None]:  # noqa: ARG002  # whoever asks waits
        yield from self.arrive()

    def _send(self) -> Generator[Any, Any, None]:
        try:
            for command in self.command_queue:
                command()
        except BaseException:
            # Which answer belongs to which statement is not known any more.
            self.pgconn.finish()
            raise
        self.command_queue.clear()
        yield from send(self.pgconn)


class _FlyingCursor(Cursor[Any]):
    """Waits for the answer to what returns rows."""

    def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
        """See `psycopg.Cursor.execute`."""
        super().execute(query, params, **how)
        if not _flies_along(str(query)):
            self._fetch_pipeline()
        return self


def _flies_along(statement: str) -> bool:
    return statement.startswith(("INSERT ", "UPDATE ", "DELETE ")) and " RETURNING " not in statement
