"""The embedded log: one SQLite file for a region, opened by several of the region's processes at once.

Writes go through one thread, whose commits are grouped and synced before anyone is told; reads go through
another, on a snapshot, and never wait behind a commit. Between processes SQLite's own locks order the
writers, and `sqlite_wakeup` wakes the waiting. Next on the data's way: `tables`, or `server` for readers in
other regions.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import msgspec

from transom.logs import rules, sqlite_clean, sqlite_groups
from transom.logs.protocol import (
    SECOND,
    Bounds,
    Entry,
    Fence,
    Headers,
    Membership,
    Message,
    Topic,
    TopicInfo,
    TopicPartition,
)
from transom.logs.sqlite_append import Append, commit
from transom.logs.sqlite_clean import Step
from transom.logs.sqlite_schema import (
    OFFSET_BITS,
    OFFSET_MASK,
    find_partition,
    open_reader,
    open_writer,
    prepare,
    require_topic,
    snapshot,
    told,
    transaction,
    waiters_folder,
)
from transom.logs.sqlite_wakeup import Wakeup
from transom.model.errors import UNREADABLE
from transom.runtime.batching import Batcher
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger
from transom.runtime.threads import SerialThread

P = ParamSpec("P")
T = TypeVar("T")
log_event = get_logger(__name__)

_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class SqliteLog:
    """`Log` and `KeptLog` in one file; made with `SqliteLog.open`."""

    def __init__(self, path: Path, clock: Clock, write: sqlite3.Connection, read: sqlite3.Connection) -> None:
        self.path = path
        self._clock = clock
        self._write, self._read = write, read
        self._writer, self._reader = SerialThread("log-writer"), SerialThread("log-reader")
        self._appends: Batcher[Append, Sequence[int]] = Batcher(self._writer, self._commit)
        self._wakeup = Wakeup(waiters_folder(path))
        self._turn = 0
        self._closed = False

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> Self:
        """Open the log at `path`, made when there is none.

        Raises `NewerDataError` (a newer release's file, left untouched), `InvalidError` (not a log).
        """
        with told(path), contextlib.ExitStack() as opened:
            await asyncio.to_thread(prepare, path)
            write = opened.enter_context(contextlib.closing(open_writer(path)))
            read = opened.enter_context(contextlib.closing(open_reader(path)))
            log = cls(path, clock, write, read)
            opened.pop_all()
            return log

    @property
    def trouble(self) -> str:
        """See `Log.trouble`: every call says so itself."""
        return ""

    async def create(self, topics: Sequence[Topic]) -> None:
        """See `Log.create`."""
        rules.check_topics(topics)
        await self._on_writer(_create, self._write, topics)

    async def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
        """See `Log.topics`."""
        return rules.named(await self._on_reader(_topics, self._read), names)

    async def append(self, batch: Sequence[Message], *, fence: Fence | None = None) -> Sequence[int]:
        """See `Log.append`."""
        rules.check_batch(batch)
        with told(self.path):
            return await self._appends.submit(Append(tuple(batch), fence))

    async def read(
        self, positions: Mapping[TopicPartition, int], *, most: int = 1000, wait_seconds: float = 0.0
    ) -> Sequence[Entry]:
        """See `Log.read`."""
        if wait_seconds > 0:
            with told(self.path):
                self._wakeup.listen()
        seen = self._wakeup.changed.value
        entries = await self._look(positions, most)
        if entries or wait_seconds <= 0:
            return entries
        try:
            async with asyncio.timeout(wait_seconds):
                while not entries:
                    seen = await self._wakeup.changed.above(seen)
                    entries = await self._look(positions, most)
        except TimeoutError:
            return []
        return entries

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """See `Log.bounds`."""
        return await self._on_reader(_bounds, self._read, topic)

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        """See `Log.truncate`."""
        at = TopicPartition(topic, partition)
        identity = await self._on_writer(sqlite_clean.truncate, self._write, at, before)
        await self._repeat(sqlite_clean.sweep, self._write, identity)
        await self._repeat(sqlite_clean.drop_newest, self._write, identity)

    async def take_fence(self, name: str) -> Fence:
        """See `Log.take_fence`."""
        return await self._on_writer(sqlite_groups.take_fence, self._write, name)

    async def join(
        self, group: str, member: str, topics: Sequence[str], *, session_seconds: float = 10.0
    ) -> Membership:
        """See `Log.join`."""
        return await self._on_writer(
            sqlite_groups.join,
            self._write,
            group,
            member,
            topics,
            now=self._clock.wall(),
            session_seconds=session_seconds,
        )

    async def commit(self, membership: Membership, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Log.commit`."""
        await self._on_writer(sqlite_groups.commit, self._write, membership, offsets)

    async def committed(self, group: str) -> Mapping[TopicPartition, int]:
        """See `Log.committed`."""
        return await self._on_reader(sqlite_groups.committed, self._read, group)

    async def clean(self, clock: Clock) -> int:
        """See `KeptLog.clean`."""
        now_ms = int(clock.wall() * SECOND)
        removed = 0
        for identity, topic in await self._on_reader(_partitions, self._read):
            await self._repeat(sqlite_clean.sweep, self._write, identity)
            keep_ms = rules.retention_ms(topic)
            if topic.compact:
                removed += await self._repeat(sqlite_clean.compact, self._write, identity)
            if keep_ms is not None:
                drop = sqlite_clean.forget if topic.compact else sqlite_clean.expire
                removed += await self._repeat(drop, self._write, identity, now_ms - keep_ms)
        await self._repeat(sqlite_clean.shrink, self._write)
        return removed

    async def close(self) -> None:
        """Let go of threads, connections and the pipe. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._wakeup.close()
        await self._reader.run(self._read.close)
        await self._reader.close()
        await self._writer.run(self._write.close)
        await self._writer.close()

    async def _on_writer(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with told(self.path):
            return await self._writer.run(call, *args, **kwargs)

    async def _on_reader(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with told(self.path):
            return await self._reader.run(call, *args, **kwargs)

    async def _repeat(self, step: Callable[P, Step], *args: P.args, **kwargs: P.kwargs) -> int:
        """Run a cleaning step until it has no more to do; appends take their turns in between."""
        removed = 0
        more = True
        while more:
            done, more = await self._on_writer(step, *args, **kwargs)
            removed += done
        return removed

    def _commit(self, appends: Sequence[Append]) -> Sequence[Sequence[int] | Exception]:
        results, appended = commit(self._write, int(self._clock.wall() * SECOND), appends)
        if appended:
            self._wakeup.ring()
        return results

    async def _look(self, positions: Mapping[TopicPartition, int], most: int) -> list[Entry]:
        self._turn += 1
        return await self._on_reader(_look, self._read, positions, most, self._turn)


def _create(connection: sqlite3.Connection, topics: Sequence[Topic]) -> None:
    with transaction(connection):
        held = _topics(connection)
        for topic in topics:
            if topic.name in held:
                rules.check_same(topic, held[topic.name].topic)
            else:
                connection.execute(
                    "INSERT INTO topics VALUES (?, ?, ?, ?)",
                    (topic.name, Randomness().uid(), topic.compact, topic.retention_seconds),
                )
            connection.executemany(
                "INSERT OR IGNORE INTO partitions (topic, partition) VALUES (?, ?)",
                [(topic.name, partition) for partition in range(topic.partitions)],
            )


def _topics(connection: sqlite3.Connection) -> dict[str, TopicInfo]:
    rows = connection.execute(
        """SELECT t.name, count(*), t.compact, t.retention_seconds, t.topic_id
           FROM topics t JOIN partitions p ON p.topic = t.name GROUP BY t.name"""
    ).fetchall()
    return {
        name: TopicInfo(Topic(name, partitions, bool(compact), retention_seconds), topic_id)
        for name, partitions, compact, retention_seconds, topic_id in rows
    }


def _bounds(connection: sqlite3.Connection, topic: str) -> dict[int, Bounds]:
    require_topic(connection, topic)
    rows = connection.execute(
        "SELECT partition, start, next FROM partitions WHERE topic = ? ORDER BY partition", (topic,)
    ).fetchall()
    return {partition: Bounds(start, end) for partition, start, end in rows}


def _partitions(connection: sqlite3.Connection) -> list[tuple[int, Topic]]:
    topics = _topics(connection)
    rows = connection.execute("SELECT id, topic FROM partitions ORDER BY id").fetchall()
    return [(identity, topics[name].topic) for identity, name in rows if name in topics]


def _look(
    connection: sqlite3.Connection, positions: Mapping[TopicPartition, int], most: int, turn: int
) -> list[Entry]:
    with snapshot(connection):
        identities: dict[TopicPartition, int] = {}
        behind: dict[TopicPartition, int] = {}
        for at, offset in positions.items():
            identities[at], start, end = find_partition(connection, at)
            rules.check_range(at, offset, start, end)
            if offset < end:
                behind[at] = offset

        def fetch(at: TopicPartition, offset: int, asked: int) -> list[Entry]:
            return _entries(connection, at, identities[at], offset, asked)

        return rules.take_turns(behind, most, turn, fetch)


def _entries(
    connection: sqlite3.Connection, at: TopicPartition, identity: int, offset: int, asked: int
) -> list[Entry]:
    """Up to `asked` entries; fewer when they are more bytes than one read returns."""
    topic, partition = at
    entries: list[Entry] = []
    size = 0
    for position, timestamp_ms, key, value, headers in connection.execute(
        """SELECT position, timestamp_ms, key, value, headers FROM entries
           WHERE position >= ? AND position < ? ORDER BY position LIMIT ?""",
        (identity << OFFSET_BITS | offset, (identity + 1) << OFFSET_BITS, asked),
    ):
        entry = Entry(
            topic,
            partition,
            position & OFFSET_MASK,
            timestamp_ms,
            key,
            value,
            _read_headers(at, position & OFFSET_MASK, headers) if headers else (),
        )
        entries.append(entry)
        size += len(key or b"") + len(value or b"") + len(headers or b"")
        if size > rules.READ_BYTES_MAX:
            break
    return entries


def _read_headers(at: TopicPartition, offset: int, data: bytes) -> Headers:
    """The headers of an entry. Those that the disk has spoiled count as none: then whoever needs them refuses
    this entry alone, and reads on.
    """
    try:
        return _decode_headers(data)
    except UNREADABLE as error:
        log_event.error(  # noqa: TRY400  # where it came from says nothing
            "the headers of an entry cannot be read; the disk may be failing",
            topic=at.topic,
            partition=at.partition,
            offset=offset,
            error=str(error),
        )
        return ()
