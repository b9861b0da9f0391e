"""The proxy between a client and a real part: what it cuts, holds up and lets pass."""

import asyncio

import psycopg
import pytest
from aiokafka.errors import KafkaConnectionError
from client_parts import append, new_topic, read

from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.proxy import METADATA, POSTGRES, PRODUCE, Proxy, before, kafka_request, postgres_query


async def test_clients_of_the_proxy_go_through_it_for_good(brokers3: Brokers) -> None:
    async with before(brokers3) as proxies:
        await new_topic(proxies[0].address, "through", copies=3)
        cuts = [proxy.cut_at(kafka_request(PRODUCE)) for proxy in proxies]
        await append(proxies[0].address, "through", b"1")
        assert [cut.is_set() for cut in cuts].count(True) == 1  # the leader's, whichever that is
        assert await read(brokers3.bootstrap, "through") == [b"1"]
        for proxy in proxies:
            await proxy.refuse()
        appending = asyncio.create_task(append(proxies[1].address, "through", b"2"))
        with pytest.raises(KafkaConnectionError, match="Unable to bootstrap"):
            await appending


@pytest.mark.parametrize("in_answer", [False, True])
async def test_a_produce_is_cut_in_the_middle_and_sent_again(brokers: Brokers, in_answer: bool) -> None:  # noqa: FBT001
    topic = f"cut-{in_answer}"
    async with before(brokers) as (proxy,):
        await new_topic(proxy.address, topic)
        cut = proxy.cut_at(kafka_request(PRODUCE), 2, in_answer=in_answer)
        await append(proxy.address, topic, b"1", b"2", b"3")
        assert cut.is_set()
    assert await read(brokers.bootstrap, topic) == [b"1", b"2", b"3"]


async def test_a_stalled_road_goes_on_where_it_was(brokers: Brokers) -> None:
    async with before(brokers) as (proxy,):
        await new_topic(proxy.address, "stalled")
        proxy.stall()
        asked = proxy.accepted
        appending = asyncio.create_task(append(proxy.address, "stalled", b"1"))
        while proxy.accepted == asked:
            await asyncio.sleep(0.01)
        # Meanwhile others, on another road, do the same many times.
        for _ in range(5):
            await append(brokers.bootstrap, "stalled", b"0")
        assert not appending.done()
        proxy.flow()
        await appending
    assert await read(brokers.bootstrap, "stalled") == [b"0"] * 5 + [b"1"]


async def test_what_is_delayed_keeps_its_order(brokers: Brokers) -> None:
    async with before(brokers) as (proxy,):
        await new_topic(proxy.address, "delayed")
        began = asyncio.get_running_loop().time()
        proxy.delay_seconds = 0.1
        await append(proxy.address, "delayed", b"1", b"2")
        # There and back, for the addresses and for each of both: no upper bound.
        assert asyncio.get_running_loop().time() - began >= 3 * 2 * 0.1
        proxy.delay_seconds = 0.0
        assert await read(proxy.address, "delayed") == [b"1", b"2"]


async def test_every_connection_is_cut_and_new_ones_are_taken(brokers: Brokers) -> None:
    async with before(brokers) as (proxy,):
        await new_topic(proxy.address, "again")
        cut = proxy.cut_at(kafka_request(METADATA))
        with pytest.raises(KafkaConnectionError, match="Unable to bootstrap"):
            await append(proxy.address, "again", b"1")
        assert cut.is_set()
        await append(proxy.address, "again", b"1")


@pytest.mark.parametrize("in_answer", [False, True])
async def test_a_commit_is_cut_in_the_middle(postgres: Postgres, database: str, in_answer: bool) -> None:  # noqa: FBT001
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE written (number int)")
    async with Proxy(postgres.port, POSTGRES) as proxy:
        road = database.replace(f":{postgres.port}/", f":{proxy.port}/")
        connection = await psycopg.AsyncConnection.connect(road)
        await connection.execute("INSERT INTO written VALUES (1)")
        cut = proxy.cut_at(postgres_query("COMMIT"), in_answer=in_answer)
        with pytest.raises(psycopg.OperationalError):
            await connection.commit()
        assert cut.is_set()
        await connection.close()
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT number FROM written").fetchall()
    assert rows == ([(1,)] if in_answer else [])
