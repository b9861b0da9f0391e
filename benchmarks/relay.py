"""The relay alone, on Kafka and PostgreSQL, and beside real Debezium on the same writes.

Rows a second: what a relay that was away finds waiting in the outbox, until all of it is readable in Kafka.
Latency: from the answer to a write (it is committed) until a reader of the topic has the event, at about 16
writes a second, relay and Debezium at once, each with a reader of its own. Debezium runs as
docs/how-to/debezium.md says, once with the poll interval that it has by itself (500 ms), once with the
shortest (1 ms). PostgreSQL waits for the disk at every commit; everything shares the machine's cores.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from statistics import median

import uvloop

from benchmarks.report import figure, note, percentile
from benchmarks.stores import change, store_of
from engines.debezium import Debezium
from engines.kafka import Brokers
from engines.postgres import Postgres
from transom.hub.relay import CHANGES, Relay
from transom.hub.store import Store
from transom.hub.store_postgres_setup import postgres_database
from transom.links.positions import POSITIONS
from transom.logs.kafka import KafkaLog
from transom.logs.protocol import TopicPartition
from transom.model.errors import UnknownTopicError
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

_ROWS = 50_000
_BATCH = 1000
_WRITES = 200
_PAUSE_SECONDS = 0.06
_AT_ONCE = {"poll.interval.ms": "1"}


async def main() -> None:
    """Print the figures."""
    async with Postgres(durable=True) as server:
        rates = [await _rows_a_second(server) for _ in range(3)]
        figure("relay_rows_a_second", median(rates), "1/s", target=">= 10000", runs=rates)
        for name, settings in (("debezium", {}), ("debezium_polling_at_once", _AT_ONCE)):
            own, captured = await _latencies(server, settings)
            for part, latencies in ((f"relay_beside_{name}", own), (name, captured)):
                note(f"{part}_commit_to_readable_p50", percentile(latencies, 50), "ms")
                note(f"{part}_commit_to_readable_p99", percentile(latencies, 99), "ms")
            share = percentile(own, 50) / percentile(captured, 50)
            if settings:
                note(f"relay_latency_over_{name}", share, "")
            else:
                figure(f"relay_latency_over_{name}", share, "", target="<= 0.1")


async def _rows_a_second(server: Postgres) -> float:
    async with _parts(server) as (store, _, brokers):
        for batch in range(_ROWS // _BATCH):
            await store.write_all([change(f"row{batch}-{number}") for number in range(_BATCH)])
        async with _log(brokers) as log:
            await log.create([POSITIONS, CHANGES])
            began = time.perf_counter()
            relay = asyncio.create_task(Relay(store, log).run())
            try:
                rows = store.changed.value
                # A marker of Kafka's ends each transaction, and has an offset, too.
                last = rows + rows // _BATCH
                while True:
                    if (await log.bounds(CHANGES.name))[0].end >= last:
                        return rows / (time.perf_counter() - began)
                    await asyncio.sleep(0.01)
            finally:
                relay.cancel()


async def _latencies(server: Postgres, settings: Mapping[str, str]) -> tuple[list[float], list[float]]:
    """Milliseconds of each write: through the relay, and through Debezium with `settings`."""
    async with (
        _parts(server) as (store, database, brokers),
        Debezium(server, database, brokers, settings=settings) as debezium,
        _log(brokers) as log,
    ):
        await log.create([POSITIONS, CHANGES])
        relay = asyncio.create_task(Relay(store, log).run())
        own, captured = _Arrivals(log, CHANGES.name), _Arrivals(log, debezium.topic)
        readers = [asyncio.create_task(reader.follow()) for reader in (own, captured)]
        try:
            await _write(store, "warm", 50, own, captured)
            return await _write(store, "app", _WRITES, own, captured)
        finally:
            for task in (relay, *readers):
                task.cancel()


async def _write(
    store: Store, name: str, count: int, own: "_Arrivals", captured: "_Arrivals"
) -> tuple[list[float], list[float]]:
    """Write at a pace of its own: whoever waited for either would write in step with its polls."""
    committed: dict[str, float] = {}
    randomness = Randomness(1)
    for number in range(count):
        wanted = change(f"{name}{number}")
        await store.write(wanted)
        committed[str(wanted.key)] = time.perf_counter()
        await asyncio.sleep(randomness.jitter(_PAUSE_SECONDS))
    found = [await arrivals.latencies(committed) for arrivals in (own, captured)]
    return found[0], found[1]


class _Arrivals:
    """When each key's event could be read from a topic."""

    def __init__(self, log: KafkaLog, topic: str) -> None:
        self._log, self._at = log, TopicPartition(topic, 0)
        self._seen: dict[str, asyncio.Future[float]] = {}

    async def latencies(self, committed: Mapping[str, float]) -> list[float]:
        """Milliseconds from each of these moments until its key arrived."""
        return [1000 * (await self._future(key) - began) for key, began in committed.items()]

    async def follow(self) -> None:
        """Read for ever."""
        offset = 0
        while True:
            try:
                entries = await self._log.read({self._at: offset}, wait_seconds=5)
            except UnknownTopicError:  # Debezium makes it with the first event
                await asyncio.sleep(0.05)
                continue
            now = time.perf_counter()
            for entry in entries:
                offset = entry.offset + 1
                arrived = self._future((entry.key or b"").decode())
                if not arrived.done():
                    arrived.set_result(now)

    def _future(self, key: str) -> "asyncio.Future[float]":
        return self._seen.setdefault(key, asyncio.get_running_loop().create_future())


@contextlib.asynccontextmanager
async def _parts(server: Postgres) -> AsyncGenerator[tuple[Store, str, Brokers]]:
    """A store of its own, its database's URL, and a broker."""
    with server.database() as url:
        async with Brokers() as brokers, store_of(postgres_database(url, None, None)) as store:
            yield store, url, brokers


@contextlib.asynccontextmanager
async def _log(brokers: Brokers) -> AsyncGenerator[KafkaLog]:
    log = KafkaLog(f"kafka://{brokers.bootstrap}", SystemClock(), Randomness())
    try:
        yield log
    finally:
        await log.close()


if __name__ == "__main__":
    uvloop.run(main())
