"""The hub's API on one core: reads, creates, lists, and watchers, over TLS, with the administrator's key.

A hub process alone, pinned to one core, its store in SQLite; a process on the other core asks, over 64 kept
connections where it is about how many, one after another where it is about how long. What is read, created
and listed are KafkaClusters, of which the hub makes contexts meanwhile, as of most kinds. Delivery is from
sending a PATCH until a watcher has read the line that tells it, of all watchers and changes, once the hub is
done with what it was given before. With PostgreSQL, which waits for the disk at every commit, creates alone.
"""

import asyncio
import contextlib
import itertools
import random
import ssl
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import psutil
import uvloop

from benchmarks.plant import Plant
from benchmarks.report import figure, note, percentile
from engines.postgres import Postgres
from transom.model.resources import API_VERSION

_CONNECTIONS = 64
_SECONDS = 3.0
_ROUNDS = 5
_THERE = 10_000
_LISTED = 500
_LISTS = 60
_WATCHERS = 200
_CHANGES_A_SECOND = 50
_CHANGES = 500
_CALM_PERCENT = 10.0
_CORE, _OTHER_CORE = 0, 1
_CLUSTERS = f"/apis/{API_VERSION}/namespaces/acme/kafkaclusters"


class Hub(NamedTuple):
    """Where a hub is, its key, and its authority's certificate."""

    process: psutil.Process
    port: int
    key: str
    ca_file: Path


class Connection:
    """A kept connection, one request at a time."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def open(self) -> "Connection":
        """Connect."""
        tls = ssl.create_default_context(cafile=self._hub.ca_file)
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._hub.port, ssl=tls, limit=1 << 24
        )
        return self

    def close(self) -> None:
        """End it."""
        self._writer.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", media: str = "application/json"
    ) -> tuple[int, bytes]:
        """The code and the body of an answer that says how long it is, or comes in chunks."""
        code, head = await self.begin(method, path, body, media)
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return code, await self._reader.readexactly(int(value))
        return code, b"".join([chunk async for chunk in self.chunks()])

    async def begin(
        self, method: str, path: str, body: bytes = b"", media: str = "application/json"
    ) -> tuple[int, bytes]:
        """The code and the head of an answer."""
        asked = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._hub.key}\r\n"
            f"Accept: application/json\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(asked.encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head[9:12]), head

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The parts of an answer that comes in chunks."""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)


def manifest(name: str) -> bytes:
    """A KafkaCluster."""
    return msgspec.json.encode(
        {
            "apiVersion": API_VERSION,
            "kind": "KafkaCluster",
            "metadata": {"name": name, "labels": {"team": "orders"}},
            "spec": {"bootstrapServers": [f"{name}.kafka.internal:9092"]},
        }
    )


async def many(hub: Hub, turn: Callable[[Connection], Awaitable[int]], until: Callable[[], bool]) -> float:
    """How many answers a second `turn` gets over all connections, each the code that it must be."""
    connections = [await Connection(hub).open() for _ in range(_CONNECTIONS)]
    answered = 0

    async def go_on(connection: Connection) -> None:
        nonlocal answered
        while not until():
            code = await turn(connection)
            if code not in (200, 201):
                raise RuntimeError(f"the hub answered {code}")
            answered += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(go_on(connection))
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return answered / took


def for_a_while() -> Callable[[], bool]:
    """Whether the time of a run is over."""
    ends = time.perf_counter() + _SECONDS
    return lambda: time.perf_counter() >= ends


async def creates(hub: Hub, numbers: Iterator[int]) -> float:
    """Creates a second."""

    async def create(connection: Connection) -> int:
        return (await connection.ask("POST", _CLUSTERS, manifest(f"c{next(numbers)}")))[0]

    return await many(hub, create, for_a_while())


async def gets(hub: Hub) -> float:
    """Reads a second of one in `_THERE`."""
    randomness = random.Random(1)  # noqa: S311

    async def get(connection: Connection) -> int:
        return (await connection.ask("GET", f"{_CLUSTERS}/c{randomness.randrange(_THERE)}"))[0]

    return await many(hub, get, for_a_while())


async def lists(hub: Hub) -> list[float]:
    """How many ms a list of `_LISTED` takes, each."""
    connection = await Connection(hub).open()
    taken: list[float] = []
    for _ in range(_LISTS):
        began = time.perf_counter()
        code, body = await connection.ask("GET", f"{_CLUSTERS}?limit={_LISTED}")
        taken.append((time.perf_counter() - began) * 1000)
        if code != 200 or body.count(b'"uid"') != _LISTED:  # each has one
            raise RuntimeError(f"the hub answered {code}, {body[:200]!r}")
    connection.close()
    return taken


async def calm(hub: Hub) -> None:
    """Wait until the hub has nothing to do but what it always does."""
    percent = 100.0
    while percent > _CALM_PERCENT:
        hub.process.cpu_percent()
        await asyncio.sleep(1)
        percent = hub.process.cpu_percent()


async def deliveries(hub: Hub) -> list[float]:
    """How many ms each watcher waited for each change."""
    _, body = await (await Connection(hub).open()).ask("GET", f"{_CLUSTERS}?limit=1")
    listed = msgspec.json.decode(body)["metadata"]["resourceVersion"]
    waited: list[float] = []
    sent: dict[str, float] = {}

    async def watch(connection: Connection) -> None:
        await connection.begin("GET", f"{_CLUSTERS}?watch=true&resourceVersion={listed}")
        watching.release()
        seen = 0
        async for chunk in connection.chunks():
            now = time.perf_counter()
            for line in chunk.splitlines():
                number = msgspec.json.decode(line)["object"]["metadata"].get("labels", {}).get("change")
                if number in sent:
                    waited.append((now - sent[number]) * 1000)
                    seen += 1
            if seen == _CHANGES:
                return

    watching = asyncio.Semaphore(0)
    writer = await Connection(hub).open()
    async with asyncio.TaskGroup() as group:
        for _ in range(_WATCHERS):
            group.create_task(watch(await Connection(hub).open()))
        for _ in range(_WATCHERS):
            await watching.acquire()
        began = time.perf_counter()
        for number in range(_CHANGES):
            await asyncio.sleep(max(0.0, began + number / _CHANGES_A_SECOND - time.perf_counter()))
            sent[str(number)] = time.perf_counter()
            patch = msgspec.json.encode({"metadata": {"labels": {"change": str(number)}}})
            code, _ = await writer.ask(
                "PATCH", f"{_CLUSTERS}/c{number}", patch, "application/merge-patch+json"
            )
            if code != 200:
                raise RuntimeError(f"the hub answered {code}")
    return waited


@contextlib.asynccontextmanager
async def running(folder: Path, settings: str = "") -> AsyncGenerator[Hub]:
    """A hub on a core of its own, with tenant acme."""
    plant = Plant(folder, [], {}, hub_settings=settings)
    async with plant.running():
        if plant.hub.process is None:
            raise RuntimeError("the hub does not run")
        process = psutil.Process(plant.hub.process.pid)
        process.cpu_affinity([_CORE])
        key = (plant.hub.folder / "data" / "admin.key").read_text().strip()
        yield Hub(process, plant.hub.port, key, plant.hub.folder / "ca.pem")


async def embedded() -> None:
    """What is measured on SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as hub:
            numbers = itertools.count()
            created = [await creates(hub, numbers) for _ in range(_ROUNDS)]
            figure("api_creates_a_second", median(created), "1/s", target=">= 700", runs=created)
            connection = await Connection(hub).open()
            while (number := next(numbers)) < _THERE:
                await connection.ask("POST", _CLUSTERS, manifest(f"c{number}"))
            read = [await gets(hub) for _ in range(_ROUNDS)]
            figure("api_gets_a_second", median(read), "1/s", target=">= 3000", runs=read)
            listed = await lists(hub)
            figure("api_list_500_of_10000", median(listed), "ms", target="<= 30")
            note("api_list_500_of_10000_p99", percentile(listed, 99), "ms")
            await calm(hub)
            waited = await deliveries(hub)
            figure("api_delivery_to_200_watchers_p99", percentile(waited, 99), "ms", target="<= 20")
            note("api_delivery_to_200_watchers_p50", percentile(waited, 50), "ms")


async def on_postgres() -> None:
    """What is measured on PostgreSQL."""
    async with Postgres(durable=True) as postgres:
        with postgres.database() as store, tempfile.TemporaryDirectory() as folder:
            async with running(Path(folder), f'store = "{store}"') as hub:
                numbers = itertools.count()
                created = [await creates(hub, numbers) for _ in range(_ROUNDS)]
                figure("api_creates_a_second_postgres", median(created), "1/s", target=">= 500", runs=created)


async def main() -> None:
    """Print the figures."""
    psutil.Process().cpu_affinity([_OTHER_CORE])
    await embedded()
    await on_postgres()


if __name__ == "__main__":
    uvloop.run(main())
