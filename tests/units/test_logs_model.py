"""The SQLite log against its model: whatever is asked of both, in whatever order, they answer the same."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from transom.logs.memory import MemoryLog
from transom.logs.protocol import Fence, KeptLog, Membership, Message, Topic, TopicPartition
from transom.logs.sqlite import SqliteLog
from transom.model.errors import TransomError
from transom.runtime.clock import ManualClock

TOPICS = ("plain", "short", "table")
PARTITIONS = {"plain": 2, "short": 1, "table": 2}

keys = st.sampled_from([b"", b"a", b"b", b"\x00\xff", b"other"])
values = st.one_of(st.none(), st.binary(max_size=6))
messages = st.builds(
    Message,
    topic=st.sampled_from([*TOPICS, *TOPICS, "missing"]),
    key=st.one_of(keys, keys, keys, st.none()),
    value=values,
    headers=st.lists(st.tuples(st.text(max_size=2), st.binary(max_size=2)), max_size=2).map(tuple),
    partition=st.sampled_from([None, None, None, 0, 1, 2]),
    timestamp_ms=st.sampled_from([0, 5]),
)
places = st.tuples(st.sampled_from([*TOPICS, "missing"]), st.integers(0, 2))
offsets = st.integers(-1, 12)
writers = st.sampled_from(["one", "two"])
members = st.sampled_from(["m1", "m2", "m3"])


class LogAgainstModel(RuleBasedStateMachine):
    """Each step is asked of the model and of one of two handles on the same file."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "region.log"
        self.clock = ManualClock()
        self.model = MemoryLog(self.clock)
        self.handles: list[SqliteLog] = []
        self.fences: dict[str, list[Fence]] = {}
        self.memberships: list[Membership] = []

    @initialize()
    def open(self) -> None:
        for _ in range(2):
            self.handles.append(self.runner.run(SqliteLog.open(self.path, self.clock)))
        self.both(0, lambda log: log.create([Topic("plain", 2), Topic("short", retention_seconds=10)]))
        self.both(1, lambda log: log.create([Topic("table", 2, compact=True, retention_seconds=20)]))

    def both(self, handle: int, ask: Callable[[KeptLog], Awaitable[Any]]) -> Any:
        async def outcome(log: KeptLog) -> Any:
            try:
                return await ask(log)
            except TransomError as error:
                return type(error), str(error)

        expected = self.runner.run(outcome(self.model))
        found = self.runner.run(outcome(self.handles[handle]))
        assert found == expected
        return expected

    @rule(handle=st.integers(0, 1), batch=st.lists(messages, min_size=1, max_size=6))
    def append(self, handle: int, batch: list[Message]) -> None:
        self.both(handle, lambda log: log.append(batch))

    @rule(handle=st.integers(0, 1), count=st.integers(1, 8), topic=st.sampled_from(TOPICS), key=keys)
    def append_many(self, handle: int, count: int, topic: str, key: bytes) -> None:
        self.both(handle, lambda log: log.append([Message(topic, key, b"v")] * count))

    @rule(handle=st.integers(0, 1), name=writers)
    def take_fence(self, handle: int, name: str) -> None:
        self.fences.setdefault(name, []).append(self.both(handle, lambda log: log.take_fence(name)))

    @precondition(lambda self: self.fences)
    @rule(handle=st.integers(0, 1), data=st.data())
    def append_fenced(self, handle: int, data: st.DataObject) -> None:
        fence = data.draw(st.sampled_from([fence for held in self.fences.values() for fence in held]))
        self.both(handle, lambda log: log.append([Message("plain", b"f", b"v")], fence=fence))

    @rule(handle=st.integers(0, 1), place=places, offset=offsets)
    def read(self, handle: int, place: tuple[str, int], offset: int) -> None:
        self.both(handle, lambda log: _listed(log.read({TopicPartition(*place): offset})))

    @rule(handle=st.integers(0, 1))
    def read_all(self, handle: int) -> None:
        for topic in TOPICS:
            bounds = self.both(handle, lambda log, topic=topic: log.bounds(topic))
            for partition, (start, _) in bounds.items():
                where = {TopicPartition(topic, partition): start}
                self.both(handle, lambda log, where=where: _listed(log.read(where)))

    @rule(handle=st.integers(0, 1), place=places, before=offsets)
    def truncate(self, handle: int, place: tuple[str, int], before: int) -> None:
        self.both(handle, lambda log: log.truncate(*place, before))

    @rule(handle=st.integers(0, 1), seconds=st.sampled_from([0, 1, 9, 30]))
    def clean(self, handle: int, seconds: int) -> None:
        self.clock.advance(seconds)
        self.both(handle, lambda log: log.clean(self.clock))
        self.read_all(handle)

    @rule(
        handle=st.integers(0, 1),
        member=members,
        topics=st.lists(st.sampled_from(TOPICS), unique=True),
        seconds=st.sampled_from([0, 0, 4, 11]),
    )
    def join(self, handle: int, member: str, topics: list[str], seconds: int) -> None:
        self.clock.advance(seconds)
        self.memberships.append(self.both(handle, lambda log: log.join("group", member, topics)))

    @precondition(lambda self: self.memberships)
    @rule(handle=st.integers(0, 1), data=st.data(), offset=st.integers(0, 5))
    def commit(self, handle: int, data: st.DataObject, offset: int) -> None:
        membership = data.draw(st.sampled_from(self.memberships))
        chosen = data.draw(st.sampled_from([*membership.assigned, TopicPartition("plain", 1)]))
        self.both(handle, lambda log: log.commit(membership, {chosen: offset}))
        self.both(1 - handle, lambda log: log.committed("group"))

    @rule(handle=st.integers(0, 1))
    def open_again(self, handle: int) -> None:
        self.runner.run(self.handles[handle].close())
        self.handles[handle] = self.runner.run(SqliteLog.open(self.path, self.clock))

    def teardown(self) -> None:
        for handle in self.handles:
            self.runner.run(handle.close())
        self.runner.close()
        self.folder.cleanup()


async def _listed(entries: Awaitable[Any]) -> list[Any]:
    return list(await entries)


LogAgainstModel.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
test_sqlite_answers_like_the_model = LogAgainstModel.TestCase
