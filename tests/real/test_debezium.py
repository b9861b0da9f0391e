"""Real Debezium, set up as docs/how-to/debezium.md says, carries the outbox as the hub's own relay does."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec
import pytest

from engines import jars
from engines.debezium import PAGE, Debezium
from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.process import MissingEngineError
from engines_fixtures import started
from hub_parts import CLOCK, put, remove, tenant
from kafka_logs import emptied_log
from transom.catalog.kinds import shipped
from transom.hub.changes import Actor
from transom.hub.relay import CHANGES, Relay
from transom.hub.store import Store
from transom.hub.store_postgres_setup import postgres_database
from transom.hub.store_rows import ChangeEvent
from transom.logs.kafka import KafkaLog
from transom.logs.protocol import Entry, TopicPartition
from transom.model.errors import UnknownTopicError
from transom.model.kinds import PEOPLE
from transom.model.resources import Resource
from transom.runtime.randomness import Randomness

KEYS = 7
ROUNDS = 40


class Event(NamedTuple):
    """What a reader of either topic gets."""

    id: bytes
    key: bytes | None
    payload: bytes | None
    what: bytes
    """Of which kind, and what happened, as the relay's `ce_type` says it."""
    trace: bytes

    @property
    def revision(self) -> int:
        return msgspec.json.decode(self.payload or b"", type=ChangeEvent).revision


def of_relay(entry: Entry) -> Event:
    headers = dict(entry.headers)
    return Event(headers["ce_id"], entry.key, entry.value, headers["ce_type"], headers["traceparent"])


def of_debezium(entry: Entry) -> Event:
    headers = dict(entry.headers)
    assert headers.keys() == {"id", "aggregatetype", "type", "traceparent"}
    what = b"transom.dev.%b.%b" % (headers["aggregatetype"], headers["type"])
    return Event(headers["id"], entry.key, entry.value, what, headers["traceparent"])


class Reader:
    """All that a topic has got so far."""

    def __init__(self, log: KafkaLog, topic: str, event: Callable[[Entry], Event]) -> None:
        self._log, self._at, self._event = log, TopicPartition(topic, 0), event
        self._next = 0
        self.events: list[Event] = []

    async def has(self, revision: int) -> None:
        """Wait until the change that made `revision` is among them."""
        while not any(event.revision >= revision for event in self.events):
            try:
                entries = await self._log.read({self._at: self._next}, wait_seconds=1)
            except UnknownTopicError:  # nothing came yet
                await asyncio.sleep(0.05)
                continue
            for entry in entries:
                self._next = entry.offset + 1
                self.events.append(self._event(entry))


@contextlib.asynccontextmanager
async def store_in(database: str, seed: int) -> AsyncIterator[Store]:
    store = await Store.open(postgres_database(database, None, None), shipped(), CLOCK, Randomness(seed))
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def stores(database: str) -> AsyncIterator[list[Store]]:
    """Two who write, each with connections of its own."""
    async with store_in(database, 1) as one, store_in(database, 2) as other:
        yield [one, other]


@pytest.fixture
async def log(brokers: Brokers) -> AsyncIterator[KafkaLog]:
    async with emptied_log(brokers) as log:
        yield log


@pytest.fixture
def debezium(
    postgres: Postgres, database: str, brokers: Brokers, stores: list[Store], log: KafkaLog
) -> Iterator[Debezium]:
    """Running since before anything was written, and as the page says."""
    with started(Debezium(postgres, database, brokers)) as running:
        yield running


def labelled(name: str, **labels: str) -> Resource:
    resource = tenant(name)
    return resource.with_metadata(labels=labels)


async def write(store: Store, who: str) -> None:
    """Create, change and delete what the other one creates, changes and deletes, too."""
    actor = Actor(PEOPLE, who)
    for number in range(ROUNDS):
        name = f"t{number % KEYS}"
        await store.write(put(labelled(name, by=who, number=str(number)), actor))
        if number % 3 == 0:
            await store.write_all([remove(tenant(name).key, actor)])  # whoever deleted it first


async def write_both(stores: list[Store]) -> None:
    async with asyncio.TaskGroup() as group:
        for number, store in enumerate(stores):
            group.create_task(write(store, f"writer-{number}"))


async def newest(stores: list[Store]) -> int:
    (row,) = (await stores[0].events(0, 100_000))[-1:]
    return row.revision


def test_without_it_it_says_what_to_run(
    postgres: Postgres, database: str, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "JARS", jars.HERE / "none")
    with (
        pytest.raises(MissingEngineError, match="Debezium is not in engines/none/debezium; run: make kafka"),
        Debezium(postgres, database, brokers),
    ):
        pass


def test_the_page_names_the_versions_that_are_tested() -> None:
    (debezium,) = re.findall(
        r"<version>(\d+\.\d+)\.\d+\.Final<", jars.POMS[jars.DEBEZIUM].read_text(encoding="utf-8")
    )
    assert f"Debezium {debezium} on Kafka Connect {jars.NEWEST}." in PAGE.read_text(encoding="utf-8")


async def test_the_same_events_come_in_the_same_order_whenever_it_is_restarted(
    debezium: Debezium, stores: list[Store], log: KafkaLog
) -> None:
    own, captured = Reader(log, CHANGES.name, of_relay), Reader(log, debezium.topic, of_debezium)
    relay = asyncio.create_task(Relay(stores[0], log).run())

    async def write_while_it_is_away() -> None:
        """And have the relay's work done, rows pruned, before it is back."""
        await write_both(stores)
        await own.has(await newest(stores))
        await stores[0].forget_outbox(await newest(stores))
        await asyncio.to_thread(debezium.start)
        await captured.has(await newest(stores))

    try:
        await asyncio.to_thread(debezium.kill)  # before it has written down where it is
        await write_while_it_is_away()
        writing = asyncio.create_task(write_both(stores))
        await captured.has(await newest(stores) + 1)
        await asyncio.to_thread(debezium.kill)
        await writing
        await write_while_it_is_away()
        await asyncio.to_thread(debezium.stop)
        await write_while_it_is_away()
    finally:
        relay.cancel()
    last = await newest(stores)
    assert [event.revision for event in own.events] == list(range(1, last + 1))
    assert list(dict.fromkeys(captured.events)) == own.events
    # What comes twice comes as it was, from some point on: at most once a restart.
    revisions = [event.revision for event in captured.events]
    assert sum(later <= earlier for earlier, later in pairwise(revisions)) <= 3
    kinds = {event.what.rpartition(b".")[2] for event in own.events}
    assert kinds == {b"ADDED", b"MODIFIED", b"DELETED"}
    who = {event.who for event in await stores[0].events(0, 100_000)}
    assert who == {"writer-0", "writer-1"}


async def test_a_quiet_outbox_keeps_none_of_the_server_s_log(
    postgres: Postgres, database: str, brokers: Brokers, stores: list[Store], log: KafkaLog
) -> None:
    name = database.rpartition("/")[2]
    written = "SELECT pg_current_wal_lsn()"
    read = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
    quick = {"heartbeat.interval.ms": "500", "offset.flush.interval.ms": "500"}
    with started(Debezium(postgres, database, brokers, settings=quick)) as debezium:
        postgres.execute("CREATE TABLE others AS SELECT generate_series(1, 50000)", database=name)
        ((end,),) = postgres.execute(written)
        async with asyncio.timeout(60):
            while postgres.execute(read, end, debezium.slot) != [(True,)]:
                await asyncio.sleep(0.1)


async def test_a_slot_that_is_another_one_is_an_error_until_told_to_begin_anew(
    debezium: Debezium, stores: list[Store], log: KafkaLog, postgres: Postgres, database: str
) -> None:
    captured = Reader(log, debezium.topic, of_debezium)
    await stores[0].write(put(tenant("before")))
    await captured.has(1)
    await asyncio.to_thread(debezium.stop)
    postgres.execute("SELECT pg_drop_replication_slot(%s)", debezium.slot)
    await stores[0].write(put(tenant("missed")))
    make = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
    postgres.execute(make, debezium.slot, database=database.rpartition("/")[2])
    await asyncio.to_thread(debezium.start, "Last recorded offset is no longer available on the server")
    await asyncio.to_thread(debezium.stop)
    debezium.forget()
    await asyncio.to_thread(debezium.start)
    await stores[0].write(put(tenant("after")))
    await captured.has(3)
    assert [event.key for event in captured.events] == [b"Tenant//before", b"Tenant//after"]
