"""Writers who change objects of their own, and watchers who must be told of every change once, in order.

Watchers do what informers do: list once, watch from there, and when the connection breaks watch on from the
last revision they were told. Some watch what one writer does alone. All who watch the same are told the same
story: the first to be told something adds it, the others must be told just that at that place. In the end the
story is held against what the writers know that they did.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec
from benchmarks.api import Hub
from benchmarks.plant import manifest

from history_parts import CLUSTERS, CUT, Line

_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_LIVES = 10
"""So many changes make a life: it begins with the creation and ends with the deletion."""
_ALONE_EVERY = 5
"""Every so many watchers one watches a single writer."""
_AWAY_CHANGES = 50
_EVERYTHING, _END = "", "end"
_NOT_NOW = (503, 504)


class _Metadata(msgspec.Struct):
    name: str = ""
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    labels: dict[str, str] = {}


class _Object(msgspec.Struct):
    metadata: _Metadata
    message: str = ""


class _Line(msgspec.Struct):
    type: str
    object: _Object


_DECODER = msgspec.json.Decoder(_Line)


class Told(NamedTuple):
    """One change as it is told: its revision, what it was, of which writer, and the writer's number for it (a
    deletion shows what was last, so its number is that of the change before).
    """

    revision: int
    event: str
    writer: str
    number: int


class _Watcher:
    """One watcher: what it has `seen` is the revision to go on from, `at` its place in the story."""

    def __init__(self, number: int, since: int, story: list[Told]) -> None:
        self._number = number
        self._story = story
        self.seen = since
        self._at = 0

    def __str__(self) -> str:
        return f"watcher {self._number}, told of {self._at} changes, up to revision {self.seen}"

    @property
    def is_done(self) -> bool:
        """Whether the last change was told."""
        return self._at > 0 and self._story[self._at - 1].writer == _END

    async def follow(self, chunks: AsyncIterator[bytes]) -> None:
        """Hear the lines of one watch until it ends, or all is told."""
        rest = b""
        async for chunk in chunks:
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                line = _DECODER.decode(text)
                assert line.type != "ERROR", f"{self}: {line.object.message}"
                self._hear(line.type, line.object.metadata)
            if self.is_done:
                return

    def _hear(self, event: str, metadata: _Metadata) -> None:
        revision = int(metadata.resource_version)
        if event != "BOOKMARK":
            told = Told(revision, event, metadata.labels["writer"], int(metadata.labels["change"]))
            if self._at == len(self._story):
                assert self.seen < revision, f"{self}: {told}"
                self._story.append(told)
            assert self._story[self._at] == told, f"{self}: {told}, others: {self._story[self._at]}"
            self._at += 1
        self.seen = revision


class Crowd:
    """So many watchers, each of whose watches lasts so many `seconds`, from and to, and so many writers, who
    make so many `changes` each.
    """

    def __init__(
        self, hubs: Sequence[Hub], *, watchers: int, writers: int, changes: int, seconds: tuple[int, int]
    ) -> None:
        self._hubs = hubs
        self._watchers = watchers
        self._writers = writers
        self._changes = changes
        self._seconds = seconds
        self._since = 0
        self._stories: defaultdict[str, list[Told]] = defaultdict(list)
        self._known: dict[tuple[str, int], int] = {}
        self.made = 0

    async def run(self) -> None:
        """Watch and write until everything is told to everyone, and check it."""
        with Line(self._hubs, 0) as line:
            code, body = await (await line.connection()).ask("GET", f"{CLUSTERS}?limit=1")
            assert code == 200
            self._since = int(msgspec.json.decode(body)["metadata"]["resourceVersion"])
            async with asyncio.TaskGroup() as watching:
                for number in range(self._watchers):
                    watching.create_task(self._watch(number))
                async with asyncio.TaskGroup() as writing:
                    for number in range(self._writers):
                        writing.create_task(self._write(number))
                await self._do(line, _END, 0)
        self._check()

    async def until(self, made: int) -> None:
        """Wait until so many changes are made."""
        while self.made < made:
            await asyncio.sleep(0.01)

    async def _write(self, number: int) -> None:
        with Line(self._hubs, number) as line:
            for change in range(self._changes):
                await self._do(line, str(number), change)
                self.made += 1

    async def _do(self, line: Line, writer: str, change: int) -> None:
        """Make one change; again until it is answered: made already, it changes nothing."""
        name, labels = f"w{writer}", {"writer": writer, "change": str(change)}
        whole = manifest(
            "KafkaCluster", {"name": name, "labels": labels}, {"bootstrapServers": ["k1.example:9092"]}
        )
        method, path, body, media, done = (
            "PATCH",
            f"{CLUSTERS}/{name}",
            {"metadata": {"labels": labels}},
            _MERGE,
            200,
        )
        if change % _LIVES == 0:
            method, path, body, media, done = "POST", CLUSTERS, whole, _JSON, 201
        elif change % _LIVES == _LIVES - 1:
            method, body, media = "DELETE", {}, _JSON
        again = False
        while True:
            connection = await line.connection()
            try:
                code, answer = await connection.ask(method, path, msgspec.json.encode(body), media)
            except CUT:
                line.cut()
                again = True
                continue
            if code == done and method != "DELETE":
                self._known[writer, change] = int(msgspec.json.decode(answer)["metadata"]["resourceVersion"])
            if code == done or (again and code == {"POST": 409, "DELETE": 404}.get(method)):
                return
            assert code in _NOT_NOW, f"{method} of {writer}/{change} was answered {code}: {answer[:500]!r}"
            again = True
            await asyncio.sleep(0.05)

    async def _watch(self, number: int) -> None:
        drawn = random.Random(number)
        alone = number % _ALONE_EVERY == _ALONE_EVERY - 1
        whose = str(number // _ALONE_EVERY % self._writers) if alone else _EVERYTHING
        selects = f"&labelSelector=writer+in+({whose},{_END})" if alone else ""
        watcher = _Watcher(number, self._since, self._stories[whose])
        with Line(self._hubs, number) as line:
            while not watcher.is_done:
                seconds = drawn.randint(*self._seconds)
                query = f"?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}{selects}"
                connection = await line.connection()
                try:
                    code, head = await connection.begin(
                        "GET", f"{CLUSTERS}{query}&resourceVersion={watcher.seen}"
                    )
                    if code not in _NOT_NOW:
                        assert code == 200, f"{watcher}: {head!r}"
                        await watcher.follow(connection.chunks())
                except CUT:
                    pass
                line.cut()
                # Some come back at once, others when more has changed than they could be told as it happened.
                await self.until(
                    min(self.made + drawn.randint(0, _AWAY_CHANGES), self._writers * self._changes)
                )

    def _check(self) -> None:
        """The story is what was done."""
        everything = self._stories.pop(_EVERYTHING)
        assert len(everything) == self._writers * self._changes + 1
        by_writer: defaultdict[str, list[Told]] = defaultdict(list)
        for told in everything:
            by_writer[told.writer].append(told)
        for number in range(self._writers):
            told = by_writer[str(number)]
            assert [(each.event, each.number) for each in told] == list(map(_event, range(self._changes)))
        for told in everything:
            if told.event != "DELETED":
                assert self._known.get((told.writer, told.number), told.revision) == told.revision
        for writer, alone in self._stories.items():
            assert alone == by_writer[writer] + by_writer[_END]


def _event(change: int) -> tuple[str, int]:
    """How a writer's change is told."""
    if change % _LIVES == _LIVES - 1:
        return "DELETED", change - 1
    return ("MODIFIED" if change % _LIVES else "ADDED"), change
