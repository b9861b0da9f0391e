"""The two lanes of contexts: fills, canaries, seals, rates, freezes, and a sweep over both."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_parts import CLOCK, AnswersLost, MemorySource, everything, running

from transom.links import sweep as sweep_module
from transom.links import sweeping
from transom.links.lanes import Freeze, Lane, TokenBucket
from transom.links.positions import read_position
from transom.links.publish import Publisher, SourcePosition, no_tables
from transom.links.source import Changes
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Entry, Message, Topic, TopicPartition
from transom.logs.records import from_entry
from transom.model.errors import InvalidError, UnreachableError
from transom.model.records import Record
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, CONTEXTS_BULK, Canary
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level
from transom.runtime.signing import Trust, new_signer
from transom.tables.keeper import keep
from transom.tables.memory import MemoryTable
from transom.tables.seals import Seals, seal
from transom.tables.sweeps import DIGESTS, SWEEPS, answer_sweeps

SELDOM = 1e6
SIGNER = new_signer()
TOPICS = [Topic(CONTEXTS, compact=True), Topic(CONTEXTS_BULK, compact=True), SWEEPS, DIGESTS]
LANES = {CONTEXTS: "fast", CONTEXTS_BULK: "bulk"}


class LaneSource:
    """One lane of a source of both: keys that begin with "b" go by the bulk lane, which a gate may hold."""

    def __init__(self, all_rows: MemorySource, lane: str) -> None:
        self.all = all_rows
        self.changed = all_rows.changed
        self.gate = 10**9
        self.known: int | None = None
        self.asked = Level()
        self._lane = lane

    @property
    def epoch(self) -> int:
        return self.all.epoch

    async def revision(self) -> int:
        return self.all.changed.value

    async def begin_epoch(self, above: int) -> None:
        self.all.epoch = above + 1

    async def changes(self, after: int, most: int, *, every_lane: bool = False) -> Changes:
        self.asked.rise()
        gate = 10**9 if every_lane else self.gate
        rows, upto, more, _ = await self.all.changes(after, most)
        mine = [
            row for row in rows if (every_lane or lane_of(row) == self._lane) and row.version.counter <= gate
        ]
        upto, more = max(after, min(upto, gate)), more and upto < gate
        return Changes(mine, upto, more, self.known)

    def rows(self) -> AsyncIterator[Sequence[Record]]:
        return self.all.rows()

    async def changed_since(self, keys: Sequence[str], revision: int) -> set[str]:
        return await self.all.changed_since(keys, revision)


def lane_of(row: Record) -> str:
    return "bulk" if row.key.startswith("b") else "fast"


@dataclass
class Bench:
    """A hub's rows, the two publishers of a region, its log, and one gateway's table."""

    log: MemoryLog
    rows: MemorySource = field(default_factory=MemorySource)
    table: MemoryTable = field(default_factory=MemoryTable)
    freeze: Freeze = field(default_factory=Freeze)
    heard: list[str] = field(default_factory=lambda: ["contexts/one"])
    canary_seconds: float = 0.02
    rate: TokenBucket | None = None

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        """New publishers, as after a restart of the hub."""
        self.sources = {lane: LaneSource(self.rows, lane) for lane in ("fast", "bulk")}
        self.fast = self._publisher("fast", CONTEXTS, CANARY_FAST)
        self.bulk = self._publisher("bulk", CONTEXTS_BULK, CANARY_BULK)
        self.bulk.beside = [self.fast]

    def _publisher(self, lane: str, topic: str, canary: str) -> Publisher:
        return Publisher(
            link=f"publish/eu/{lane}",
            source=self.sources[lane],
            target=self.log,
            topic=topic,
            tables=(lambda: self.heard) if lane == "bulk" else no_tables,
            clock=CLOCK,
            randomness=Randomness(1),
            sweep_seconds=SELDOM,
            lane=Lane(
                fill=lane == "bulk",
                canary=canary,
                canary_seconds=self.canary_seconds,
                seal=lambda records: seal(records, "eu", SIGNER),
                freeze=self.freeze,
                rate=self.rate if lane == "fast" else None,
            ),
        )

    @contextlib.asynccontextmanager
    async def gateway(self, table: MemoryTable | None = None, name: str = "one") -> AsyncIterator[None]:
        held = self.table if table is None else table
        seals = Seals("eu", Trust([SIGNER.public_text]))

        def door(entry: Entry) -> Record:
            record = from_entry(entry)
            try:
                seals.check(entry.headers, record)
            except InvalidError as error:
                raise AssertionError(f"{entry.key!r} was refused") from error
            return record

        keeping = keep(held, self.log, [CONTEXTS, CONTEXTS_BULK], read=door)
        async with running(keeping, answer_sweeps(f"contexts/{name}", held, self.log)):
            await asyncio.sleep(0)
            yield

    @contextlib.asynccontextmanager
    async def hub(self) -> AsyncIterator[None]:
        async with running(self.fast.run(), self.bulk.run()):
            yield

    async def until_verified(self) -> None:
        """Wait until the gateway's table says that nothing is missing."""
        async with asyncio.timeout(20):
            while True:
                seen = self.table.changed.value
                held = await self.table.get(CANARY_BULK)
                if held and canary_in(held).verified:
                    return
                await self.table.changed.above(seen)

    async def until_read(self, revision: int) -> None:
        """Wait until the gateway's table knows everything up to `revision`."""
        async with asyncio.timeout(20):
            while True:
                seen = self.table.changed.value
                canaries = [await self.table.get(key) for key in (CANARY_FAST, CANARY_BULK)]
                if all(held and canary_in(held).revision >= revision for held in canaries):
                    return
                await self.table.changed.above(seen)

    async def sent(self, topic: str, at_least: int = 0) -> list[Record]:
        return [from_entry(entry) for entry in await everything(self.log, topic, at_least)]


def canary_in(record: Record) -> Canary:
    return msgspec.json.decode(record.value, type=Canary)


def keys_of(records: Sequence[Record]) -> list[str]:
    return [record.key for record in records]


@pytest.fixture
async def bench() -> Bench:
    log = MemoryLog(CLOCK)
    await log.create(TOPICS)
    return Bench(log)


# --- fills and canaries --------------------------------------------------------------------------------


async def test_a_new_region_is_filled_by_the_bulk_lane_and_verified_by_a_sweep(bench: Bench) -> None:
    for number in range(30):
        bench.rows.put(f"f{number}")
        bench.rows.put(f"b{number}")
    bench.rows.delete("f3")
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
    assert await bench.table.scan() == bench.rows.live()
    fast, bulk = await bench.sent(CONTEXTS), await bench.sent(CONTEXTS_BULK)
    assert set(keys_of(fast)) == {CANARY_FAST}
    assert canary_in(fast[0]).revision == 61
    # Its delete markers, too: a gateway may have kept a table from before.
    assert set(keys_of(bulk)) == set(bench.rows.held) | {CANARY_BULK}
    first = next(canary_in(row) for row in bulk if row.key == CANARY_BULK)
    assert (first.revision, first.verified) == (61, False)
    assert bench.bulk.state.differences_found == 0


async def test_after_the_fill_each_lane_carries_its_own_and_ends_with_a_canary(bench: Bench) -> None:
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
        bench.rows.put("f1")
        bench.rows.put("b1")
        await bench.until_read(2)
    for topic, key, canary in ((CONTEXTS, "f1", CANARY_FAST), (CONTEXTS_BULK, "b1", CANARY_BULK)):
        told = keys_of(await bench.sent(topic))
        assert told[told.index(key) :][:2] == [key, canary]
        assert set(told) == {key, canary}


async def test_a_fill_begins_only_when_the_fast_lane_has_begun(bench: Bench) -> None:
    bench.rows.put("f1")
    async with running(bench.bulk.run()):
        for _ in range(20):
            await asyncio.sleep(0)
        bench.rows.put("f2")  # before the fast lane: the fill must bring it
        assert await bench.sent(CONTEXTS_BULK) == []
        async with running(bench.fast.run()):
            sent = await bench.sent(CONTEXTS_BULK, 3)
    assert keys_of(sent) == ["f1", "f2", CANARY_BULK]


async def test_what_a_fast_lane_leaves_to_the_fill_stays_the_same_when_it_dies_at_its_beginning(
    bench: Bench,
) -> None:
    bench.rows.put("f1")
    bench.fast.target = AnswersLost(bench.log, "append")  # type: ignore[assignment]
    with pytest.raises(UnreachableError):
        await bench.fast.run()
    bench.rows.put("f2")
    bench.again()
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
    assert [key for key in keys_of(await bench.sent(CONTEXTS)) if key != CANARY_FAST] == ["f2"]
    assert await bench.table.scan() == bench.rows.live()


async def test_a_fill_does_not_begin_before_the_fast_lane_s_beginning_is_on_disk(bench: Bench) -> None:
    class Refusing:
        def __getattr__(self, name: str) -> object:
            return getattr(bench.log, name)

        async def append(self, *args: object, **kwargs: object) -> None:
            raise UnreachableError("cut off")

    bench.fast.target = Refusing()  # type: ignore[assignment]
    bench.rows.put("f1")
    async with running(bench.bulk.run()):
        with pytest.raises(UnreachableError):
            await bench.fast.run()
        for _ in range(20):
            await asyncio.sleep(0)
        # It would carry f1, and a fast lane that begins later would leave out what came between.
        assert await bench.sent(CONTEXTS_BULK) == []


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_has_read_a_canary_has_everything_up_to_its_revision(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    history: list[Record] = [bench.rows.put(rng.choice("fb") + str(n)) for n in range(40)]
    bench.canary_seconds = 0.001
    bench.again()
    for _ in range(3):
        async with bench.hub():
            for _ in range(60):
                key = rng.choice("fb") + str(rng.randrange(40))
                history.append(bench.rows.put(key, deleted=rng.random() < 0.2))
                for _ in range(rng.randrange(6)):
                    await asyncio.sleep(0)
        bench.again()
    for topic, lane in LANES.items():
        newest: dict[str, int] = {}
        versions: list[int] = []
        for row in (
            [*await bench.sent(CONTEXTS_BULK), *await bench.sent(CONTEXTS)]
            if lane == "fast"
            else (await bench.sent(topic))
        ):
            if row.key == (CANARY_FAST if lane == "fast" else CANARY_BULK):
                versions.append(row.version.counter)
                for told in history:
                    if lane_of(told) == lane and told.version.counter <= canary_in(row).revision:
                        assert newest.get(told.key, 0) >= told.version.counter
            newest[row.key] = max(newest.get(row.key, 0), row.version.counter)
        assert versions == sorted(set(versions))
        assert len(versions) > 3


async def test_canaries_come_when_nothing_changes_and_say_how_late_it_was(bench: Bench) -> None:
    bench.canary_seconds = 0.01
    bench.again()
    bench.rows.put("f1")
    before = CLOCK.wall()
    async with bench.hub():
        canaries = [canary_in(row) for row in await bench.sent(CONTEXTS, 4)]
    times = [canary.time for canary in canaries]
    assert before <= times[0] < times[1] < times[2] < times[3] <= CLOCK.wall()
    assert {canary.revision for canary in canaries} == {1}


async def test_a_gateway_that_kept_its_table_takes_the_canaries_of_a_log_made_anew(bench: Bench) -> None:
    bench.rows.put("f1")
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
    old = await bench.table.get(CANARY_BULK)
    bench.log = MemoryLog(CLOCK)
    await bench.log.create(TOPICS)
    bench.again()
    bench.rows.delete("f1")
    bench.table._positions.clear()
    async with bench.gateway(), bench.hub():
        await bench.until_read(2)
    new = await bench.table.get(CANARY_BULK)
    assert old is not None
    assert new is not None
    assert new.version > old.version
    assert await bench.table.scan() == []


async def test_a_fast_lane_s_canary_says_where_the_lane_began(bench: Bench) -> None:
    bench.rows.put("f1")
    bench.rows.put("f2")
    for life in range(2):  # in its publisher's next life, too
        async with bench.gateway(), bench.hub():
            await bench.until_verified()
            await bench.until_read(2 + life)
        bench.rows.put("f3")
        bench.again()
    fast, bulk = [await bench.table.get(key) for key in (CANARY_FAST, CANARY_BULK)]
    assert fast is not None
    assert bulk is not None
    assert (canary_in(fast).since, canary_in(bulk).since) == (2, 0)


async def test_a_canary_says_no_more_than_the_source_is_sure_of(bench: Bench) -> None:
    bench.canary_seconds = 0.001
    bench.again()
    source = bench.sources["fast"]
    source.known = 0  # its rows are made of something else, and it has not begun to look
    bench.rows.put("f1")
    async with running(bench.fast.run()):
        await bench.fast.state.moved.above(0)
        bench.rows.put("f2")
        assert keys_of(await bench.sent(CONTEXTS, 1)) == ["f2"]
        source.known = 1
        bench.rows.put("f3")
        *_, first = await bench.sent(CONTEXTS, 3)
        source.known = 0
        bench.rows.put("f4")
        while (newest := (await bench.sent(CONTEXTS))[-2:])[0].key != "f4":
            await asyncio.sleep(0)
    assert canary_in(first).revision == canary_in(newest[1]).revision == 1
    assert newest[1].version > first.version
    assert canary_in(newest[1]).time < CLOCK.wall()


async def test_a_topic_with_canaries_has_one_partition(bench: Bench) -> None:
    await bench.log.create([Topic(CONTEXTS, partitions=2, compact=True)])
    with pytest.raises(InvalidError, match="a canary tells the position of one"):
        await bench.fast.run()


# --- verified ------------------------------------------------------------------------------------------


async def test_nothing_is_verified_while_nobody_was_asked_and_once_it_is_it_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_LISTEN_SECONDS", 0.01)
    bench.heard = []
    bench.rows.put("f1")
    async with bench.gateway():
        async with bench.hub():
            await bench.until_read(1)
            assert not bench.bulk.state.verified
            bench.heard.append("contexts/one")  # a gateway was heard of: it is asked at once
            await bench.until_verified()
        position = await read_position(bench.log, bench.bulk.link, SourcePosition)
        assert position is not None
        assert position.verified
        bench.again()
        bench.heard = []
        bench.rows.put("b2")
        async with bench.hub():
            await bench.until_read(2)
        held = await bench.table.get(CANARY_BULK)
        assert held is not None
        assert canary_in(held).verified


async def test_a_table_that_lacks_something_is_mended_before_it_is_verified(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_AGAIN_SECONDS", 0.01)
    bench.heard = []
    for number in range(10):
        bench.rows.put(f"f{number}")
    async with bench.gateway():
        async with bench.hub():
            await bench.until_read(10)
        del bench.table._rows["f3"]
        bench.heard = ["contexts/one"]
        bench.again()
        async with bench.hub():
            await bench.until_verified()
    assert await bench.table.scan() == bench.rows.live()
    assert bench.bulk.state.differences_found == 1
    # Asked for digests, and for rows; what was mended is believed only when it was asked again.
    assert len(await everything(bench.log, SWEEPS.name)) == 3


async def test_what_a_region_refuses_again_and_again_keeps_nothing_else_from_being_verified(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own door has the refused one in doubt; that all else is there is no less true."""

    class Picky(MemoryTable):
        async def apply(self, records, positions):
            return await super().apply([record for record in records if record.key != "f3"], positions)

    monkeypatch.setattr(sweeping, "_AGAIN_SECONDS", 0.01)
    bench.table = Picky()
    for number in range(10):
        bench.rows.put(f"f{number}")
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
    assert bench.bulk.state.differences_found == 2
    # Not before it was sent once more, and read.
    assert keys_of(await bench.sent(CONTEXTS_BULK)).count("f3") == 3


# --- what holds records back ---------------------------------------------------------------------------


async def test_while_frozen_nothing_goes_out_and_afterwards_only_the_newest(bench: Bench) -> None:
    bench.canary_seconds = 0.001
    bench.again()
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
        bench.freeze.set(True)
        await asyncio.sleep(0)
        ends = {topic: (await bench.log.bounds(topic))[0].end for topic in await bench.log.topics()}
        for key in ("f1", "b1"):
            bench.rows.put(key, "bad")
        for _ in range(100):
            await asyncio.sleep(0.0005)
        assert {t: (await bench.log.bounds(t))[0].end for t in await bench.log.topics()} == ends
        for key in ("f1", "b1"):
            bench.rows.put(key, "good")
        bench.freeze.set(False)
        await bench.until_read(4)
    values = [row.value for topic in LANES for row in await bench.sent(topic) if row.key in ("f1", "b1")]
    assert values == [b"good", b"good"]


async def test_rows_that_were_read_when_the_freeze_came_do_not_go_either(bench: Bench) -> None:
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
        source = bench.sources["fast"]
        read = source.changes

        async def read_and_frozen(after: int, most: int, *, every_lane: bool = False) -> Changes:
            changes = await read(after, most, every_lane=every_lane)
            if changes.records:
                bench.freeze.set(True)
            return changes

        source.changes = read_and_frozen  # type: ignore[method-assign]
        bench.rows.put("f1", "bad")
        await bench.freeze.changed.above(0)
        source.changes = read  # type: ignore[method-assign]
        bench.rows.put("f1", "good")
        bench.freeze.set(False)
        await bench.until_read(2)
    assert [row.value for row in await bench.sent(CONTEXTS) if row.key == "f1"] == [b"good"]


async def test_a_rate_makes_wait_and_drops_nothing() -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock, rate=100, burst=50)
    assert await bucket.room(500) == 50
    bucket.take(50)
    waiting = asyncio.create_task(bucket.room(500))
    await asyncio.sleep(0)
    clock.advance(0.04)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.advance(0.01)  # 50 ms are five tokens: worth an append
    assert await waiting == 5
    bucket.take(5)
    clock.advance(1000)
    assert await bucket.room(20) == 20
    assert await bucket.room(500) == 50


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 40)), max_size=30))
def test_no_more_than_the_burst_and_the_rate_goes_in_any_time(steps: list[tuple[float, int]]) -> None:
    async def check() -> None:
        clock = ManualClock()
        bucket = TokenBucket(clock, rate=10, burst=20)
        taken = 0
        for seconds, most in steps:
            clock.advance(seconds)
            asked = asyncio.create_task(bucket.room(most))
            await asyncio.sleep(0)
            while not asked.done():
                clock.advance(0.05)
                await asyncio.sleep(0)
            bucket.take(await asked)
            taken += asked.result()
            assert 1 <= asked.result() <= most
            assert taken <= 20 + 10 * clock.monotonic() + 1e-6

    asyncio.run(check())


async def test_a_burst_beyond_the_rate_arrives_whole_in_its_newest_state() -> None:
    log = MemoryLog(CLOCK)
    await log.create(TOPICS)
    bench = Bench(log, rate=TokenBucket(CLOCK, rate=2000, burst=20))
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
        for number in range(120):
            bench.rows.put(f"f{number}")
        await bench.until_read(120)
    assert await bench.table.scan() == bench.rows.live()
    assert keys_of(await bench.sent(CONTEXTS)).count(CANARY_FAST) > 3  # in parts, as the rate allowed


# --- sweeps over both lanes ----------------------------------------------------------------------------


async def test_a_sweep_waits_for_what_is_held_back_and_takes_nothing_away(bench: Bench) -> None:
    for number in range(10):
        bench.rows.put(f"b{number}")
    async with bench.gateway(), bench.hub():
        await bench.until_verified()
        asked = (await bench.log.bounds(SWEEPS.name))[0].end
    bench.again()
    bench.sources["bulk"].gate = 10
    bench.rows.put("b1", "not yet")
    bench.rows.delete("b2")
    bench.bulk.sweep_seconds = 0.0
    look = bench.rows.rows

    async def changing_rows() -> AsyncIterator[Sequence[Record]]:
        if bench.rows.changed.value < 14:
            bench.rows.put("b3", "held back while it sweeps")
            bench.rows.delete("b4")
        async for page in look():
            yield page

    bench.rows.rows = changing_rows  # type: ignore[method-assign]
    async with bench.gateway(), bench.hub():
        await bench.sources["bulk"].asked.above(5)  # it is waiting for the gate, and goes on publishing
        assert (await bench.log.bounds(SWEEPS.name))[0].end == asked
        bench.sources["bulk"].gate = 12
        await everything(bench.log, SWEEPS.name, asked + 2)  # it asks for digests, then for rows
        while not bench.bulk.state.last_sweep:
            await asyncio.sleep(0.001)
        assert bench.rows.changed.value == 14
        assert [row.value for row in await bench.table.scan() if row.key in ("b3", "b4")] == [
            b"b3@4",
            b"b4@5",
        ]
    assert bench.bulk.state.differences_found == 0
    sweeps = [row for row in await bench.sent(CONTEXTS_BULK) if row.version.origin.endswith("~sweep")]
    assert sweeps == []


async def test_a_new_region_is_filled_and_verified_up_to_where_a_gate_stays_closed(bench: Bench) -> None:
    for number in range(10):
        bench.rows.put(f"b{number}")
    bench.sources["bulk"].gate = 10
    bench.heard.clear()
    async with bench.gateway(), bench.hub():
        await bench.until_read(10)
        bench.rows.put("b1", "held back")
        bench.rows.put("b10", "held back")
        bench.rows.put("f1")
        assert not bench.bulk.state.verified
        bench.heard.append("contexts/one")
        await bench.until_verified()
        assert {row.key: row.value for row in await bench.table.scan()} == {
            **{f"b{number}": f"b{number}@{number + 1}".encode() for number in range(10)},
            "f1": b"f1@13",
        }
    assert bench.bulk.state.differences_found == 0


async def test_a_sweep_waits_for_what_is_held_back_no_longer_than_that_is_worth_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_HELD_BACK_SECONDS", 0.05)
    for key in ("b1", "b2"):
        bench.rows.put(key)
    async with bench.gateway():
        async with bench.hub():
            await bench.until_verified()
        bench.again()
        bench.sources["bulk"].gate = 2
        bench.rows.put("b1", "held back")
        del bench.table._rows["b2"]
        bench.bulk.sweep_seconds = 0.0
        async with bench.hub(), asyncio.timeout(20):
            while [row.value for row in await bench.table.scan()] != [b"b1@1", b"b2@2"]:
                await bench.table.changed.above(bench.table.changed.value)


async def test_a_sweep_waits_for_the_other_lane(bench: Bench) -> None:
    bench.rows.put("f1")
    async with bench.gateway():
        async with bench.hub():
            await bench.until_verified()
        asked = (await bench.log.bounds(SWEEPS.name))[0].end
        bench.again()
        bench.bulk.sweep_seconds = 0.0
        bench.rows.put("f2")
        async with running(bench.bulk.run()):
            await bench.sources["bulk"].asked.above(5)
            assert (await bench.log.bounds(SWEEPS.name))[0].end == asked
            async with running(bench.fast.run()):
                await everything(bench.log, SWEEPS.name, asked + 1)
                while not bench.bulk.state.last_sweep:
                    await asyncio.sleep(0.001)
    assert bench.bulk.state.differences_found == 0


@pytest.mark.parametrize("nonsense", [b"rot", msgspec.msgpack.encode({"id": "x", "digests": [b"short"]})])
async def test_an_answer_that_makes_no_sense_is_a_problem_and_no_more(bench: Bench, nonsense: bytes) -> None:
    async def answering() -> None:
        positions = {TopicPartition(SWEEPS.name, 0): 0}
        while True:
            for entry in await bench.log.read(positions, wait_seconds=20):
                positions[entry.position] = entry.offset + 1
                asked = msgspec.msgpack.decode(entry.value or b"")
                await bench.log.append([Message(DIGESTS.name, asked["id"].encode(), nonsense)])

    bench.rows.put("f1")
    async with running(answering()), bench.hub(), asyncio.timeout(20):
        while "cannot be read" not in bench.bulk.state.sweep_problem:
            await bench.bulk.state.moved.above(bench.bulk.state.moved.value, 0.05)


async def test_a_table_that_is_silent_keeps_no_other_from_being_mended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "_ANSWER_SECONDS", 0.2)
    bench.rows.put("f1")
    async with bench.gateway():
        async with bench.hub():
            await bench.until_verified()
        bench.heard = ["contexts/gone", "contexts/one"]
        del bench.table._rows["f1"]
        bench.again()
        bench.bulk.sweep_seconds = 0.0
        async with bench.hub(), asyncio.timeout(20):
            while await bench.table.scan() != bench.rows.live():
                await bench.table.changed.above(bench.table.changed.value)
            while "contexts/gone" not in bench.bulk.state.sweep_problem:
                await bench.bulk.state.moved.above(bench.bulk.state.moved.value, 0.05)


async def test_a_source_reborn_is_filled_anew_and_verified_although_strangers_stay(bench: Bench) -> None:
    for key in ("f1", "b1", "forgotten"):
        bench.rows.put(key)
    async with bench.gateway():
        async with bench.hub():
            await bench.until_verified()
        bench.rows = MemorySource(epoch=2)
        bench.rows.put("f1", "new")
        bench.again()
        async with bench.hub(), asyncio.timeout(20):
            while not bench.bulk.state.verified:
                await bench.bulk.state.moved.above(bench.bulk.state.moved.value)
            await bench.until_read(1)
        held = await bench.table.get(CANARY_BULK)
        assert held is not None
        assert held.version.epoch == 2
        assert sorted(bench.bulk.state.strangers) == ["b1", "forgotten"]
        assert keys_of(await bench.table.scan()) == ["b1", "f1", "forgotten"]


def test_a_freeze_tells_only_when_it_changes() -> None:
    freeze = Freeze()
    seen: Level = freeze.changed
    freeze.set(False)
    assert seen.value == 0
    freeze.set(True)
    freeze.set(True)
    assert seen.value == 1
