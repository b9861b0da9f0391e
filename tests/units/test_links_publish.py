"""The publisher: a region's topic carries the newest state of a source, whatever happens in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_parts import CLOCK, AnswersLost, MemorySource, everything, log_of, running, texts

from transom.links import sweep as sweep_module
from transom.links import sweeping
from transom.links.carrier import Carrier
from transom.links.positions import POSITIONS, position_message, read_position
from transom.links.publish import Publisher, PublishState, SourcePosition, parts
from transom.links.sweep import differences, in_groups
from transom.links.sweeping import Sweeper
from transom.logs.protocol import Fence, Log, Message, Topic, TopicPartition
from transom.logs.records import from_entry
from transom.logs.rules import BATCH_BYTES_MAX, ENTRY_BYTES_MAX
from transom.model.errors import FencedError, InvalidError, RewoundError, UnreachableError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.randomness import Randomness
from transom.tables import sweeps
from transom.tables.core import newest
from transom.tables.digests import BUCKETS, digest_of
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable
from transom.tables.sweeps import BUCKETS_A_REQUEST_MAX, DIGESTS, SWEEPS, RowVersion, answer_sweeps

TOPIC = Topic("desired", partitions=3, compact=True)
SELDOM = 1e6


class Listening:
    """A log that says when somebody has begun to read it."""

    def __init__(self, log: Log) -> None:
        self.listening = asyncio.Event()
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        self.listening.set()
        return await self._log.read(*args, **kwargs)


@dataclass
class Bench:
    """A source, the region's log and the region's table."""

    log: Log
    source: MemorySource = field(default_factory=MemorySource)
    table: MemoryTable = field(default_factory=MemoryTable)

    def publisher(self, sweep_seconds: float = SELDOM, source: MemorySource | None = None) -> Publisher:
        return Publisher(
            "control-eu",
            source or self.source,
            self.log,
            TOPIC.name,
            lambda: ("desired",),
            CLOCK,
            Randomness(1),
            sweep_seconds,
        )

    @contextlib.asynccontextmanager
    async def region(self) -> AsyncIterator[None]:
        """The region's process: keeps the table and answers every sweep asked for within the block."""
        heard = Listening(self.log)
        keeping = keep(self.table, self.log, [TOPIC.name])
        async with running(keeping, answer_sweeps("desired", self.table, heard)):  # type: ignore[arg-type]
            await heard.listening.wait()
            yield

    async def applied(self) -> None:
        """Return once the table has read all that the topic holds."""
        async with asyncio.timeout(30):
            while True:
                seen = self.table.changed.value
                ends = {
                    at: bounds.end for at, bounds in (await self.log.bounds(TOPIC.name)).items() if bounds.end
                }
                held = {at.partition: offset for at, offset in (await self.table.positions()).items()}
                if ends == held:
                    return
                await self.table.changed.above(seen)

    async def published(self, count: int) -> list[str]:
        return texts(await everything(self.log, TOPIC.name, count))


@pytest.fixture(params=["memory", "sqlite"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with log_of(request.param, tmp_path / "eu.log") as log:
        await log.create([TOPIC, SWEEPS, DIGESTS])
        yield Bench(log)


async def test_a_storm_of_changes_costs_one_record_a_key(bench: Bench) -> None:
    for number in range(300):
        bench.source.put(f"k{number % 3}")
    async with running(bench.publisher().run()):
        assert await bench.published(3) == ["k0@298", "k1@299", "k2@300"]
        bench.source.put("k1")
        bench.source.delete("k2")
        assert await bench.published(5) == ["k0@298", "k1@299", "k1@301", "k2@300", "{}"]
    entries = await everything(bench.log, TOPIC.name)
    assert {from_entry(entry) for entry in entries} >= set(bench.source.held.values())


async def test_more_changes_than_a_batch_arrive_each_once(bench: Bench) -> None:
    for number in range(1203):
        bench.source.put(f"k{number}")
    async with running(bench.publisher().run()):
        assert await bench.published(1203) == sorted(f"k{n}@{n + 1}" for n in range(1203))


async def test_a_restart_goes_on_where_it_was_and_appends_nothing_twice(bench: Bench) -> None:
    bench.source.put("a")
    bench.source.put("b")
    async with running(bench.publisher().run()):
        await bench.published(2)
    bench.source.put("b")
    bench.source.put("c")
    async with running(bench.publisher().run()):
        assert await bench.published(4) == ["a@1", "b@2", "b@3", "c@4"]
    assert await read_position(bench.log, "control-eu", SourcePosition) == SourcePosition(1, 4)
    async with running(bench.publisher().run()):
        bench.source.put("d")
        assert await bench.published(5) == ["a@1", "b@2", "b@3", "c@4", "d@5"]


async def test_being_cancelled_anywhere_loses_nothing(bench: Bench) -> None:
    for turns in range(60):
        bench.source.put(f"k{turns}")
        task = asyncio.create_task(bench.publisher().run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    async with running(bench.publisher().run()):
        entries = await everything(bench.log, TOPIC.name, 60)
    # An append whose answer was lost is never repeated: the position went with it.
    assert sorted(entry.key or b"" for entry in entries) == sorted(b"k%d" % n for n in range(60))


async def test_whenever_it_dies_after_an_append_each_record_is_there_once(bench: Bench) -> None:
    dying = Bench(AnswersLost(bench.log, "append"), bench.source)  # type: ignore[arg-type]
    for number in range(5):
        bench.source.put(f"a{number}")
        bench.source.put(f"b{number}")
        with pytest.raises(UnreachableError):
            await dying.publisher().run()
    # The position went with the records of each append: nothing is missing, and nothing comes again.
    expected = sorted(row.value.decode() for row in bench.source.held.values())
    assert texts(await everything(bench.log, TOPIC.name)) == expected


async def test_a_former_publisher_is_refused_and_appends_nothing(bench: Bench) -> None:
    bench.source.put("a")
    former = asyncio.create_task(bench.publisher().run())
    await bench.published(1)
    other = MemorySource()
    other.put("a")
    other.put("z", "by the new one")
    async with running(bench.publisher(source=other).run()):
        await bench.published(2)
        bench.source.put("b", "too late")
        with pytest.raises(FencedError):
            await former
    assert await bench.published(2) == ["a@1", "by the new one"]


async def test_a_source_that_lost_its_storage_publishes_all_anew_and_sweeps_at_once(bench: Bench) -> None:
    for key in ("a", "b", "forgotten"):
        bench.source.put(key)
    async with running(bench.publisher().run()):
        await bench.published(3)
    reborn = MemorySource(epoch=2)
    reborn.put("a", "new a")
    reborn.put("b", "new b")
    publisher = bench.publisher(source=reborn)
    async with bench.region(), running(publisher.run()), asyncio.timeout(30):
        while not publisher.state.last_sweep:
            await asyncio.sleep(0)
        await bench.applied()
        # What the source lost is not what somebody deleted: it stays, and is said.
        assert publisher.state.strangers == ["forgotten"]
        kept = {row.key: row.version.epoch for row in await bench.table.scan()}
        assert kept == {"a": 2, "b": 2, "forgotten": 1}


async def test_an_older_copy_of_its_source_begins_a_new_epoch_instead_of_publishing(bench: Bench) -> None:
    for key in ("a", "b", "forgotten"):
        bench.source.put(key)
    async with running(bench.publisher().run()):
        await bench.published(3)
    restored = MemorySource(epoch=1)
    restored.put("a")
    with pytest.raises(RewoundError, match="up to revision 3, the store is at 1"):
        await bench.publisher(source=restored).run()
    assert restored.epoch == 2
    assert len(await everything(bench.log, TOPIC.name, 3)) == 3


async def test_a_copy_of_its_source_that_is_put_back_a_second_time_is_noticed(bench: Bench) -> None:
    """It is of an epoch before: whatever it publishes would be older than all that the region has."""
    later = MemorySource(epoch=7)
    later.put("a")
    async with running(bench.publisher(source=later).run()):
        await bench.published(1)
    restored = MemorySource(epoch=1)
    for key in ("a", "b", "c"):
        restored.put(key)
    with pytest.raises(RewoundError, match="published in epoch 7, the store is of epoch 1"):
        async with asyncio.timeout(10):
            await bench.publisher(source=restored).run()
    assert restored.epoch == 8
    assert len(await everything(bench.log, TOPIC.name, 1)) == 1


async def test_records_of_any_size_are_published_in_parts(bench: Bench) -> None:
    for number in range(20):
        bench.source.put(f"k{number}", str(number % 10) * 900_000)
    async with running(bench.publisher().run()):
        assert len(await everything(bench.log, TOPIC.name, 20)) == 20
    assert await read_position(bench.log, "control-eu", SourcePosition) == SourcePosition(1, 20)


@given(st.lists(st.integers(0, ENTRY_BYTES_MAX), max_size=40))
def test_parts_keep_the_order_and_fit(sizes: list[int]) -> None:
    block = bytes(ENTRY_BYTES_MAX)
    messages = [Message("t", None, block[:size]) for size in sizes]
    divided = parts(messages)
    assert [message for part in divided for message in part] == messages
    assert all(sum(len(message.value or b"") for message in part) < BATCH_BYTES_MAX for part in divided)
    assert all(divided) or not sizes


async def test_a_position_that_is_none_is_refused(bench: Bench) -> None:
    await bench.log.create([POSITIONS])
    await bench.log.append([position_message("control-eu", Fence("x", 1))])
    with pytest.raises(InvalidError, match="position of link 'control-eu'"):
        await bench.publisher().run()


# --- sweeps --------------------------------------------------------------------------------------------


async def sweeper_of(bench: Bench) -> Sweeper:
    """The sweeper of a publisher that does not run: a sweep publishes what is missing before it compares."""
    publisher = bench.publisher()
    carrier = Carrier(publisher.link, bench.log, TOPIC.name, publisher.lane, CLOCK, publisher.state)
    await carrier.begin(bench.source.epoch)
    return publisher.sweeper(carrier)


@contextlib.asynccontextmanager
async def swept(bench: Bench) -> AsyncIterator[tuple[Sweeper, PublishState]]:
    """A sweeper that has found the table as the source is, with the region listening."""
    async with bench.region():
        sweeper = await sweeper_of(bench)
        await sweeper.sweep()
        await bench.applied()
        assert await bench.table.scan() == bench.source.live()
        state = sweeper.carrier.state
        state.differences_found = 0
        yield sweeper, state


async def ends_of(log: Log, topic: str) -> list[int]:
    return [bounds.end for bounds in (await log.bounds(topic)).values()]


async def test_a_sweep_of_equals_appends_nothing_to_the_topic(bench: Bench) -> None:
    for number in range(50):
        bench.source.put(f"k{number}")
    bench.source.delete("k7")
    async with swept(bench) as (sweeper, state):
        before, positions = await ends_of(bench.log, TOPIC.name), await ends_of(bench.log, POSITIONS.name)
        asked = len(await everything(bench.log, SWEEPS.name))
        state.last_sweep = 0.0
        assert await sweeper.sweep() == 0
        assert await ends_of(bench.log, TOPIC.name) == before
        assert await ends_of(bench.log, POSITIONS.name) == [positions[0] + 1], "when it swept, and no more"
        assert len(await everything(bench.log, SWEEPS.name)) == asked + 1
        assert state.last_sweep > 0
        assert state.differences_found == 0


def _lose_a_row(bench: Bench) -> None:
    del bench.table._rows["k1"]


def _make_a_row_stale(bench: Bench) -> None:
    bench.table._rows["k2"] = Record("k2", Version(1, 1, "hub"), b"old")


def _invent_a_row(bench: Bench) -> None:
    bench.table._rows["ghost"] = Record("ghost", Version(1, 2, "hub"), b"boo")


def _lose_a_delete(bench: Bench) -> None:
    bench.table._rows["gone"] = Record("gone", Version(1, 20, "hub"), b"was")


@pytest.mark.parametrize("damage", [_lose_a_row, _make_a_row_stale, _invent_a_row, _lose_a_delete])
async def test_a_sweep_mends_and_counts_each_kind_of_difference(bench: Bench, damage) -> None:
    for number in range(20):
        bench.source.put(f"k{number}")
    bench.source.put("gone")
    bench.source.delete("gone")
    async with swept(bench) as (sweeper, state):
        damage(bench)
        ends = sum(await ends_of(bench.log, TOPIC.name))
        assert await sweeper.sweep() == 1
        assert state.differences_found == 1
        await bench.applied()
        assert await bench.table.scan() == bench.source.live()
        assert sum(await ends_of(bench.log, TOPIC.name)) == ends + 1
        assert await sweeper.sweep() == 0


async def test_a_sweep_mends_everything_at_once(bench: Bench) -> None:
    for number in range(700):
        bench.source.put(f"k{number}")
    async with swept(bench) as (sweeper, _):
        bench.table._rows.clear()
        assert await sweeper.sweep() == 700
        await bench.applied()
        assert await bench.table.scan() == bench.source.live()


class Racing(MemorySource):
    """A source in which something changes at the beginning and at the end of each look at its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.then = ["put k1", "put new", "del k2"], ["put k3", "put newer", "del k4", "del new"]

    async def rows(self) -> AsyncIterator[Sequence[Record]]:
        self._change(self.first)
        async for page in super().rows():
            yield page
        self._change(self.then)

    def _change(self, todo: list[str]) -> None:
        while todo:
            what, _, key = todo.pop().partition(" ")
            self.put(key, deleted=what == "del")


@pytest.mark.parametrize("publishing", [False, True])
async def test_what_changes_during_a_sweep_is_no_difference(bench: Bench, *, publishing: bool) -> None:
    racing = Racing()
    for number in range(20):
        racing.put(f"k{number}")
    wanted = list(racing.first), list(racing.then)
    racing.first, racing.then = [], []
    bench.source = racing
    async with swept(bench) as (sweeper, _):
        racing.first, racing.then = wanted
        if publishing:
            # What is changed at the beginning is in the table before it says its digest.
            drain = sweeper.drain

            class Passing(Racing):
                async def rows(self) -> AsyncIterator[Sequence[Record]]:
                    async for page in super().rows():
                        yield page
                        await drain()

            racing.__class__ = Passing
        before = len(await everything(bench.log, TOPIC.name))
        assert await sweeper.sweep() == 0
        assert not racing.then
        await sweeper.drain()
        await bench.applied()
        assert await bench.table.scan() == racing.live()
        # Each change went once; nothing was sent because of the sweep.
        sent = [from_entry(entry) for entry in (await everything(bench.log, TOPIC.name))]
        assert len(sent) > before
        assert len({(row.key, row.version) for row in sent}) == len(sent)


async def test_an_answer_waits_until_the_table_has_read_far_enough() -> None:
    table = MemoryTable()
    row = Record("a", Version(1, 1, "hub"), b"a")
    reached = asyncio.create_task(sweeps._reached(table, {"desired/0": 2, "desired/1": 1}))
    await table.apply([row], {TopicPartition("desired", 0): 2})
    for _ in range(5):
        await asyncio.sleep(0)
    assert not reached.done()
    # A batch that changes no row moves the position all the same, and the answerer must hear of it.
    await table.apply([row], {TopicPartition("desired", 1): 1})
    async with asyncio.timeout(5):
        assert await reached


async def test_sweeps_come_by_themselves(bench: Bench) -> None:
    bench.source.put("a")
    async with bench.region():
        asked = len(await everything(bench.log, SWEEPS.name))
        publisher = bench.publisher(sweep_seconds=0.01)
        async with running(publisher.run()):
            await everything(bench.log, SWEEPS.name, asked + 3)
        assert publisher.state.last_sweep > 0


async def test_when_it_swept_last_is_known_after_a_restart(bench: Bench) -> None:
    bench.source.put("a")
    async with bench.region():
        async with running(bench.publisher(sweep_seconds=0.01).run()):
            await until_swept(bench)
        again = bench.publisher()
        async with running(again.run()), asyncio.timeout(20):
            while not again.state.started:
                await again.state.moved.above(again.state.moved.value)
        assert again.state.last_sweep > 0


async def until_swept(bench: Bench) -> None:
    """Wait until the position says that a sweep came to its end."""
    async with asyncio.timeout(20):
        while POSITIONS.name not in await bench.log.topics():
            await asyncio.sleep(0.001)
        while True:
            held = await read_position(bench.log, "control-eu", SourcePosition)
            if held is not None and held.swept > 0:
                return
            await asyncio.sleep(0.001)


async def test_nobody_answering_is_said_and_tried_again_while_publishing_goes_on(
    bench: Bench, monkeypatch
) -> None:
    monkeypatch.setattr(sweep_module, "_ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(sweeping, "_AGAIN_SECONDS", 0.01)
    publisher = bench.publisher(sweep_seconds=0.01)
    async with running(publisher.run()):
        await everything(bench.log, SWEEPS.name, 3)
        assert "is the region's process running" in publisher.state.sweep_problem
        bench.source.put("a")
        assert await bench.published(1) == ["a@1"]
        monkeypatch.setattr(sweep_module, "_ANSWER_SECONDS", 20.0)
        async with bench.region(), asyncio.timeout(20):
            while publisher.state.sweep_problem:
                await asyncio.sleep(0.01)
        assert publisher.state.last_sweep > 0


async def test_a_sweep_that_waits_for_an_answer_holds_nothing_up(bench: Bench) -> None:
    bench.source.put("a")
    publisher = bench.publisher(sweep_seconds=0.0)
    async with running(publisher.run()):
        await everything(bench.log, SWEEPS.name, 1)  # asked, and nobody will answer
        bench.source.put("b")
        assert await bench.published(2) == ["a@1", "b@2"]


# --- the heart of a sweep, alone -----------------------------------------------------------------------

KEYS = st.sampled_from("abcdef")
ROWS = st.dictionaries(KEYS, st.integers(1, 30), max_size=6)


def _rows(held: dict[str, int], epoch: int = 1) -> dict[str, Record]:
    return {key: Record(key, Version(epoch, at, "hub"), f"{key}{at}".encode()) for key, at in held.items()}


@given(source=ROWS, held=ROWS, later=ROWS)
def test_repairs_make_the_table_agree_with_the_snapshot(
    source: dict[str, int], held: dict[str, int], later: dict[str, int]
) -> None:
    revision = 30
    mine = _rows(source)
    # A region can hold anything older of a row, but not a version that the source never gave.
    table = _rows({key: min(at, source.get(key, at)) for key, at in held.items()})
    after = _rows({key: at + revision for key, at in later.items()})
    table.update(after)
    known = [RowVersion(row.key, row.version, row.fingerprint()) for row in table.values()]
    repairs = differences(list(mine.values()), revision, 1, known)
    table.update(newest(repairs, table.get))
    assert {key: table[key] for key in after} == after
    untouched = {key: row for key, row in mine.items() if key not in after}
    live = [row for row in table.values() if not row.deleted and row.key not in after]
    assert digest_of(live) == digest_of(untouched.values())


def test_other_bytes_at_the_same_version_are_left_to_a_person() -> None:
    row = Record("a", Version(1, 1, "hub"), b"good")
    damaged = Record("a", Version(1, 1, "hub"), b"goof")
    held = [RowVersion("a", damaged.version, damaged.fingerprint())]
    assert differences([row], 1, 1, held) == []


def test_rows_beyond_the_revision_are_on_their_way_and_left_alone() -> None:
    newer = [Record(key, Version(1, 11, "hub"), b"newer") for key in ("a", "b", "c")]
    held = [
        RowVersion("a", Version(1, 3, "hub"), b""),
        RowVersion("b", Version(1, 12, "hub"), b""),
        RowVersion("d", Version(1, 12, "hub"), b""),
    ]
    assert differences(newer, 10, 1, held) == []
    assert [row.key for row in differences(newer, 11, 1, held)] == ["a", "c"]


@given(st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(0, 40_000), max_size=200))
def test_buckets_are_asked_for_in_groups_of_bounded_size(rows: dict[int, int]) -> None:
    counts = [rows.get(bucket, 0) for bucket in range(BUCKETS)]
    groups = list(in_groups(sorted(rows), counts))
    assert [bucket for group in groups for bucket in group] == sorted(rows)
    for group in groups:
        assert 0 < len(group) <= BUCKETS_A_REQUEST_MAX
        assert len(group) == 1 or sum(counts[bucket] for bucket in group) <= sweep_module._ROWS_A_REQUEST


def test_rows_of_a_later_epoch_are_left_alone() -> None:
    row = Record("a", Version(7, 1, "hub"), b"later")
    assert differences([], 10, 6, [RowVersion("a", row.version, row.fingerprint())]) == []


@pytest.mark.parametrize(
    ("ago", "least", "most"),
    [
        (300.0, 230.0, 365.0),  # the rest of the period, whenever it was started anew
        (5000.0, 0.5, 1.5),
        (-5000.0, 500.0, 700.0),  # a clock that was set back delays no sweep for longer than a period
    ],
)
async def test_the_next_sweep_follows_from_the_last_one(
    bench: Bench, ago: float, least: float, most: float
) -> None:
    sweeper = await sweeper_of(bench)
    sweeper.period_seconds = 600.0
    sweeper.carrier.state.last_sweep = CLOCK.wall() - ago
    assert least <= sweeper._due_in() <= most


async def test_who_never_swept_does_so_soon(bench: Bench) -> None:
    assert (await sweeper_of(bench))._due_in() <= 60.0


async def test_a_sweep_that_is_overdue_when_the_hub_is_started_comes_soon(bench: Bench) -> None:
    bench.source.put("a")
    await bench.log.create([POSITIONS])
    await bench.log.append([position_message("control-eu", SourcePosition(1, 0, swept=1.0))])
    publisher = bench.publisher()
    async with bench.region(), running(publisher.run()), asyncio.timeout(20):
        while publisher.state.last_sweep <= 1.0:
            await CLOCK.sleep(0.01)  # the publisher's own, a second after its start


async def test_who_is_not_the_one_any_more_publishes_nothing(bench: Bench) -> None:
    bench.source.put("a")

    async def refused() -> None:
        assert (await bench.log.take_fence("control-eu")).token == 2, "asked once the fence was taken"
        raise FencedError("another has taken over")

    publisher = bench.publisher()
    publisher.confirm = refused
    with pytest.raises(FencedError, match="another has taken over"):
        await publisher.run()
    assert all(bounds.end == 0 for bounds in (await bench.log.bounds(TOPIC.name)).values())
