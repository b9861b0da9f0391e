"""What every log promises, whichever engine keeps it; and the engines against their model."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kafka_logs import emptied_log
from transom.logs.memory import MemoryLog
from transom.logs.partitioner import murmur2, partition_for
from transom.logs.protocol import Entry, Fence, KeptLog, Log, Membership, Message, Topic, TopicPartition
from transom.logs.remote import RemoteLog
from transom.logs.server import Rights, log_server
from transom.logs.sqlite import SqliteLog
from transom.model.errors import (
    ConflictError,
    FencedError,
    ForbiddenError,
    GenerationError,
    InvalidError,
    OutOfRangeError,
    UnknownTopicError,
)
from transom.runtime.clock import Clock, ManualClock, SystemClock
from transom.runtime.http import serve
from transom.runtime.secret_files import hash_secret

MEBIBYTE = 1 << 20
KEY = "a-key-for-tests"


EMBEDDED = ["memory", "sqlite", "remote"]
KAFKA = {"kafka": "brokers", "kafka-3.9": "broker39"}
embedded = pytest.mark.parametrize("bench", EMBEDDED, indirect=True)
"""For what Kafka does by itself, in its own time."""


@dataclass
class Bench:
    """A log, and the embedded log that keeps it (itself, or the one behind its server)."""

    log: Log
    clock: Clock
    kept: KeptLog | None = None

    async def clean(self) -> int:
        assert self.kept is not None
        return await self.kept.clean(self.clock)

    def advance(self, seconds: float) -> None:
        """Let time pass, where it is ours to let pass."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)


@contextlib.asynccontextmanager
async def served(log: Log) -> AsyncIterator[str]:
    """The URL of a server for `log` on a free port."""
    everything = Rights(frozenset("*"), frozenset("*"), links=True)
    app = log_server(log, {"test": hash_secret(KEY)}, {"test": everything})
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(serve(app, "127.0.0.1", 0, ready=port.set_result))
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture(params=[*EMBEDDED, *KAFKA])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param in KAFKA:
        async with emptied_log(request.getfixturevalue(KAFKA[request.param])) as log:
            yield Bench(log, SystemClock())
        return
    clock = ManualClock()
    if request.param == "memory":
        memory = MemoryLog(clock)
        yield Bench(memory, clock, memory)
        return
    async with contextlib.AsyncExitStack() as stack:
        kept = await SqliteLog.open(tmp_path / "region.log", clock)
        stack.push_async_callback(kept.close)
        log: Log = kept
        if request.param == "remote":
            log = RemoteLog(await stack.enter_async_context(served(kept)), KEY)
            stack.push_async_callback(log.close)
        yield Bench(log, clock, kept)


@pytest.fixture
async def log(bench: Bench) -> Log:
    await bench.log.create([Topic("events", partitions=3), Topic("other")])
    return bench.log


def at(topic: str, partition: int = 0) -> TopicPartition:
    return TopicPartition(topic, partition)


def message(value: bytes | None, key: bytes | None = b"k", topic: str = "other", **more: Any) -> Message:
    return Message(topic, key, value, **more)


async def values(log: Log, where: TopicPartition, offset: int = 0) -> list[bytes | None]:
    return [entry.value for entry in await log.read({where: offset})]


async def read_all(log: Log, positions: dict[TopicPartition, int], count: int) -> list[Entry]:
    """The first `count` entries: what was appended in a transaction is there a moment after the append."""
    found: list[Entry] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            for entry in await log.read(positions, wait_seconds=10):
                positions[entry.position] = entry.offset + 1
                found.append(entry)
    return found


async def waiting(log: Log, positions: dict[TopicPartition, int], seconds: float = 30.0) -> asyncio.Task[Any]:
    """A read that has begun to wait, or is about to: it was sent before another that was answered."""
    task = asyncio.create_task(log.read(positions, wait_seconds=seconds))
    for _ in range(3):
        await asyncio.sleep(0)
        await log.read({})
    assert not task.done()
    return task


async def until(log: Log, true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await log.read({})
            await asyncio.sleep(0)


# --- topics


async def test_topics_are_told_as_they_were_created(log: Log):
    await log.create([Topic("kept", compact=True, retention_seconds=60)])
    topics = await log.topics()
    assert set(topics) - {"fences"} == {"events", "other", "kept"}
    assert topics["events"].topic == Topic("events", partitions=3)
    assert topics["kept"].topic == Topic("kept", compact=True, retention_seconds=60)
    assert len({info.topic_id for info in topics.values()}) == len(topics)
    assert await log.topics(["kept", "nowhere", "events"]) == {
        name: topics[name] for name in ("kept", "events")
    }
    assert await log.topics() == topics


async def test_creating_again_changes_nothing_and_adds_partitions(log: Log):
    await log.append([message(b"1")])
    before = await log.topics()
    await log.create([Topic("events", partitions=5), Topic("other")])
    after = await log.topics()
    assert after["events"].topic.partitions == 5
    assert after["events"].topic_id == before["events"].topic_id
    assert await values(log, at("other")) == [b"1"]
    assert set(await log.bounds("events")) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    "wrong",
    [
        Topic("events", partitions=2),
        Topic("events", partitions=3, compact=True),
        Topic("events", partitions=3, retention_seconds=1),
        Topic("new", partitions=0),
        Topic("a b"),
        Topic("", partitions=1),
        Topic("new", retention_seconds=-1),
    ],
)
async def test_a_topic_kept_differently_or_malformed_is_refused_and_nothing_created(log: Log, wrong: Topic):
    with pytest.raises(InvalidError):
        await log.create([Topic("fine"), wrong])
    assert set(await log.topics()) == {"events", "other"}


async def test_a_topic_that_does_not_exist_is_named(log: Log):
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: log.append([message(b"1", topic="no")]),
        lambda: log.read({at("no"): 0}),
        lambda: log.bounds("no"),
        lambda: log.truncate("no", 0, 0),
        lambda: log.join("g", "m", ["no"]),
    ]
    for call in calls:
        with pytest.raises(UnknownTopicError) as raised:
            await call()
        assert raised.value.topic == "no"


# --- appending


async def test_offsets_rise_in_each_partition_and_are_those_of_the_entries(log: Log):
    first = await log.append([message(b"1"), message(b"x", topic="events", partition=1), message(b"2")])
    second = await log.append([message(b"3"), message(b"y", topic="events", partition=1)])
    other, events = [first[0], first[2], second[0]], [first[1], second[1]]
    assert other == sorted(set(other))
    assert other[1] == other[0] + 1
    assert events == sorted(set(events))
    entries = await read_all(log, {at("other"): 0, at("events", 1): 0}, 5)
    found = {(entry.position, entry.offset): entry.value for entry in entries}
    assert [found[at("other"), offset] for offset in other] == [b"1", b"2", b"3"]
    assert [found[at("events", 1), offset] for offset in events] == [b"x", b"y"]


async def test_concurrent_appends_each_get_their_own_offsets(log: Log):
    batches = [[message(f"{n}.{i}".encode()) for i in range(3)] for n in range(40)]
    offsets = await asyncio.gather(*(log.append(batch) for batch in batches))
    entries = await log.read({at("other"): 0})
    found = {entry.offset: entry.value for entry in entries}
    assert sorted(found) == list(range(120))
    for batch, given in zip(batches, offsets, strict=True):
        assert list(given) == list(range(given[0], given[0] + 3))
        assert [found[offset] for offset in given] == [sent.value for sent in batch]


async def test_nothing_troubles_a_log_that_answers(log: Log):
    await log.append([Message("events", None, b"1")])
    assert not log.trouble


async def test_an_empty_batch_appends_nothing(log: Log):
    assert list(await log.append([])) == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Message("no", b"k", b"v"), UnknownTopicError),
        (Message("events", b"k", b"v", partition=3), InvalidError),
        (Message("events", b"k", b"v", partition=-1), InvalidError),
        (Message("events", b"k", b"v" * MEBIBYTE), InvalidError),
        (Message("events", b"k", b"v", timestamp_ms=-1), InvalidError),
        (Message("table", None, b"v"), InvalidError),
    ],
)
async def test_a_batch_is_appended_whole_or_not_at_all(log: Log, wrong: Message, error: type[Exception]):
    await log.create([Topic("table", compact=True)])
    good = [message(b"1"), message(b"2", topic="events", partition=0)]
    others = asyncio.gather(*(log.append([message(b"beside")]) for _ in range(5)))
    with pytest.raises(error):
        await log.append([*good, wrong])
    await others
    assert await values(log, at("other")) == [b"beside"] * 5
    assert await values(log, at("events", 0)) == []


async def test_a_batch_too_big_for_the_wire_is_refused_by_every_engine(log: Log):
    large = [message(b"v" * (MEBIBYTE - 1)) for _ in range(16)]
    with pytest.raises(InvalidError, match="in parts"):
        await log.append(large)
    assert await log.bounds("other") == {0: (0, 0)}


async def test_an_entry_of_one_mebibyte_is_kept(log: Log):
    value = os.urandom(MEBIBYTE - 1)
    await log.append([message(value)])
    assert await values(log, at("other")) == [value]


@pytest.mark.parametrize("key", [b"", b"\x00\xff", "schlüssel".encode()])
@pytest.mark.parametrize("value", [None, b"", b"\x00\xfe", "wörter 言葉".encode()])
async def test_bytes_come_back_as_they_went_in(log: Log, key: bytes, value: bytes | None):
    headers = (("a", b"1"), ("ü", b"\x00"), ("a", b"2"), ("empty", b""))
    await log.append([message(value, key, headers=headers, timestamp_ms=1234), message(value, key)])
    first, second = await log.read({at("other"): 0})
    assert (first.key, first.value, first.headers, first.timestamp_ms) == (key, value, headers, 1234)
    assert second.headers == ()


async def test_an_entry_without_a_time_gets_the_time_of_its_append(bench: Bench, log: Log):
    before = int(bench.clock.wall() * 1000)
    await log.append([message(b"1")])
    (entry,) = await log.read({at("other"): 0})
    assert before <= entry.timestamp_ms <= int(bench.clock.wall() * 1000)


async def test_a_key_decides_the_partition_and_no_key_means_the_first(log: Log):
    keys = [f"key-{n}".encode() for n in range(30)]
    await log.append([message(key, key, topic="events") for key in keys])
    await log.append([message(b"none", None, topic="events")])
    await read_all(log, {at("events", partition): 0 for partition in range(3)}, len(keys) + 1)
    for partition in range(3):
        expected = [key for key in keys if partition_for(key, 3) == partition]
        assert expected, "the keys should reach every partition"
        assert await values(log, at("events", partition)) == expected + [b"none"] * (partition == 0)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # from Apache Kafka's UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, hashed: int):
    assert murmur2(key) == hashed & 0xFFFFFFFF


# --- fences


async def test_an_older_fence_is_shut_out_and_appends_nothing(log: Log):
    old = await log.take_fence("writer")
    await log.append([message(b"1")], fence=old)
    new = await log.take_fence("writer")
    assert new.token > old.token
    with pytest.raises(FencedError):
        await log.append([message(b"late")], fence=old)
    await log.append([message(b"2")], fence=new)
    await log.append([message(b"3")])
    assert [entry.value for entry in await read_all(log, {at("other"): 0}, 3)] == [b"1", b"2", b"3"]


async def test_the_end_is_behind_the_last_entry_that_can_be_read(log: Log):
    fence = await log.take_fence("writer")
    offsets = await log.append([message(b"1"), message(b"x", topic="events", partition=1)], fence=fence)
    await read_all(log, {at("other"): 0, at("events", 1): 0}, 2)
    assert (await log.bounds("other"))[0].end == offsets[0] + 1
    assert {number: held.end for number, held in (await log.bounds("events")).items()} == {
        0: 0,
        1: offsets[1] + 1,
        2: 0,
    }


async def test_fences_of_different_names_do_not_meet_and_none_can_be_made_up(log: Log):
    one, two = await log.take_fence("one"), await log.take_fence("two")
    await log.append([message(b"1")], fence=one)
    await log.append([message(b"2")], fence=two)
    # As after an older copy of the log was put back, which knows nothing of the newest takings.
    with pytest.raises(ConflictError, match="take the fence again"):
        await log.append([message(b"x")], fence=Fence("one", one.token + 1))
    # As after the log was lost and made anew: whoever held the name may take it again.
    with pytest.raises(ConflictError, match="take the fence again"):
        await log.append([message(b"x")], fence=Fence("three", 1))
    await log.append([message(b"3")])
    assert [entry.value for entry in await read_all(log, {at("other"): 0}, 3)] == [b"1", b"2", b"3"]


# --- reading


async def test_reads_begin_where_asked_and_take_turns_when_there_is_more(log: Log):
    for partition in range(3):
        await log.append(
            [message(f"{partition}.{n}".encode(), topic="events", partition=partition) for n in range(20)]
        )
    entries = await log.read({at("events", 0): 15, at("events", 1): 0, at("events", 2): 20}, most=12)
    assert [entry.offset for entry in entries if entry.partition == 0] == [15, 16, 17, 18, 19]
    assert [entry.offset for entry in entries if entry.partition == 1] == list(range(7))


async def test_no_partition_starves_when_a_read_holds_fewer_entries_than_partitions(log: Log):
    positions = {at("events", partition): 0 for partition in range(3)}
    await log.append([message(b"v", topic="events", partition=n % 3) for n in range(12)])
    await read_all(log, dict(positions), 12)  # so that all can be read
    for _ in range(6):
        for entry in await log.read(positions, most=1):
            positions[entry.position] = entry.offset + 1
    assert set(positions.values()) == {2}


async def test_one_read_returns_a_bounded_number_of_bytes(log: Log):
    for _ in range(2):
        await log.append([message(b"v" * (MEBIBYTE - 1)) for _ in range(8)])
    got, offset = 0, 0
    while entries := await log.read({at("other"): offset}):
        assert len(entries) <= 9
        assert entries[0].offset >= offset
        got += len(entries)
        offset = entries[-1].offset + 1
    assert got == 16


@pytest.mark.parametrize("offset", [-1, 4])
async def test_an_offset_outside_is_refused_with_the_bounds(log: Log, offset: int):
    await log.append([message(b"v") for _ in range(3)])
    with pytest.raises(OutOfRangeError) as raised:
        await log.read({at("other"): offset})
    error = raised.value
    assert (error.topic, error.partition, error.offset, error.start, error.end) == ("other", 0, offset, 0, 3)


async def test_a_partition_that_does_not_exist_is_refused(log: Log):
    with pytest.raises(InvalidError, match="events/3"):
        await log.read({at("events", 3): 0})
    with pytest.raises(InvalidError, match="other/1"):
        await log.truncate("other", 1, 0)
    with pytest.raises(InvalidError):
        await log.read({at("other", 1 << 63): 0})


async def test_a_read_at_the_end_returns_nothing_once_its_time_is_up(log: Log):
    await log.append([message(b"v")])
    assert list(await log.read({at("other"): 1})) == []
    assert list(await log.read({at("other"): 1}, wait_seconds=0.01)) == []


async def test_a_waiting_read_is_woken_by_an_append_to_any_of_its_partitions(log: Log):
    for n in range(5):
        task = await waiting(log, {at("events", 2): n, at("other"): 0})
        await log.append([message(b"not waited for", topic="events", partition=1)])
        await log.append([message(str(n).encode(), topic="events", partition=2)])
        assert [entry.value for entry in await task] == [str(n).encode()]


async def test_many_waiting_reads_are_all_woken_once_it_is_there(log: Log):
    tasks = [await waiting(log, {at("other"): 0}) for _ in range(10)]
    await log.append([message(b"v")])
    assert [len(await task) for task in tasks] == [1] * 10


async def test_no_wakeup_is_lost_between_looking_and_waiting(log: Log):
    async def follow() -> list[int]:
        seen: list[int] = []
        while len(seen) < 100:
            seen += [
                entry.offset for entry in await log.read({at("other"): len(seen)}, wait_seconds=30, most=1)
            ]
        return seen

    following = asyncio.create_task(follow())
    for n in range(100):
        await log.append([message(str(n).encode())])
    async with asyncio.timeout(20):
        assert await following == list(range(100))


@embedded
async def test_a_cancelled_waiting_read_leaves_nothing_behind(bench: Bench, log: Log):
    level = bench.kept._changed if isinstance(bench.kept, MemoryLog) else bench.kept._wakeup.changed
    tasks = [await waiting(log, {at("other"): 0}) for _ in range(5)]
    await until(log, lambda: len(level._waiters) == 5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(log, lambda: not level._waiters)  # a server learns a little later that its client has left
    await log.append([message(b"v")])
    assert await values(log, at("other")) == [b"v"]


# --- truncation, compaction, retention


async def test_truncation_removes_what_is_below_and_reuses_no_offset(log: Log):
    await log.append([message(str(n).encode()) for n in range(5)])
    await log.truncate("other", 0, 3)
    await log.truncate("other", 0, 1)  # below the start: nothing left to do
    assert await log.bounds("other") == {0: (3, 5)}
    assert await values(log, at("other"), 3) == [b"3", b"4"]
    with pytest.raises(OutOfRangeError):
        await log.read({at("other"): 2})
    await log.truncate("other", 0, 5)
    assert await log.bounds("other") == {0: (5, 5)}
    assert list(await log.append([message(b"5")])) == [5]


@pytest.mark.parametrize("before", [-1, 3])
async def test_truncation_outside_is_refused(log: Log, before: int):
    await log.append([message(b"v"), message(b"v")])
    with pytest.raises(OutOfRangeError):
        await log.truncate("other", 0, before)
    assert await log.bounds("other") == {0: (0, 2)}


@embedded
async def test_compaction_keeps_the_newest_entry_of_each_key(bench: Bench, log: Log):
    await log.create([Topic("table", compact=True)])
    for n in range(3):
        await log.append([message(f"{k}{n}".encode(), k.encode(), topic="table") for k in "abc"])
        await bench.clean()
    await log.append([message(b"a3", b"a", topic="table")])
    assert await bench.clean() == 1
    assert await bench.clean() == 0
    entries = await log.read({at("table"): 0})
    assert [(entry.offset, entry.value) for entry in entries] == [(7, b"b2"), (8, b"c2"), (9, b"a3")]
    assert await log.bounds("table") == {0: (0, 10)}
    assert [entry.offset for entry in await log.read({at("table"): 8})] == [8, 9]


@embedded
async def test_compaction_of_many_entries_keeps_one_a_key(bench: Bench, log: Log):
    await log.create([Topic("table", partitions=2, compact=True)])
    sent = [message(str(n).encode(), str(n % 7).encode(), topic="table") for n in range(2500)]
    await log.append(sent)
    assert await bench.clean() == 2493
    entries = await log.read({at("table", 0): 0, at("table", 1): 0})
    assert sorted(int(entry.value or b"") for entry in entries) == list(range(2493, 2500))


@embedded
async def test_tombstones_go_after_their_retention_and_take_their_key_along(bench: Bench, log: Log):
    await log.create([Topic("table", compact=True, retention_seconds=60), Topic("day", compact=True)])
    for topic in ("table", "day"):
        await log.append([message(b"1", b"a", topic=topic), message(b"1", b"b", topic=topic)])
        await log.append([message(None, b"a", topic=topic)])
    await bench.clean()
    assert await values(log, at("table")) == [b"1", None]
    bench.advance(61)
    assert await bench.clean() == 1
    assert await values(log, at("table")) == [b"1"]
    assert await values(log, at("day")) == [b"1", None]
    bench.advance(86_400)
    await bench.clean()
    assert await values(log, at("day")) == [b"1"]
    assert list(await log.append([message(b"2", b"a", topic="table")])) == [3]


@embedded
async def test_retention_removes_old_entries_from_the_front_only(bench: Bench, log: Log):
    await log.create([Topic("short", retention_seconds=60)])
    # The entry's own time does not count: mirrored entries keep theirs.
    await log.append([message(b"old", topic="short", timestamp_ms=int(bench.clock.wall() * 1000) + 10**6)])
    bench.advance(50)
    await log.append([message(b"young", topic="short", timestamp_ms=1), message(b"for ever")])
    bench.advance(20)
    assert await bench.clean() == 1
    assert await log.bounds("short") == {0: (1, 2)}
    assert await values(log, at("short"), 1) == [b"young"]
    bench.advance(10**6)
    assert await bench.clean() == 1
    assert await log.bounds("short") == {0: (2, 2)}
    assert list(await log.append([message(b"next", topic="short")])) == [2]
    assert await values(log, at("other")) == [b"for ever"]


# --- consumer groups


async def settled(
    bench: Bench, members: dict[str, list[str]], group: str = "g", session_seconds: float = 10.0
) -> dict[str, Membership]:
    """The places of the members once they all know of each other: one generation, nothing left over."""
    async with asyncio.timeout(60):
        while True:
            places = {
                name: await bench.log.join(group, name, topics, session_seconds=session_seconds)
                for name, topics in members.items()
            }
            assigned = [position for place in places.values() for position in place.assigned]
            known = {position.topic for position in assigned}
            wanted = {topic for topics in members.values() for topic in topics}
            if len({place.generation for place in places.values()}) == 1 and known == wanted:
                return places
            await asyncio.sleep(0.01)


async def test_partitions_are_spread_evenly_and_each_change_is_a_generation(bench: Bench, log: Log):
    everything = {at("events", 0), at("events", 1), at("events", 2), at("other")}
    first = (await settled(bench, {"m1": ["events", "other"]}))["m1"]
    assert set(first.assigned) == everything
    assert (await log.join("g", "m1", ["events", "other"])).generation == first.generation
    both = await settled(bench, {"m1": ["events", "other"], "m2": ["events", "other"]})
    assert both["m1"].generation > first.generation
    assert sorted([*both["m1"].assigned, *both["m2"].assigned]) == sorted(everything)
    assert len(both["m1"].assigned) == len(both["m2"].assigned) == 2
    assert (await log.join("g", "m2", [])).assigned == ()
    alone = (await settled(bench, {"m1": ["events", "other"]}))["m1"]
    while set(alone.assigned) != everything:
        alone = (await settled(bench, {"m1": ["events", "other"]}))["m1"]
    assert alone.generation > both["m1"].generation


async def test_a_member_that_falls_silent_loses_its_place(bench: Bench, log: Log):
    silent = (await settled(bench, {"a": ["other"]}, session_seconds=1.0))["a"]
    bench.advance(0.9)
    assert (await log.join("g", "b", ["other"], session_seconds=10)).assigned == ()
    bench.advance(0.2)
    alive = (await settled(bench, {"b": ["other"]}))["b"]
    assert alive.assigned == (at("other"),)
    with pytest.raises(GenerationError):
        await log.commit(silent, {at("other"): 1})
    await log.commit(alive, {at("other"): 2})
    assert await log.committed("g") == {at("other"): 2}


async def test_more_partitions_are_a_new_generation(bench: Bench, log: Log):
    before = (await settled(bench, {"m": ["events"]}))["m"]
    await log.create([Topic("events", partitions=4)])
    after = (await settled(bench, {"m": ["events"]}))["m"]
    assert after.generation > before.generation
    assert len(after.assigned) == 4


async def test_commits_are_checked_and_kept_by_group(bench: Bench, log: Log):
    assert await log.committed("g") == {}
    early = (await settled(bench, {"m1": ["events"]}))["m1"]
    places = await settled(bench, {"m1": ["events"], "m2": ["events"]})
    one, two = places["m1"], places["m2"]
    with pytest.raises(GenerationError):
        await log.commit(early, {early.assigned[0]: 1})
    with pytest.raises(ForbiddenError):
        await log.commit(one, {one.assigned[0]: 1, two.assigned[0]: 1})
    with pytest.raises(GenerationError):
        await log.commit(Membership("nobody", "m", 0, (at("other"),)), {at("other"): 1})
    assert await log.committed("g") == {}
    await log.commit(one, {one.assigned[0]: 1})
    await log.commit(two, {two.assigned[0]: 2})
    await log.commit(one, {one.assigned[0]: 3})
    assert await log.committed("g") == {one.assigned[0]: 3, two.assigned[0]: 2}
    assert await log.committed("h") == {}
