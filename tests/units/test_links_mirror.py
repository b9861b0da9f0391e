"""The mirror: every entry once and in order, whatever kills it (invariant 3), and no loss in silence."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from link_parts import CLOCK, AnswersLost, everything, log_of, running

from transom.links import mirror as mirror_module
from transom.links.mirror import Mirror, MirrorPosition, PartitionPosition
from transom.links.naming import is_copy, mirrored_name
from transom.links.positions import POSITIONS, read_position
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Entry, Log, Message, Topic, TopicInfo
from transom.logs.sqlite import SqliteLog
from transom.model.errors import FencedError, InvalidError, UnknownTopicError, UnreachableError

STATUS = Topic("status", partitions=3)
BEATS = Topic("heartbeats", compact=True, retention_seconds=600)
NAMES = {"status": "status.production-eu", "heartbeats": "heartbeats.production-eu"}
COPIES = [msgspec.structs.replace(topic, name=NAMES[topic.name]) for topic in (STATUS, BEATS)]
LINK = "status-eu"


@dataclass
class Ends:
    """The region's log and the hub's."""

    source: Log
    target: Log

    def mirror(self) -> Mirror:
        return Mirror(LINK, self.source, self.target, NAMES)

    async def carried(self, count: int) -> list[Entry]:
        """What stands in the target under the names of the source, once there are `count` in all."""
        entries: list[Entry] = []
        for name, copy in NAMES.items():
            entries += await everything(self.target, copy, len(await everything(self.source, name)))
        assert len(entries) == count
        return entries

    async def carried_now(self) -> int:
        """How many entries stand in the target."""
        bounds = [await self.target.bounds(copy) for copy in NAMES.values()]
        return sum(each.end for topic in bounds for each in topic.values())


@pytest.fixture(params=["memory", "sqlite"])
async def ends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ends]:
    async with (
        log_of(request.param, tmp_path / "eu.log") as source,
        log_of(request.param, tmp_path / "hub.log") as target,
    ):
        await source.create([STATUS, BEATS])
        # The mirror makes them itself; here they are to be waited on before it has.
        await target.create([POSITIONS, *COPIES])
        yield Ends(source, target)


def message(number: int, topic: str = "status") -> Message:
    """An entry that differs from all others in every field it has."""
    value = None if number % 5 == 0 else b"value-%d" % number
    headers = tuple((f"h{at}", b"%d" % number) for at in range(number % 3))
    return Message(topic, b"key-%d" % number, value, headers, number % STATUS.partitions, 1_000_000 + number)


def beat(number: int) -> Message:
    return Message("heartbeats", b"zone-a", b"beat-%d" % number)


async def source_entries(source: Log) -> list[Entry]:
    return [entry for name in NAMES for entry in await everything(source, name)]


def renamed(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    """What must be equal on both sides; the target's own offsets may differ."""
    return [
        (NAMES.get(e.topic, e.topic), e.partition, e.timestamp_ms, e.key, e.value, e.headers) for e in entries
    ]


async def test_every_entry_arrives_once_in_order_and_as_it_was(ends: Ends) -> None:
    await ends.source.append([message(number) for number in range(1, 40)])
    async with running(ends.mirror().run()):
        await wait_for(ends, 39)
        await ends.source.append([beat(1), message(40), beat(2)])
        carried = await ends.carried(42)
    assert renamed(carried) == renamed(await source_entries(ends.source))


async def test_the_mirror_makes_topics_like_those_of_the_source(ends: Ends) -> None:
    empty = MemoryLog(CLOCK)
    await Mirror(LINK, ends.source, empty, NAMES)._prepare()
    topics = {name: info.topic for name, info in (await empty.topics()).items()}
    assert topics == {topic.name: topic for topic in (POSITIONS, *COPIES)}


async def test_the_position_stands_in_the_target_with_what_it_stands_for(ends: Ends) -> None:
    await ends.source.append([message(number) for number in range(1, 8)])
    async with running(ends.mirror().run()):
        await everything(ends.target, POSITIONS.name, 1)
    topic_id = (await ends.source.topics())["status"].topic_id
    position = await read_position(ends.target, LINK, MirrorPosition)
    assert position is not None
    assert {name: at for name, at in position.partitions.items() if name.startswith("status/")} == {
        f"status/{number}": PartitionPosition(topic_id, bounds.end)
        for number, bounds in (await ends.source.bounds("status")).items()
    }


async def test_a_restart_goes_on_with_exactly_the_next_entry(ends: Ends) -> None:
    for number in range(1, 6):
        await ends.source.append([message(number)])
        async with running(ends.mirror().run()):
            await wait_for(ends, number)
    assert renamed(await ends.carried(5)) == renamed(await source_entries(ends.source))


async def wait_for(ends: Ends, count: int) -> None:
    """Return once the target has this many entries of "status"."""
    await everything(ends.target, NAMES["status"], count)


async def test_whenever_it_dies_after_an_append_every_entry_is_there_once(ends: Ends) -> None:
    dying = Ends(ends.source, AnswersLost(ends.target, "append"))  # type: ignore[arg-type]
    for number in range(1, 6):
        await ends.source.append([message(number), beat(number)])
        with pytest.raises(UnreachableError):
            await dying.mirror().run()
    assert renamed(await ends.carried(10)) == renamed(await source_entries(ends.source))


async def test_cancelled_anywhere_every_entry_still_arrives_once(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "_BATCH", 4)
    await ends.source.append([message(number) for number in range(1, 101)])
    for turns in range(80):
        task = asyncio.create_task(ends.mirror().run())
        for _ in range(turns):
            # The threads of a log need a moment; the loop alone would never come to an append.
            await asyncio.sleep(0 if turns % 2 else 0.0002)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    async with running(ends.mirror().run()):
        await wait_for(ends, 100)
    assert renamed(await ends.carried(100)) == renamed(await source_entries(ends.source))


async def test_a_second_mirror_shuts_out_the_first(ends: Ends) -> None:
    await ends.source.append([message(1)])
    first = asyncio.create_task(ends.mirror().run())
    await wait_for(ends, 1)
    async with running(ends.mirror().run()):
        await ends.source.append([message(2)])
        await wait_for(ends, 2)
        await ends.source.append([message(3)])
        with pytest.raises(FencedError):
            await first
        await wait_for(ends, 3)
    assert renamed(await ends.carried(3)) == renamed(await source_entries(ends.source))


async def test_lag_is_what_is_not_mirrored_yet(ends: Ends) -> None:
    mirror = ends.mirror()
    await ends.source.append([message(number) for number in range(1, 8)])
    assert await mirror.lag() == 7
    async with running(mirror.run()):
        await wait_for(ends, 7)
        async with asyncio.timeout(30):
            while await mirror.lag():  # it is told a moment after the append
                await asyncio.sleep(0)
    await ends.source.append([message(8)])
    assert await mirror.lag() == 1


# --- what the source lost ------------------------------------------------------------------------------


async def test_what_was_truncated_before_it_was_mirrored_is_noticed(ends: Ends) -> None:
    await ends.source.append([message(3), message(6)])  # both in partition 0
    async with running(ends.mirror().run()):
        await wait_for(ends, 2)
    await ends.source.append([message(9), message(12), message(15), message(4)])
    await ends.source.truncate("status", 0, 4)
    mirror = ends.mirror()
    async with running(mirror.run()):
        await wait_for(ends, 4)
    assert [entry.key for entry in await everything(ends.target, NAMES["status"])] == [
        b"key-3",
        b"key-6",
        b"key-15",
        b"key-4",
    ]
    (gap,) = mirror.state.gaps
    assert "offset 2 of status/0" in gap
    assert "[4, 5)" in gap


async def test_what_is_truncated_under_a_running_mirror_is_noticed(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "_WAIT_SECONDS", 0.01)
    mirror = ends.mirror()
    await ends.source.append([message(3)])
    async with running(mirror.run()):
        await wait_for(ends, 1)
        source = mirror.source
        # Both happen before the mirror can look again.
        gate = asyncio.Event()
        mirror.source = Gated(source, gate)  # type: ignore[assignment]
        await mirror.source.waiting.wait()  # type: ignore[attr-defined]
        await source.append([message(6), message(9)])
        await source.truncate("status", 0, 2)
        gate.set()
        await wait_for(ends, 2)
    assert [entry.key for entry in await everything(ends.target, NAMES["status"])] == [b"key-3", b"key-9"]
    assert ["offset 1 of status/0" in gap for gap in mirror.state.gaps] == [True]


class Gated:
    """A log whose reads wait until a gate is opened."""

    def __init__(self, log: Log, gate: asyncio.Event) -> None:
        self.waiting = asyncio.Event()
        self._log, self._gate = log, gate

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def read(self, *args: object, **kwargs: object) -> object:
        self.waiting.set()
        await self._gate.wait()
        return await self._log.read(*args, **kwargs)  # type: ignore[arg-type]


async def test_a_source_made_anew_is_noticed_and_mirrored_from_its_start(tmp_path: Path) -> None:
    async with log_of("sqlite", tmp_path / "hub.log") as target:
        await target.create(COPIES)
        async with log_of("sqlite", tmp_path / "first" / "eu.log") as source:
            await source.create([STATUS, BEATS])
            ends = Ends(source, target)
            await source.append([message(3), message(6), message(4)])
            async with running(ends.mirror().run()):
                await wait_for(ends, 3)
        # The region lost its disk. In the new log, all old positions lie within what is there.
        async with log_of("sqlite", tmp_path / "second" / "eu.log") as source:
            await source.create([STATUS, BEATS])
            ends = Ends(source, target)
            await source.append([message(number) for number in (9, 12, 15, 7, 10)])
            mirror = ends.mirror()
            async with running(mirror.run()):
                await wait_for(ends, 8)
        keys = [entry.key for entry in await everything(target, NAMES["status"])]
        numbers = (3, 6, 9, 12, 15, 4, 7, 10)
        assert keys == [b"key-%d" % number for number in numbers]
        assert any("status/0" in gap for gap in mirror.state.gaps)


async def test_a_topic_made_anew_under_a_running_mirror_is_mirrored_whole() -> None:
    source, target = MemoryLog(CLOCK), MemoryLog(CLOCK)
    await source.create([STATUS, BEATS])
    await target.create(COPIES)
    ends = Ends(source, target)
    mirror = ends.mirror()
    await source.append([message(3), message(6), message(4)])
    async with running(mirror.run()):
        await wait_for(ends, 3)
        # Made anew with less in partition 0 and more in partition 1 than was read: the second would look
        # as if nothing had happened.
        anew = MemoryLog(CLOCK)
        await anew.create([STATUS, BEATS])
        await anew.append([message(9), message(7), message(10)])
        source._topics = {**anew._topics, "status": TopicInfo(STATUS, "another")}
        source._partitions = anew._partitions
        source._changed.rise()
        await wait_for(ends, 6)
    keys = [entry.key for entry in await everything(target, NAMES["status"])]
    assert keys == [b"key-%d" % number for number in (3, 6, 9, 4, 7, 10)]
    assert len(mirror.state.gaps) >= 2
    held = await read_position(target, LINK, MirrorPosition)
    assert held is not None
    assert held.partitions["status/1"] == PartitionPosition("another", 2)


# --- names ---------------------------------------------------------------------------------------------


def test_a_copy_has_a_name_that_says_so_and_is_never_mirrored() -> None:
    assert mirrored_name("status", "production", "eu") == "status.production-eu"
    assert mirrored_name("orders.v2", "stage", "us-east") == "orders.v2.stage-us-east"
    assert not is_copy("status")
    assert not is_copy("orders.v2")
    for copy in ("status.production-eu", "orders.v2.stage-us-east"):
        assert is_copy(copy)
        with pytest.raises(InvalidError, match="it is a copy from another region"):
            mirrored_name(copy, "production", "us")


def test_every_mistake_in_a_mirrored_name_is_told_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        mirrored_name("status", "Production", "e u")
    assert [problem.path for problem in caught.value.problems] == ["environment", "region"]


# --- killed --------------------------------------------------------------------------------------------

MIRRORER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_links_mirror as tests
from transom.links import mirror
from transom.logs.sqlite import SqliteLog

async def main():
    mirror._BATCH = 7
    folder = Path(sys.argv[1])
    logs = [await SqliteLog.open(folder / name, tests.CLOCK) for name in ("eu.log", "hub.log")]
    ends = tests.Ends(*logs)
    async with tests.running(ends.mirror().run()):
        await tests.wait_for(ends, int(sys.argv[3]))
    await ends.source.close()
    await ends.target.close()

asyncio.run(main())
"""

POINTS = ("mirror.fetched", "mirror.appended", "log.appending", "log.appended")
KILLS = 4


def mirror_until_killed(folder: Path, count: int, point: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MIRRORER, str(folder), str(Path(__file__).parent), str(count)],
        env={**os.environ, "TRANSOM_DIE_AT": point},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


@pytest.mark.parametrize("seed", range(3))
async def test_killed_anywhere_every_entry_still_arrives_once(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)  # a seed, to find the failure again
    source = await SqliteLog.open(tmp_path / "eu.log", CLOCK)
    await source.create([STATUS, BEATS])
    await source.append([message(number) for number in range(1, 121)])
    target = await SqliteLog.open(tmp_path / "hub.log", CLOCK)
    await target.create(COPIES)
    # Each seed begins with another point, so that together they die at every one of them.
    points = [POINTS[(seed + turn) % len(POINTS)] for turn in range(KILLS)]
    deaths = 0
    for point in points:
        deaths += mirror_until_killed(tmp_path, 120, f"{point}:{dice.randint(1, 4)}") != 0
    assert deaths == KILLS
    assert mirror_until_killed(tmp_path, 120, "") == 0
    carried = await everything(target, NAMES["status"])
    assert renamed(carried) == renamed(await everything(source, "status"))
    assert [entry.offset for entry in carried if entry.partition == 0] == list(range(40))
    await source.close()
    await target.close()


async def test_a_topic_that_is_made_while_it_is_looked_for_is_looked_for_again() -> None:
    class Late(MemoryLog):
        async def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
            found = dict(await super().topics(names))
            await self.create([STATUS, BEATS])
            return found

    # Its worker tries again then; by its position it took the topic for a known one, and the hub ended.
    with pytest.raises(UnknownTopicError):
        await Mirror(LINK, Late(CLOCK), MemoryLog(CLOCK), NAMES).run()


async def test_who_is_not_the_one_any_more_appends_nothing(ends: Ends) -> None:
    await ends.source.append([message(1)])

    async def refused() -> None:
        assert (await ends.target.take_fence(LINK)).token == 2, "asked once the fence was taken"
        raise FencedError("another has taken over")

    with pytest.raises(FencedError, match="another has taken over"):
        await Mirror(LINK, ends.source, ends.target, NAMES, refused).run()
    assert not await ends.carried_now()
