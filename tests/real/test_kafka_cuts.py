"""A Kafka log over connections that are cut in the middle: each append is there once, and in order."""

import asyncio
import contextlib

import pytest

from engines.kafka import Brokers
from engines.proxy import ADD_PARTITIONS_TO_TXN, END_TXN, FETCH, PRODUCE, before, kafka_request
from kafka_logs import empty, kafka_log
from transom.logs.kafka import KafkaLog
from transom.logs.protocol import Message, Topic, TopicPartition
from transom.model.errors import ConflictError, UnreachableError
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

AT = TopicPartition("cut", 0)


def numbered(number: int) -> Message:
    return Message("cut", None, str(number).encode())


async def held(log: KafkaLog, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    offset = 0
    async with asyncio.timeout(30):
        while len(found) < count:
            for entry in await log.read({AT: offset}, wait_seconds=5):
                found.append(entry.value)
                offset = entry.offset + 1
    return found


@pytest.mark.parametrize("cut_in", ["request", "answer"])
@pytest.mark.parametrize(
    ("request_key", "writer"),
    [(PRODUCE, None), (PRODUCE, "fenced"), (ADD_PARTITIONS_TO_TXN, "fenced"), (END_TXN, "fenced")],
)
async def test_whatever_is_cut_each_append_is_there_once(
    brokers: Brokers, request_key: int, writer: str | None, cut_in: str
) -> None:
    async with before(brokers) as (proxy,):
        log = KafkaLog(f"kafka://{proxy.address}", SystemClock(), Randomness())
        try:
            await log.create([Topic("cut")])
            fence = await log.take_fence(writer) if writer else None
            await log.append([numbered(0)], fence=fence)
            cut = proxy.cut_at(kafka_request(request_key), in_answer=cut_in == "answer")
            for number in range(1, 4):
                await log.append([numbered(number)], fence=fence)
            assert cut.is_set()
            assert await held(log, 4) == [b"0", b"1", b"2", b"3"]
            assert not await log.read({AT: (await log.bounds("cut"))[0].end})
        finally:
            await log.close()
            await empty(brokers)


async def test_a_writer_that_does_not_know_how_it_ended_does_not_go_on(brokers: Brokers) -> None:
    class Hurried(SystemClock):
        """Patience of twenty seconds is over in two."""

        def monotonic(self) -> float:
            return 10 * super().monotonic()

    async with before(brokers) as (proxy,):
        log = KafkaLog(f"kafka://{proxy.address}", Hurried(), Randomness())
        try:
            await log.create([Topic("cut")])
            fence = await log.take_fence("writer")
            await log.append([numbered(0)], fence=fence)
            cut = proxy.cut_at(kafka_request(END_TXN))
            appending = asyncio.create_task(log.append([numbered(1)], fence=fence))
            await cut.wait()
            await proxy.refuse()
            with pytest.raises(UnreachableError):
                await appending
            await proxy.accept()
            with pytest.raises(ConflictError, match="take the fence again"):
                await log.append([numbered(2)], fence=fence)
            fence = await log.take_fence("writer")
            await log.append([numbered(3)], fence=fence)
            # The one in doubt was never committed, and the one after it never sent.
            assert await held(log, 2) == [b"0", b"3"]
        finally:
            await log.close()
            await empty(brokers)


async def test_a_reader_whose_connection_is_cut_goes_on_where_it_was(brokers: Brokers) -> None:
    async with before(brokers) as (proxy,):
        log, writer = KafkaLog(f"kafka://{proxy.address}", SystemClock(), Randomness()), kafka_log(brokers)
        try:
            await log.create([Topic("cut")])
            reading = asyncio.create_task(held(log, 20))
            for number in range(20):
                if number % 5 == 2:
                    proxy.cut_at(kafka_request(FETCH), in_answer=number % 2 == 0)
                await writer.append([numbered(number)])
            assert await reading == [str(number).encode() for number in range(20)]
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            await log.close()
            await writer.close()
            await empty(brokers)


async def test_waiting_behind_the_end_of_a_transaction_asks_seldom(brokers: Brokers) -> None:
    log = kafka_log(brokers)
    try:
        await log.create([Topic("cut")])
        await log.append([numbered(0)], fence=await log.take_fence("writer"))
        assert await held(log, 1) == [b"0"]
        asked, ask = 0, log._cluster.ask

        async def counted(*what, **how):
            nonlocal asked
            asked += 1
            return await ask(*what, **how)

        log._cluster.ask = counted  # type: ignore[method-assign]
        assert not await log.read({AT: 1}, wait_seconds=0.3)
        assert asked <= 5
    finally:
        await log.close()
        await empty(brokers)
