"""Consumer groups and fences in the SQLite log's file; what they mean is decided in `groups`.

Each function is one transaction on the writer's connection. Next on the data's way: `sqlite`.
"""

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from transom.logs.groups import Group, check_commit, membership, rejoin
from transom.logs.protocol import Fence, Membership, TopicPartition
from transom.logs.sqlite_schema import require_topic, transaction

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Group).decode


def take_fence(connection: sqlite3.Connection, name: str) -> Fence:
    """The next token under `name`."""
    with transaction(connection):
        (token,) = connection.execute(
            """INSERT INTO fences VALUES (?, 1)
               ON CONFLICT (name) DO UPDATE SET token = token + 1 RETURNING token""",
            (name,),
        ).fetchone()
    return Fence(name, token)


def join(
    connection: sqlite3.Connection,
    name: str,
    member: str,
    topics: Sequence[str],
    *,
    now: float,
    session_seconds: float,
) -> Membership:
    """Let `member` join, stay in or leave the group `name`; `now` is the wall time in seconds."""
    with transaction(connection):
        for topic in topics:
            require_topic(connection, topic)
        partitions: dict[str, int] = dict(
            connection.execute("SELECT topic, count(*) FROM partitions GROUP BY topic").fetchall()
        )
        group = rejoin(
            _group(connection, name), member, topics, partitions, now=now, session_seconds=session_seconds
        )
        connection.execute("INSERT OR REPLACE INTO groups VALUES (?, ?)", (name, _encode(group)))
    return membership(group, name, member)


def commit(
    connection: sqlite3.Connection, claimed: Membership, offsets: Mapping[TopicPartition, int]
) -> None:
    """Store what the group reads next, if `claimed` may say so."""
    with transaction(connection):
        check_commit(_group(connection, claimed.group), claimed, offsets)
        connection.executemany(
            "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)",
            [(claimed.group, at.topic, at.partition, offset) for at, offset in offsets.items()],
        )


def committed(connection: sqlite3.Connection, name: str) -> dict[TopicPartition, int]:
    """What the group reads next."""
    rows = connection.execute(
        "SELECT topic, partition, offset FROM commits WHERE group_name = ?", (name,)
    ).fetchall()
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


def _group(connection: sqlite3.Connection, name: str) -> Group:
    row = connection.execute("SELECT state FROM groups WHERE name = ?", (name,)).fetchone()
    return _decode(row[0]) if row else Group()
