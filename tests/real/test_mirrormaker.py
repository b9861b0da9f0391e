"""MirrorMaker 2 mirrors here, between real clusters: it is what transom's own mirror is measured against."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engines import jars
from engines.kafka import Brokers
from engines.mirrormaker import MirrorMaker
from engines.process import EngineError, MissingEngineError
from engines_fixtures import started
from kafka_logs import emptied_log
from transom.logs.kafka import KafkaLog
from transom.logs.protocol import Entry, Message, Topic, TopicPartition
from transom.model.errors import UnknownTopicError

COPY = TopicPartition("eu.orders", 0)


@pytest.fixture
async def source(brokers: Brokers) -> AsyncIterator[KafkaLog]:
    async with emptied_log(brokers) as log:
        yield log


@pytest.fixture
async def target(broker39: Brokers) -> AsyncIterator[KafkaLog]:
    async with emptied_log(broker39) as log:
        yield log


async def entries(log: KafkaLog, count: int) -> list[Entry]:
    """The first so many of the copy; waits for them."""
    found: list[Entry] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            try:
                found += await log.read({COPY: found[-1].offset + 1 if found else 0}, wait_seconds=1)
            except UnknownTopicError:
                await asyncio.sleep(0.05)
    return found


def orders(first: int, count: int) -> list[Message]:
    return [Message("orders", b"%d" % number, b"order") for number in range(first, first + count)]


@pytest.mark.soak
async def test_it_mirrors_and_goes_on_where_it_stopped(
    source: KafkaLog, target: KafkaLog, brokers: Brokers, broker39: Brokers
) -> None:
    await source.create([Topic("orders")])
    await source.append(orders(0, 100))
    quick = {"target.producer.linger.ms": 0}
    with started(
        MirrorMaker("eu", brokers.bootstrap, "us", broker39.bootstrap, "ord.*", settings=quick)
    ) as mirror:
        await entries(target, 100)
        assert mirror.process.cpu_seconds() > 0
        await asyncio.to_thread(mirror.stop)
        await source.append(orders(100, 100))
        await asyncio.to_thread(mirror.start)
        copied = await entries(target, 200)
        await asyncio.to_thread(mirror.stop)
    assert [entry.key for entry in copied] == [b"%d" % number for number in range(200)]


async def test_without_jars_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "JARS", jars.HERE / "none")
    mirror = MirrorMaker("eu", "127.0.0.1:1", "us", "127.0.0.1:1", "orders")
    with pytest.raises(MissingEngineError, match="make kafka"), mirror:
        pass
    with pytest.raises(EngineError, match="was not started"):
        mirror.stop()
