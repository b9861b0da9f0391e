"""The SQLite log's file: how it is laid out, made, opened, and how its errors are told.

An entry's row id is its partition's id and its offset in one number, so a partition is one stretch of one
B-tree: appending goes to its end and reading is a range scan. `partitions.next` is the next offset to give
and survives every removal, so that no offset is used twice. `newest` is the cleaner's memory of each key's
newest entry; appends never touch it. Next on the data's way: `sqlite_append` and `sqlite`.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Generator
from pathlib import Path

from transom.logs import rules
from transom.logs.protocol import TopicPartition
from transom.model.errors import (
    InvalidError,
    NewerDataError,
    Problem,
    StorageFullError,
    UnknownTopicError,
    UnreachableError,
)

APPLICATION_ID = 0x74724C67  # "trLg"
SCHEMA_VERSION = 1
OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1

_BUSY_SECONDS = 10.0
_WAL_BYTES_MAX = 64 * 1024 * 1024
_HEADER_BYTES = 100  # https://www.sqlite.org/fileformat.html, "The Database Header"
_MAGIC = b"SQLite format 3\x00"

_TABLES = (
    """CREATE TABLE topics (
        name TEXT PRIMARY KEY,
        topic_id TEXT NOT NULL,
        compact INTEGER NOT NULL,
        retention_seconds INTEGER
    ) WITHOUT ROWID""",
    # `start` is the first offset that may be read, `next` the one to be given next, `cleaned` how far
    # compaction has looked.
    """CREATE TABLE partitions (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL REFERENCES topics (name),
        partition INTEGER NOT NULL,
        start INTEGER NOT NULL DEFAULT 0,
        next INTEGER NOT NULL DEFAULT 0,
        cleaned INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, partition)
    )""",
    # position = partitions.id << 40 | offset; headers are msgpack, NULL when there are none.
    """CREATE TABLE entries (
        position INTEGER PRIMARY KEY,
        timestamp_ms INTEGER NOT NULL,
        appended_ms INTEGER NOT NULL,
        key BLOB,
        value BLOB,
        headers BLOB
    )""",
    # `tombstone_ms` is when a tombstone was appended, NULL for an entry with a value.
    """CREATE TABLE newest (
        partition_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        offset INTEGER NOT NULL,
        tombstone_ms INTEGER,
        PRIMARY KEY (partition_id, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX tombstones ON newest (partition_id, tombstone_ms) WHERE tombstone_ms IS NOT NULL",
    "CREATE TABLE fences (name TEXT PRIMARY KEY, token INTEGER NOT NULL) WITHOUT ROWID",
    # `state` is `groups.Group` in msgpack.
    "CREATE TABLE groups (name TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE commits (
        group_name TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        PRIMARY KEY (group_name, topic, partition)
    ) WITHOUT ROWID""",
)


def prepare(path: Path) -> None:
    """Make sure there is a log of this release at `path` (mode 0600) and a folder beside it for waiters.

    Raises `NewerDataError` (the file is not touched), `InvalidError` (it is something else).
    """
    if path.exists():
        _check_header(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = waiters_folder(path)
    folder.mkdir(mode=0o700, exist_ok=True)
    # Processes of one region may start together: one makes the file, the others find it.
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _make(path)
    finally:
        os.close(lock)


def waiters_folder(path: Path) -> Path:
    """Where the processes that wait for appends to the log at `path` can be woken."""
    return path.with_name(f"{path.name}.waiters")


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return."""
    return _connect(path)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, and never waits behind a commit."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_MAX}")
    return connection


def _make(path: Path) -> None:
    """Make the file under another name first: whoever is killed here leaves no half a log behind."""
    draft = path.with_name(f"{path.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(_connect(draft)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        with transaction(connection):
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("PRAGMA journal_mode = WAL")
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_header(path: Path) -> None:
    """Look at the file without opening a database, which would already make files beside it."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC) or int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise InvalidError(f"log {path}", [Problem("", "is not a transom log; name another file")])
    version = int.from_bytes(header[60:64], "big")
    if version > SCHEMA_VERSION:
        raise NewerDataError(
            f"log {path} was written by a newer release (layout {version}, this release knows "
            f"{SCHEMA_VERSION}) and is left untouched: use that release or a newer one"
        )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Write in one transaction: all of it or, when anything is raised, nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Generator[None]:
    """Read one state of the file, whatever is committed meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


@contextlib.contextmanager
def told(path: Path) -> Generator[None]:
    """Raise SQLite's errors as this project's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _no_room(path)):
            raise StorageFullError(
                f"no room to write to log {path}: free some; nothing was changed"
            ) from None
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise UnreachableError(
                f"log {path} was locked by another process for over {_BUSY_SECONDS:g} s; "
                f"see which process holds it (fuser {path}) and whether it is stopped"
            ) from None
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
            raise UnreachableError(f"log {path} cannot be read or written: {error} ({name})") from None
        raise
    except OverflowError:
        what = "has more than 64 bits"
        raise InvalidError("a partition or offset", [Problem("", what)]) from None
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _full(path) from None
        raise


def _full(path: Path) -> StorageFullError:
    return StorageFullError(f"there is no room to write to log {path}: free some; nothing was changed")


def _no_room(path: Path) -> bool:
    room = os.statvfs(path.parent)
    return room.f_bavail == 0 or (room.f_files > 0 and room.f_favail == 0)


def find_partition(connection: sqlite3.Connection, at: TopicPartition) -> tuple[int, int, int]:
    """A partition's id, start and next offset. Raises `UnknownTopicError`, `InvalidError`."""
    row: tuple[int, int, int] | None = connection.execute(
        "SELECT id, start, next FROM partitions WHERE topic = ? AND partition = ?", at
    ).fetchone()
    if row is None:
        require_topic(connection, at.topic)
        (count,) = connection.execute("SELECT count(*) FROM partitions WHERE topic = ?", at[:1]).fetchone()
        raise rules.no_such_partition(at.topic, at.partition, count)
    return row


def require_topic(connection: sqlite3.Connection, topic: str) -> None:
    """Raises `UnknownTopicError` unless the topic exists."""
    if connection.execute("SELECT 1 FROM topics WHERE name = ?", (topic,)).fetchone() is None:
        raise UnknownTopicError(topic)
