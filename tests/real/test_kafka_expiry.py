"""What expires in a Kafka log behind a mirror that had it is no gap; what it had not is one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.kafka import Brokers
from kafka_logs import emptied_log, kafka_log
from transom.links.mirror import Mirror
from transom.logs import kafka_bounds
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_fetch import fetch
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Bounds, Log, Message, Topic, TopicPartition
from transom.runtime.clock import SystemClock

EVENTS = Topic("events", partitions=2, retention_seconds=1)


def pair(number: int, partition: int = 0) -> list[Message]:
    """Two entries of one append: with a fence a transaction, whose end takes an offset as well."""
    return [Message("events", None, str(n).encode(), partition=partition) for n in (number, number + 1)]


@contextlib.asynccontextmanager
async def mirroring(source: Log, target: Log) -> AsyncIterator[Mirror]:
    """A mirror that was just started, as if its process had been."""
    mirror = Mirror("mirror/eu", source, target, {"events": "events.eu"})
    running = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def held(target: Log, *counts: int) -> list[list[bytes | None]]:
    """The mirrored entries of both partitions, once there are so many in each."""
    await target.create([Topic("events.eu", partitions=2, retention_seconds=1)])
    found: list[list[bytes | None]] = [[], []]
    async with asyncio.timeout(30):
        for partition, count in enumerate(counts):
            while len(values := found[partition]) < count:
                at = TopicPartition("events.eu", partition)
                values += [entry.value for entry in await target.read({at: len(values)}, wait_seconds=5)]
    return found


async def expired(log: KafkaLog, *ends: int) -> None:
    """Wait until nothing is left below these offsets, which are behind the ends of transactions."""
    async with asyncio.timeout(60):
        while any(
            each.start < end for each, end in zip((await log.bounds("events")).values(), ends, strict=True)
        ):
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def opened(brokers: Brokers) -> AsyncIterator[KafkaLog]:
    log = kafka_log(brokers)
    try:
        yield log
    finally:
        await log.close()


@pytest.fixture
async def source(brokers: Brokers) -> AsyncIterator[KafkaLog]:
    async with emptied_log(brokers) as log:
        await log.create([EVENTS])
        yield log


async def test_what_expires_while_its_bounds_are_looked_for_is_no_fault(
    source: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.append([*pair(0), *pair(2)])
    truncated: list[int] = []

    async def after_a_truncation(*args: Any) -> Any:
        if not truncated:
            truncated.append(3)
            monkeypatch.undo()
            await source.truncate("events", 0, 3)
        return await fetch(*args)

    monkeypatch.setattr(kafka_bounds, "fetch", after_a_truncation)
    assert (await source.bounds("events"))[0] == Bounds(3, 4)
    assert truncated


async def test_what_was_mirrored_before_it_expired_is_no_gap(source: KafkaLog, brokers: Brokers) -> None:
    target = MemoryLog(SystemClock())
    fence = await source.take_fence("writer")
    await source.append(pair(0), fence=fence)
    async with mirroring(source, target):
        assert await held(target, 2, 0) == [[b"0", b"1"], []]
    async with mirroring(source, target):  # what it knew of the one partition stays while the other moves
        await source.append(pair(10, partition=1), fence=fence)
        assert await held(target, 2, 2) == [[b"0", b"1"], [b"10", b"11"]]
    await expired(source, 3, 3)
    # As in another process.
    async with opened(brokers) as again, mirroring(again, target) as mirror:
        await source.append([*pair(2), *pair(12, partition=1)], fence=fence)
        assert await held(target, 4, 4) == [[b"0", b"1", b"2", b"3"], [b"10", b"11", b"12", b"13"]]
        assert mirror.state.gaps == []


async def test_what_expired_before_it_was_mirrored_is_a_gap(source: KafkaLog, brokers: Brokers) -> None:
    target = MemoryLog(SystemClock())
    fence = await source.take_fence("writer")
    await source.append(pair(0), fence=fence)
    async with mirroring(source, target):
        assert await held(target, 2, 0) == [[b"0", b"1"], []]
    await source.append(pair(2), fence=fence)
    await expired(source, 6, 0)
    async with opened(brokers) as again, mirroring(again, target) as mirror:
        await source.append(pair(4), fence=fence)
        assert await held(target, 4, 0) == [[b"0", b"1", b"4", b"5"], []]
        assert len(mirror.state.gaps) == 1
        assert "offset 2 of events/0 is not available" in mirror.state.gaps[0]
