"""Compaction, retention and truncation of the SQLite log, in steps.

Each step is one short transaction that looks at a bounded number of entries, so that appends wait for one
step at most; a killed cleaner is taken up where it stopped. Compaction costs what was appended since the
last time, not what the topic holds: `newest` remembers where each key stands. Next on the data's way:
`sqlite`, which runs the steps one after another.
"""

import sqlite3
from typing import NamedTuple

from transom.logs import rules
from transom.logs.protocol import TopicPartition
from transom.logs.sqlite_schema import OFFSET_BITS, OFFSET_MASK, find_partition, transaction

_ENTRIES = 500
_PAGES = 500
_SPARE_PAGES = 1000
"""Free pages the file keeps, so that it is not shrunk only to grow again."""


class Step(NamedTuple):
    """How many entries a step removed, and whether there is more to do."""

    removed: int
    more: bool


def truncate(connection: sqlite3.Connection, at: TopicPartition, before: int) -> int:
    """Move a partition's start and return the partition's id. What is below can no longer be read;
    `sweep` removes it.
    """
    with transaction(connection):
        identity, start, end = find_partition(connection, at)
        rules.check_truncation(at, before, start, end)
        if before > start:
            connection.execute("UPDATE partitions SET start = ? WHERE id = ?", (before, identity))
    return identity


def sweep(connection: sqlite3.Connection, identity: int) -> Step:
    """Remove entries below the start."""
    with transaction(connection):
        start, _, _ = _partition(connection, identity)
        gone = connection.execute(
            """DELETE FROM entries WHERE position IN (
                 SELECT position FROM entries WHERE position >= ? AND position < ? LIMIT ?)""",
            (_at(identity, 0), _at(identity, start), _ENTRIES),
        ).rowcount
    return Step(0, gone == _ENTRIES)


def drop_newest(connection: sqlite3.Connection, identity: int) -> Step:
    """Let go of what is remembered of keys below the start. Looks at every key: truncation is rare."""
    with transaction(connection):
        start, _, _ = _partition(connection, identity)
        connection.execute("DELETE FROM newest WHERE partition_id = ? AND offset < ?", (identity, start))
    return Step(0, more=False)


def compact(connection: sqlite3.Connection, identity: int) -> Step:
    """Look at entries appended since the last time; remove the one each of them replaces."""
    removed = 0
    with transaction(connection):
        start, end, cleaned = _partition(connection, identity)
        rows = connection.execute(
            """SELECT position, key, value IS NULL, appended_ms FROM entries
               WHERE position >= ? AND position < ? ORDER BY position LIMIT ?""",
            (_at(identity, max(start, cleaned)), _at(identity, end), _ENTRIES),
        ).fetchall()
        for position, key, is_tombstone, appended_ms in rows:
            older = connection.execute(
                "SELECT offset FROM newest WHERE partition_id = ? AND key = ?", (identity, key)
            ).fetchone()
            if older is not None:
                removed += _remove(connection, _at(identity, older[0]))
            connection.execute(
                "INSERT OR REPLACE INTO newest VALUES (?, ?, ?, ?)",
                (identity, key, position & OFFSET_MASK, appended_ms if is_tombstone else None),
            )
        if rows:
            reached = (rows[-1][0] & OFFSET_MASK) + 1
            connection.execute("UPDATE partitions SET cleaned = ? WHERE id = ?", (reached, identity))
    return Step(removed, len(rows) == _ENTRIES)


def forget(connection: sqlite3.Connection, identity: int, until_ms: int) -> Step:
    """Remove tombstones that were appended at `until_ms` or before. `compact` must have come first."""
    removed = 0
    with transaction(connection):
        rows = connection.execute(
            """SELECT key, offset FROM newest
               WHERE partition_id = ? AND tombstone_ms IS NOT NULL AND tombstone_ms <= ? LIMIT ?""",
            (identity, until_ms, _ENTRIES),
        ).fetchall()
        for key, offset in rows:
            removed += _remove(connection, _at(identity, offset))
            connection.execute("DELETE FROM newest WHERE partition_id = ? AND key = ?", (identity, key))
    return Step(removed, len(rows) == _ENTRIES)


def expire(connection: sqlite3.Connection, identity: int, until_ms: int) -> Step:
    """Remove entries from the front that were appended at `until_ms` or before."""
    with transaction(connection):
        start, end, _ = _partition(connection, identity)
        rows = connection.execute(
            """SELECT position, appended_ms FROM entries
               WHERE position >= ? AND position < ? ORDER BY position LIMIT ?""",
            (_at(identity, start), _at(identity, end), _ENTRIES),
        ).fetchall()
        old = next((at for at, (_, appended_ms) in enumerate(rows) if appended_ms > until_ms), len(rows))
        if old:
            reached = (rows[old - 1][0] & OFFSET_MASK) + 1
            connection.execute(
                "DELETE FROM entries WHERE position >= ? AND position < ?",
                (_at(identity, start), _at(identity, reached)),
            )
            connection.execute("UPDATE partitions SET start = ? WHERE id = ?", (reached, identity))
    return Step(old, old == _ENTRIES)


def shrink(connection: sqlite3.Connection) -> Step:
    """Give free pages back to the file system."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free <= _SPARE_PAGES:
        return Step(0, more=False)
    connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
    return Step(0, more=True)


def _at(identity: int, offset: int) -> int:
    return identity << OFFSET_BITS | offset


def _partition(connection: sqlite3.Connection, identity: int) -> tuple[int, int, int]:
    return connection.execute(
        "SELECT start, next, cleaned FROM partitions WHERE id = ?", (identity,)
    ).fetchone()


def _remove(connection: sqlite3.Connection, position: int) -> int:
    return connection.execute("DELETE FROM entries WHERE position = ?", (position,)).rowcount
