"""The bytes of a connection for whole batches, without a network: the event loop's part is played here."""

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CorrelationIdError, IncompatibleBrokerVersion, KafkaConnectionError
from aiokafka.protocol.api import RequestHeader_v1, RequestHeader_v2
from hypothesis import given
from hypothesis import strategies as st

from transom.logs.kafka_stream import Call, Stream

FETCH = Call(key=1, version=13, is_flexible=True)
PRODUCE = Call(key=0, version=7, is_flexible=False)


class Road:
    """A connection whose other end is this test."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        transport = SimpleNamespace(writelines=lambda pieces: self.written.append(b"".join(pieces)))
        self.stream = Stream(
            SimpleNamespace(
                _writer=SimpleNamespace(transport=transport),
                _versions={0: (3, 13), 1: (4, 17)},
                close=self.close,
            )
        )

    def close(self) -> None:
        self.closed = True

    async def ask(self, call: Call = PRODUCE, *body: bytes) -> "asyncio.Task[Any]":
        asked = asyncio.create_task(self.stream.ask(call, body))
        await asyncio.sleep(0)
        return asked

    def feed(self, data: bytes, most: int = 1 << 20) -> None:
        """What a loop does that reads up to `most` bytes at a time."""
        while data and not self.closed:
            room = self.stream.get_buffer(-1)
            assert len(room) > 0
            count = min(most, len(room), len(data))
            room[:count] = data[:count]
            self.stream.buffer_updated(count)
            data = data[count:]


def answer(correlation: int, body: bytes) -> bytes:
    return struct.pack(">ii", len(body) + 4, correlation) + body


SIZES = st.one_of(
    st.integers(0, 9), st.integers(32_000, 33_000), st.integers(65_000, 66_000), st.just(300_000)
)


@given(st.lists(SIZES, min_size=1, max_size=6), st.sampled_from((1, 3, 4, 7, 1_000, 65_536, 1 << 20)))
def test_answers_arrive_whole_however_they_are_cut(sizes, most):
    if most < 1_000:
        sizes = [size % 300 for size in sizes]

    async def run() -> None:
        road = Road()
        bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
        asked = [await road.ask() for _ in bodies]
        road.feed(b"".join(answer(number + 1, body) for number, body in enumerate(bodies)), most)
        assert [bytes(await each) for each in asked] == bodies

    asyncio.run(run())


async def test_an_answer_that_is_kept_is_not_written_over():
    road = Road()
    first, second = await road.ask(), await road.ask()
    road.feed(answer(1, b"first"))
    kept = await first
    road.feed(answer(2, b"other"))
    assert (bytes(kept), bytes(await second)) == (b"first", b"other")


@pytest.mark.parametrize(("call", "header"), [(PRODUCE, RequestHeader_v1), (FETCH, RequestHeader_v2)])
async def test_a_request_is_what_a_broker_reads(call, header):
    road = Road()
    await road.ask(call, b"ab", b"c")
    (size,) = struct.unpack(">i", road.written[0][:4])
    request = SimpleNamespace(API_KEY=call.key, API_VERSION=call.version)
    expected = header(request, correlation_id=1, client_id="transom").encode() + b"abc"
    assert (size, road.written[0][4:]) == (len(expected), expected)
    road.stream.close()


async def test_who_was_cancelled_gets_nobody_elses_answer():
    road = Road()
    first, second = await road.ask(), await road.ask()
    first.cancel()
    await asyncio.sleep(0)
    road.feed(answer(1, b"one") + answer(2, b"two"))
    assert bytes(await second) == b"two"


async def test_an_answer_to_nobodys_request_ends_the_connection():
    road = Road()
    first, second = await road.ask(), await road.ask()
    road.feed(answer(7, b"whose?"))
    assert road.closed
    with pytest.raises(CorrelationIdError, match="answer 7 came, 1 was due"):
        await first
    with pytest.raises(KafkaConnectionError):
        await second
    with pytest.raises(KafkaConnectionError):
        await road.stream.ask(PRODUCE, [])


@pytest.mark.parametrize("size", [-1, 3, 1 << 30])
async def test_an_answer_of_an_impossible_size_ends_the_connection(size):
    road = Road()
    asked = await road.ask()
    road.feed(struct.pack(">i", size))
    assert road.closed
    with pytest.raises(KafkaConnectionError):
        await asked


async def test_a_version_that_the_broker_lacks_is_told_and_not_sent():
    road = Road()
    with pytest.raises(IncompatibleBrokerVersion, match="versions 4 to 17 of request 1, not 18"):
        await road.stream.ask(Call(1, 18, is_flexible=True), [])
    assert road.written == []
    assert not road.stream.closed
