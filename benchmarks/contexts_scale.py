"""A million contexts: a new region's first fill, a sweep of equals, and a gateway that starts with them.

The region and its gateway are real processes, with the log and the gateway's table on disk and every seal
checked; this process is the hub's two publishers, reading a table of contexts in SQLite that is made up here,
so the figures are those of the roads and of the gateway, not of the builder.

Afterwards the gateway is killed and started again while 64 connections ask it, good, revoked, unknown and
malformed keys in turn, as fast as they are answered; whoever finds nobody listening tries again. Nothing but
the right answer or 503 may come. Then once more with an empty disk, for half a minute: it begins with the log
alone and knows little, so most of what it says is 503.
`--rows 10000` for a quick look.
"""

import argparse
import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import psutil
import uvloop

from benchmarks.plant import Part, Plant
from benchmarks.report import figure, note
from transom.links.carrier import Carrier
from transom.links.lanes import Lane
from transom.links.publish import Publisher, no_tables
from transom.links.source import Changes
from transom.logs.protocol import Entry, Headers, TopicPartition
from transom.logs.remote import RemoteLog
from transom.logs.rules import payload_bytes
from transom.model.access import ApiKeyValue
from transom.model.api_keys import hash_of, new_api_key
from transom.model.records import Record
from transom.model.resources import JsonObject, to_json
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, CONTEXTS_BULK, context_table
from transom.model.version import Version
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.signals import Level
from transom.runtime.signing import ensure_signing_key
from transom.runtime.threads import SerialThread
from transom.tables.seals import seal

REGION = "eu"
_PAGE = 2000
_KEYS = 2000
_REVOKED = 10
"""Every tenth key."""
_CONNECTIONS = 64
_WATCHED_SECONDS = 30.0
CLOCK = SystemClock()


class Rows:
    """`links.source.Source`: made-up API keys in an SQLite file, all of one lane."""

    epoch = 1

    def __init__(self, path: Path, lane: str) -> None:
        self.changed = Level()
        self._lane = lane
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._thread = SerialThread(f"rows {lane}")
        self._newest: int = self._db.execute("SELECT max(revision) FROM contexts").fetchone()[0]

    async def revision(self) -> int:
        """See `Source.revision`."""
        return self._newest

    async def begin_epoch(self, above: int) -> None:
        """See `Source.begin_epoch`."""

    async def changes(self, after: int, most: int, *, every_lane: bool = False) -> Changes:
        """See `Source.changes`."""
        if not (every_lane or self._lane == "bulk"):
            return Changes([], self._newest, more=False)
        found = await self._page("revision > ? ORDER BY revision", after, most)
        more = len(found) == most
        return Changes(found, found[-1].version.counter if more else self._newest, more)

    async def rows(self) -> AsyncIterator[Sequence[Record]]:
        """See `Source.rows`."""
        after = ""
        while page := await self._page("key > ? ORDER BY key", after, _PAGE):
            yield page
            after = page[-1].key

    async def changed_since(self, keys: Collection[str], revision: int) -> set[str]:  # noqa: ARG002
        """See `Source.changed_since`."""
        return set()

    async def _page(self, what: str, after: int | str, most: int) -> list[Record]:
        query = f"SELECT key, revision, value FROM contexts WHERE {what} LIMIT ?"  # noqa: S608

        def read() -> list[Record]:
            rows = self._db.execute(query, (after, most))
            return [Record(key, Version(1, revision, "hub"), value) for key, revision, value in rows]

        return await self._thread.run(read)


def make_rows(path: Path, count: int, keys: Sequence[str]) -> None:
    """Make up `count` contexts, those of `keys` among them; their names are hashes, in no order."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE contexts (key TEXT PRIMARY KEY, revision INTEGER, value BLOB) WITHOUT ROWID")
    hashes = [hash_of(key.encode()).hex() for key in keys]
    hashes += [hashlib.sha256(b"%d" % number).hexdigest() for number in range(len(keys), count)]
    rows = sorted((f"api_key/{hashed}", number) for number, hashed in enumerate(hashes))
    db.executemany(
        "INSERT INTO contexts VALUES (?, ?, ?)", ((key, number + 1, _value(number)) for key, number in rows)
    )
    db.execute("CREATE UNIQUE INDEX by_revision ON contexts (revision)")
    db.commit()
    db.close()


def _value(number: int) -> bytes:
    return to_json(
        ApiKeyValue(
            name=f"key-{number}",
            tenant=f"tenant-{number % 1000}",
            scopes=("*",),
            expires_at=None,
            revoked=number % _REVOKED == 0,
            suspended=False,
        )
    )


class Counted:
    """A region's log that counts what is read from it."""

    def __init__(self, log: RemoteLog) -> None:
        self._log = log
        self.bytes_read = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def read(
        self, positions: Mapping[TopicPartition, int], *, most: int = 1000, wait_seconds: float = 0.0
    ) -> Sequence[Entry]:
        """See `Log.read`."""
        entries = await self._log.read(positions, most=most, wait_seconds=wait_seconds)
        self.bytes_read += sum(payload_bytes(entry) for entry in entries)
        return entries


class Scale:
    """The hub's side, and the plant beyond it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        self.plant = Plant(folder, [REGION], {}, 'log_level = "warning"', gateways="")
        self.region, self.gateway = self.plant.regions[REGION], self.plant.gateways[REGION]
        choose = random.Random(7).choice  # noqa: S311
        self.keys = [new_api_key(choose) for _ in range(min(_KEYS, count))]
        self.rows = folder / "rows.db"
        # In a process of its own: what it needs for them is not the memory of a hub.
        making = multiprocessing.Process(target=make_rows, args=(self.rows, count, self.keys))
        making.start()
        making.join()
        key = (self.plant.hub.folder / "link-keys" / f"{REGION}.key").read_text().strip()
        self.remote = RemoteLog(f"http://127.0.0.1:{self.region.port}", key)
        self.log = Counted(self.remote)
        signer = ensure_signing_key(self.plant.hub.folder / "signing.key")
        self._signer = signer
        self.fast = self._publisher("fast", CONTEXTS, CANARY_FAST)
        self.bulk = self._publisher("bulk", CONTEXTS_BULK, CANARY_BULK)
        self.bulk.beside = [self.fast]

    def _publisher(self, name: str, topic: str, canary: str) -> Publisher:
        bulk = name == "bulk"
        return Publisher(
            f"publish/{REGION}/{topic}",
            Rows(self.rows, name),
            self.log,  # pyright: ignore[reportArgumentType]
            topic,
            (lambda: [context_table("gateway")]) if bulk else no_tables,
            CLOCK,
            Randomness(),
            lane=Lane(fill=bulk, batch=1000 if bulk else 500, canary=canary, seal=self._seal),
        )

    def _seal(self, records: Sequence[Record]) -> Sequence[Headers]:
        return seal(records, REGION, self._signer)

    async def fill(self) -> None:
        """Fill the region, until its gateway answers everything."""
        began = time.perf_counter()
        tasks = [asyncio.create_task(publisher.run()) for publisher in (self.fast, self.bulk)]
        await _until(self.gateway, lambda said: said["bulkRevision"] >= self.count, tasks)
        filled = time.perf_counter() - began
        print(f"processor seconds of the fill: {self._processor_seconds()}", file=sys.stderr)
        figure("seconds_to_fill_a_region", filled, "s", target="<= 60")
        await _until(self.gateway, lambda said: said["ready"], tasks)
        note("seconds_until_a_region_is_verified", time.perf_counter() - began, "s")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _processor_seconds(self) -> dict[str, float]:
        parts = {part.name: psutil.Process(part.process.pid) for part in self.plant.parts if part.process}
        parts["hub"] = psutil.Process()
        return {name: round(sum(part.cpu_times()[:2]), 1) for name, part in parts.items()}

    async def sweep(self) -> None:
        """Sweep where nothing differs."""
        carrier = Carrier(
            self.bulk.link, self.bulk.target, self.bulk.topic, self.bulk.lane, CLOCK, self.bulk.state
        )
        await carrier.begin(self.bulk.source.epoch)
        sweeper = self.bulk.sweeper(carrier)
        before = psutil.Process().memory_info().rss
        most = asyncio.create_task(_most_memory())
        self.log.bytes_read, busy, began = 0, time.process_time(), time.perf_counter()
        assert await sweeper.sweep() == 0
        figure("sweep_of_equals_hub_cpu", time.process_time() - busy, "s", target="<= 20")
        figure("sweep_of_equals_bytes_read", self.log.bytes_read, "B", target="<= 65536")
        note("sweep_of_equals", time.perf_counter() - began, "s")
        most.cancel()
        grown = await most - before
        figure("sweep_of_equals_hub_memory", grown / 2**20, "MiB", target="<= 32")

    async def start_under_load(self) -> tuple[float | None, Counter[str]]:
        """Start the gateway while clients ask it; seconds until it is ready (None: not while it was watched),
        and what the clients were answered.
        """
        answers: Counter[str] = Counter()
        clients = [
            asyncio.create_task(_ask_for_ever(self.gateway.port, self._asked(number), answers))
            for number in range(_CONNECTIONS)
        ]
        await asyncio.sleep(0.5)  # all of them knock before anybody is there
        began = time.perf_counter()
        self.gateway.start()
        ready = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WATCHED_SECONDS):
                await _until(self.gateway, lambda said: said["ready"], clients)
                ready = time.perf_counter() - began
                await asyncio.sleep(2)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        return ready, answers

    def _asked(self, client: int) -> Iterator[tuple[str, bytes, int]]:
        """Questions for ever: what sort, the key, and the right answer."""
        choose = random.Random(f"client {client}")  # noqa: S311
        while True:
            number = choose.randrange(len(self.keys))
            revoked = number % _REVOKED == 0
            yield "revoked" if revoked else "good", self.keys[number].encode(), 401 if revoked else 200
            if number % 4 == 0:
                yield "unknown", new_api_key(choose.choice).encode(), 401
                yield "malformed", b"tsm_nothing", 401


async def _most_memory() -> int:
    """The most memory that this process had at a time, in bytes, looked at until it is cancelled."""
    process, most = psutil.Process(), 0
    try:
        while True:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return max(most, process.memory_info().rss)


async def _ask_for_ever(port: int, asked: Iterator[tuple[str, bytes, int]], answers: Counter[str]) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            answers["nobody there"] += 1
            await asyncio.sleep(0.02)
            continue
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            for sort, key, right in asked:
                writer.write(b"GET /decide HTTP/1.1\r\nhost: gateway\r\nx-api-key: %s\r\n\r\n" % key)
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                status = int(head[9:12])
                answers["right" if status == right else f"{status} for {sort} keys"] += 1


async def _until(
    gateway: Part, reached: Callable[[JsonObject], bool], tasks: Sequence[asyncio.Task[None]]
) -> None:
    """Wait until what a gateway says of itself has `reached` something."""
    async with aiohttp.ClientSession() as session:
        while True:
            for task in tasks:
                if task.done():
                    task.result()
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{gateway.port}/readyz") as answer:
                    if reached(await answer.json()):
                        return
            await asyncio.sleep(0.05)


def _report_start(name: str, answers: Counter[str]) -> None:
    wrong = sum(count for said, count in answers.items() if said not in {"right", "nobody there"})
    waited = sum(count for said, count in answers.items() if said.startswith("503"))
    print(f"{name}: {dict(answers)}", file=sys.stderr)
    figure(f"{name}_wrong_answers", wrong - waited, "", target="<= 0")
    note(f"{name}_answers_503", waited, "")
    note(f"{name}_answers_right", answers["right"], "")


async def main(count: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="transom-") as name:
        scale = Scale(Path(name), count)
        try:
            for part in (scale.region, scale.gateway):
                part.start()
                await part.ready()
            await scale.fill()
            await scale.sweep()
            scale.gateway.kill()
            ready, answers = await scale.start_under_load()
            figure("gateway_start_until_ready", ready or _WATCHED_SECONDS, "s", target="<= 10")
            _report_start("gateway_start", answers)
            scale.gateway.kill()
            shutil.rmtree(scale.gateway.folder / "data")
            _, answers = await scale.start_under_load()
            _report_start("gateway_start_from_the_log", answers)
        finally:
            await scale.remote.close()
            for part in scale.plant.parts:
                part.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=int(os.environ.get("BENCH_CONTEXTS", "1000000")))
    uvloop.run(main(parser.parse_args().rows))
