"""One transaction for everything that waits to be appended, so that it shares one fsync.

`runtime.batching` gathers it. Each batch stays whole or not at all and fails alone: it is checked in
full (topic, partition, fence) before any of its rows joins the transaction. Next on the data's way:
`sqlite`, whose readers are woken.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from transom.logs import rules
from transom.logs.protocol import Fence, Message, Topic
from transom.logs.sqlite_schema import OFFSET_BITS, transaction
from transom.model.errors import UnknownTopicError
from transom.runtime.steps import step

_encode_headers = msgspec.msgpack.Encoder().encode

_Row = tuple[int, int, int, bytes | None, bytes | None, bytes | None]


class Append(NamedTuple):
    """A batch that waits for its commit."""

    batch: Sequence[Message]
    fence: Fence | None


def commit(
    connection: sqlite3.Connection, now_ms: int, appends: Sequence[Append]
) -> tuple[list[list[int] | Exception], bool]:
    """Commit `appends` together. Returns each one's offsets or the error that it alone fails with, and
    whether anything was appended. Raises, with nothing appended, when the disk or another process is in the
    way.
    """
    results: list[list[int] | Exception] = []
    draft = _Draft(connection, now_ms)
    with transaction(connection):
        for append in appends:
            try:
                results.append(draft.add(append))
            except Exception as error:  # noqa: BLE001  # handed to its caller
                results.append(error)
        if draft.rows:
            draft.write()
            step("log.appending")
    if draft.rows:
        step("log.appended")
    return results, bool(draft.rows)


@dataclass
class _Placed:
    """A topic as one transaction sees it: its partitions' ids, and their next offsets with what it adds."""

    topic: Topic
    ids: list[int]
    next: list[int]


class _Draft:
    """The rows of one transaction, complete before the first is written."""

    def __init__(self, connection: sqlite3.Connection, now_ms: int) -> None:
        self.rows: list[_Row] = []
        self._connection = connection
        self._now_ms = now_ms
        self._topics: dict[str, _Placed] = {}

    def add(self, append: Append) -> list[int]:
        """Place every message of a batch; raises, and adds nothing, when one cannot be."""
        self._check_fence(append.fence)
        placed: list[tuple[_Placed, int, bytes | None]] = []
        for message in append.batch:
            held = self._topics.get(message.topic) or self._load(message.topic)
            headers = _encode_headers(message.headers) if message.headers else None
            placed.append((held, rules.partition_of(message, held.topic), headers))
        offsets: list[int] = []
        for message, (held, partition, headers) in zip(append.batch, placed, strict=True):
            offset = held.next[partition]
            held.next[partition] = offset + 1
            offsets.append(offset)
            self.rows.append(
                (
                    held.ids[partition] << OFFSET_BITS | offset,
                    message.timestamp_ms or self._now_ms,
                    self._now_ms,
                    message.key,
                    message.value,
                    headers,
                )
            )
        return offsets

    def write(self) -> None:
        """Insert the rows and move the next offsets."""
        self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", self.rows)
        self._connection.executemany(
            "UPDATE partitions SET next = ? WHERE id = ? AND next < ?",
            [
                (offset, identity, offset)
                for held in self._topics.values()
                for identity, offset in zip(held.ids, held.next, strict=True)
            ],
        )

    def _check_fence(self, fence: Fence | None) -> None:
        if fence is not None:
            row = self._connection.execute(
                "SELECT token FROM fences WHERE name = ?", (fence.name,)
            ).fetchone()
            rules.check_fence(fence, row[0] if row else None)

    def _load(self, name: str) -> _Placed:
        rows = self._connection.execute(
            """SELECT p.id, p.next, t.compact FROM partitions p JOIN topics t ON t.name = p.topic
               WHERE p.topic = ? ORDER BY p.partition""",
            (name,),
        ).fetchall()
        if not rows:
            raise UnknownTopicError(name)
        topic = Topic(name, len(rows), compact=bool(rows[0][2]))
        held = self._topics[name] = _Placed(topic, [row[0] for row in rows], [row[1] for row in rows])
        return held
