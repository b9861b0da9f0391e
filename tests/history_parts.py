"""Histories of a hub's answers: clients who read and write few objects at once, each in its own random way.

What they ask is drawn from a seed; how it comes out is the machine's. Some hang up before they are answered,
and hubs may be killed meanwhile: what was under way then has no answer, and the client goes on with whichever
hub it finds. `linearizability` judges what they were told.
"""

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import msgspec
import psutil
from benchmarks.api import Connection, Hub
from benchmarks.plant import Part, Plant, manifest

from linearizability import Operation, Verb, refuted

CLUSTERS = "/apis/transom.dev/v1/namespaces/acme/kafkaclusters"
"""A kind without finalizers: what is deleted is gone at once."""
CUT = (OSError, EOFError)
_AGAIN_SECONDS = 0.05
_UNSURE = (500, 503, 504)
"""After these a write may have happened."""
_HANGS_UP_OF = 60
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class Asked(NamedTuple):
    """One request to draw, `share` times as likely as one of share 1; `insists` on the version seen last."""

    verb: Verb
    method: str
    share: int
    path: str = "/{name}"
    media: str = "application/json"
    insists: bool = False


REQUESTS = (
    Asked("get", "GET", 30),
    Asked("get", "GET", 6, "?fieldSelector=metadata.name={name}"),  # in a list of one
    Asked("create", "POST", 14, ""),
    Asked("replace", "PUT", 18, insists=True),
    Asked("replace", "PUT", 4),
    Asked("patch", "PATCH", 8, media=_MERGE, insists=True),
    Asked("patch", "PATCH", 4, media=_MERGE),
    Asked("apply", "PATCH", 5, "/{name}?fieldManager=history&force=true", _APPLY),
    Asked("delete", "DELETE", 5, insists=True),
    Asked("delete", "DELETE", 3),
)


def hub_of(plant: Plant, part: Part) -> Hub:
    """What a client must know of one process of the hub."""
    assert part.process is not None
    key = (plant.hub.folder / "data" / "admin.key").read_text().strip()
    return Hub(psutil.Process(part.process.pid), part.port, key, plant.hub.folder / "ca.pem")


class Line:
    """One client's connection: to the hub in the place `number`, and after a cut to whichever answers."""

    def __init__(self, hubs: Sequence[Hub], number: int) -> None:
        self._hubs = itertools.cycle([*hubs[number % len(hubs) :], *hubs[: number % len(hubs)]])
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    async def connection(self) -> Connection:
        """The connection there is, or a new one, however long that takes."""
        while self._connection is None:
            with contextlib.suppress(*CUT):
                self._connection = await Connection(next(self._hubs)).open()
                break
            await asyncio.sleep(_AGAIN_SECONDS)
        return self._connection

    def cut(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Histories:
    """What clients are told of some objects, in one order of asking and answering."""

    def __init__(self, hubs: Sequence[Hub], seed: int, objects: int) -> None:
        self._hubs = hubs
        self._seed = seed
        self._names = [f"h{seed}-{number}" for number in range(objects)]
        self._places = itertools.count(1)
        self._values = itertools.count()
        self.of: defaultdict[str, list[Operation]] = defaultdict(list)
        self.asked = 0

    async def client(self, number: int, requests: int) -> None:
        """Be one client: ask so often."""
        drawn = random.Random(f"{self._seed}/{number}")
        seen: dict[str, str] = {}
        with Line(self._hubs, number) as line:
            for _ in range(requests):
                (asked,) = drawn.choices(REQUESTS, [each.share for each in REQUESTS])
                name, hangs_up = drawn.choice(self._names), not drawn.randrange(_HANGS_UP_OF)
                connection = await line.connection()
                done = await self._ask(connection, asked, name, seen.get(name, ""), hangs_up=hangs_up)
                self.of[name].append(done)
                self.asked += 1
                if done.answered is None:
                    line.cut()
                elif done.version:
                    seen[name] = done.version

    async def _ask(
        self, connection: Connection, asked: Asked, name: str, seen: str, *, hangs_up: bool
    ) -> Operation:
        value = "" if asked.verb in ("get", "delete") else f"v{next(self._values)}"
        expects = seen if asked.insists else ""
        body = _body(asked.verb, name, value, expects)
        operation = Operation(asked.verb, next(self._places), None, value, expects)
        try:
            async with asyncio.timeout(0 if hangs_up else None):  # when it is sent
                path = CLUSTERS + asked.path.format(name=name)
                code, answer = await connection.ask(asked.method, path, body, asked.media)
        except CUT:
            return operation
        return _answered(operation, next(self._places), code, answer)

    async def made(self, clients: int, requests: int) -> None:
        """Have so many clients ask so often each."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self.client(number, requests))

    async def until(self, asked: int) -> None:
        """Wait until so much was asked."""
        while self.asked < asked:
            await asyncio.sleep(0.01)

    def check(self) -> None:
        """Each object has answered as one object does, and every answer that matters was given."""
        for name, history in self.of.items():
            found = refuted(history)
            assert found is None, f"{name} (seed {self._seed}) is {found}"
        outcomes = {(each.verb, each.code) for history in self.of.values() for each in history}
        assert outcomes >= _OUTCOMES
        assert any(code == 0 and verb != "get" for verb, code in outcomes)


async def check_one_of_two_wins(hubs: Sequence[Hub], rounds: int) -> None:
    """Two writers, each at a hub of its own if there are two, insist on the version that both have read."""
    lines = [Line(hubs, number) for number in range(2)]
    connections = [await line.connection() for line in lines]
    code, _ = await connections[0].ask("POST", CLUSTERS, _body("create", "both", "0", ""))
    assert code == 201
    for number in range(rounds):
        read = [msgspec.json.decode((await each.ask("GET", f"{CLUSTERS}/both"))[1]) for each in connections]
        assert read[0] == read[1]
        seen = read[0]["metadata"]["resourceVersion"]
        answers = await asyncio.gather(
            *(
                each.ask("PUT", f"{CLUSTERS}/both", _body("replace", "both", f"{number}-{writer}", seen))
                for writer, each in enumerate(connections)
            )
        )
        assert sorted(code for code, _ in answers) == [200, 409]
        told = {code: msgspec.json.decode(body) for code, body in answers}
        assert told[409]["reason"] == "Conflict"
        held = msgspec.json.decode((await connections[number % 2].ask("GET", f"{CLUSTERS}/both"))[1])
        assert held == told[200]
    for line in lines:
        line.cut()


async def check_read_everywhere(hubs: Sequence[Hub], rounds: int) -> None:
    """What one hub has answered, the next shows to who asks it then: alone, in a list, and in a watch."""
    lines = [Line([hub], 0) for hub in hubs]
    connections = [await line.connection() for line in lines]
    listed = "?fieldSelector=metadata.name=spread"
    for number, query in itertools.product(range(rounds), ("/spread", listed, f"{listed}&watch=true")):
        writes, reads = number % len(hubs), (number + 1) % len(hubs)
        fresh = await Connection(hubs[reads]).open()
        await fresh.ask("GET", f"{CLUSTERS}/spread")  # what it has read before counts for nothing
        body = _body("apply", "spread", f"{number}-{len(query)}", "")
        path = f"{CLUSTERS}/spread?fieldManager=history"
        code, written = await connections[writes].ask("PATCH", path, body, _APPLY)
        assert code in (200, 201)
        if "watch" in query:
            code, _ = await fresh.begin("GET", f"{CLUSTERS}{query}")
            read = await anext(fresh.chunks())
        else:
            code, read = await fresh.ask("GET", f"{CLUSTERS}{query}")
        fresh.close()
        shown = msgspec.json.decode(read.partition(b"\n")[0])
        (item,) = shown["items"] if "items" in shown else [shown.get("object", shown)]
        assert (code, item) == (200, msgspec.json.decode(written)), f"{query}, round {number}: is stale"
    for line in lines:
        line.cut()


_OUTCOMES: set[tuple[Verb, int]] = {
    ("get", 200), ("get", 404), ("create", 201), ("create", 409), ("apply", 200), ("apply", 201),
    ("replace", 200), ("replace", 404), ("replace", 409), ("patch", 200), ("patch", 404), ("patch", 409),
    ("delete", 200), ("delete", 404), ("delete", 409),
}  # fmt: skip


def _body(verb: Verb, name: str, value: str, expects: str) -> bytes:
    if verb == "get":
        return b""
    version = {"resourceVersion": expects} if expects else {}
    if verb == "delete":
        return msgspec.json.encode({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": version})
    metadata = {"labels": {"value": value}, **version}
    if verb == "patch":
        return msgspec.json.encode({"metadata": metadata})
    spec = {"bootstrapServers": ["k1.example:9092"]}
    return msgspec.json.encode(manifest("KafkaCluster", {"name": name, **metadata}, spec))


def _answered(operation: Operation, at: int, code: int, answer: bytes) -> Operation:
    """The operation with its answer, unless that leaves open what has happened."""
    if code in _UNSURE:
        return operation
    body = msgspec.json.decode(answer)
    if code in (200, 201) and "items" in body:
        body, code = (body["items"][0], code) if body["items"] else ({}, 404)
    done = replace(operation, answered=at, code=code)
    if code not in (200, 201) or operation.verb == "delete":
        return done
    metadata = body["metadata"]
    return replace(done, version=metadata["resourceVersion"], found=metadata["labels"]["value"])
