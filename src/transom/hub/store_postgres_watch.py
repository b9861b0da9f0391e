"""Processes that share a store wake each other: PostgreSQL's NOTIFY, and a look at the counter in case.

A notification says nothing but "look": what was described meanwhile is read from the tables, so one that was
lost, came late or stands for several does no harm. It is sent after the commit, on a connection of its own,
one for all commits since the last (a transaction that notifies takes a lock of the whole server at its end).
When none comes for `_LOOK_SECONDS` the counter is looked at all the same: whoever committed may have died
before telling. Next on the data's way: `store` raises the levels that its readers wait for.
"""

import contextlib
import select
import socket
import threading
from typing import Any

from psycopg.errors import Error
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from transom.hub.store_engine import Watcher
from transom.hub.store_news import news_since
from transom.hub.store_postgres import PostgresServer, engine
from transom.hub.store_postgres_errors import words_of
from transom.model.errors import UnreachableError
from transom.runtime.clock import SystemClock
from transom.runtime.telemetry import get_logger
from transom.runtime.threads import SerialThread

log_event = get_logger(__name__)

_CHANNEL = "transom"
_LOOK_SECONDS = 0.5
_REST_SECONDS = 0.01
"""Between two notifications of one process; what is committed meanwhile shares the next."""
_AWAY_SECONDS = 1.0


class PostgresWatch:
    """Listens and notifies on a thread of its own, as `store_engine.Watch`."""

    def __init__(self, server: PostgresServer, watcher: Watcher) -> None:
        self._engine = engine(server.connect, isolation_level="AUTOCOMMIT")
        self._watcher = watcher
        self._clock = SystemClock()
        self._closed = threading.Event()
        self._rung = threading.Event()
        self._bell, self._hammer = socket.socketpair()
        self._bell.setblocking(False)
        self._hammer.setblocking(False)
        self._thread = SerialThread("store watch")
        self._thread.post(self._work)

    def ring(self) -> None:
        """See `Watch.ring`."""
        if not self._rung.is_set():
            self._rung.set()
            self._wake()

    async def close(self) -> None:
        """See `Watch.close`. What was rung before is told."""
        self._closed.set()
        self._wake()
        await self._thread.close()
        self._engine.dispose()
        self._bell.close()
        self._hammer.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it wakes anyway
            self._hammer.send(b"!")

    def _work(self) -> None:
        away = False
        while not self._closed.is_set():
            try:
                with self._engine.connect() as db:
                    db.exec_driver_sql(f"LISTEN {_CHANNEL}")
                    if away:
                        log_event.info("hears of other processes' writes again")
                    away = False
                    self._listen(db)
            except (SQLAlchemyError, Error, OSError, UnreachableError) as error:
                if not away:
                    cause = error.orig if isinstance(error, DBAPIError) else error
                    log_event.warning("cannot hear of other processes' writes", error=words_of(cause))
                away = True
                self._closed.wait(_AWAY_SECONDS)

    def _listen(self, db: Connection) -> None:
        link: Any = db.connection.driver_connection
        poll = select.poll()
        for each in (link.fileno(), self._bell.fileno()):
            poll.register(each, select.POLLIN)
        look_at = 0.0  # at once: what was committed before it listened
        while not self._closed.is_set() or self._rung.is_set():
            left = look_at - self._clock.monotonic()
            if left > 0:
                poll.poll(left * 1000)
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
            if self._rung.is_set():
                self._rung.clear()  # before: what is committed from now on is told by the next
                db.exec_driver_sql(f"NOTIFY {_CHANNEL}")
                self._closed.wait(_REST_SECONDS)
            # What this process commits it knows without looking.
            while _heard(link) or self._clock.monotonic() >= look_at:
                look_at = self._clock.monotonic() + _LOOK_SECONDS
                self._look(db)

    def _look(self, db: Connection) -> None:
        self._watcher.learn(news_since(db, self._watcher.known()))


def _heard(link: Any) -> bool:
    """Whether another session has notified since this was asked last."""
    senders = {note.pid for note in link.notifies(timeout=0)}
    return bool(senders - {link.info.backend_pid})
