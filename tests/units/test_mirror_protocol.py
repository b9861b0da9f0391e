"""What is sent to brokers and understood of their answers, against decoders that are not the mirror's."""

import struct
from io import BytesIO
from uuid import uuid4

from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from transom.links.kafka import fetching, producing
from transom.links.kafka.fetching import Fetched, Wanted
from transom.logs.kafka_api import READ_COMMITTED
from transom.logs.protocol import TopicPartition

IDS = [uuid4().bytes for _ in range(3)]
OFFSETS = st.integers(0, 1 << 62)


@given(
    st.dictionaries(
        st.tuples(st.text("abc.-_", min_size=1, max_size=9), st.integers(0, 300)),
        st.binary(max_size=300),
        min_size=1,
    )
)
def test_what_is_produced_is_what_a_broker_reads(sent):
    encoded = b"".join(producing._encoded([(TopicPartition(*at), data) for at, data in sent.items()]))
    read = ProduceRequest_v7.decode(BytesIO(encoded))
    assert (read.transactional_id, read.required_acks) == (None, -1)
    found = [((topic, number), data) for topic, parts in read.topics for number, data in parts]
    assert dict(found) == sent
    assert len(found) == len(sent)
    assert len({topic for topic, _ in read.topics}) == len(read.topics)


@given(
    st.dictionaries(
        st.text("abc.-_", min_size=1, max_size=9),
        st.dictionaries(st.integers(0, 300), st.tuples(st.integers(-1, 120), OFFSETS)),
    )
)
def test_what_became_of_batches_is_read(told):
    answer = ProduceResponse_v7(
        [
            (topic, [(number, error, base, -1, 0) for number, (error, base) in parts.items()])
            for topic, parts in told.items()
        ],
        0,
    )
    assert producing._decoded(memoryview(answer.encode())) == {
        TopicPartition(topic, number): each for topic, parts in told.items() for number, each in parts.items()
    }


class Reading:
    """A decoder of the flexible encoding, as KIP-482 has it."""

    def __init__(self, data: bytes) -> None:
        self.left = BytesIO(data)

    def numbers(self, layout: str) -> tuple[int, ...]:
        shape = struct.Struct(">" + layout)
        return shape.unpack(self.left.read(shape.size))

    def unsigned(self) -> int:
        value = shift = 0
        while (byte := self.left.read(1)[0]) > 127:
            value |= (byte - 128) << shift
            shift += 7
        return value | byte << shift

    def no_tags(self) -> None:
        assert self.unsigned() == 0


@given(
    st.lists(
        st.builds(
            Wanted,
            st.sampled_from(IDS),
            st.integers(0, 500),
            OFFSETS,
            st.integers(1, 1 << 30),
            st.integers(-1, 99),
        ),
        max_size=200,
    )
)
def test_what_is_fetched_is_asked_for_in_one_request(wanted):
    asked = Reading(fetching._encoded(wanted, 500, 1 << 20, READ_COMMITTED))
    assert asked.numbers("iiiibii") == (-1, 500, 1, 1 << 20, READ_COMMITTED, 0, -1)
    found: list[Wanted] = []
    before = b""
    for _ in range(asked.unsigned() - 1):
        topic_id = asked.left.read(16)
        assert topic_id != before
        before = topic_id
        for _ in range(asked.unsigned() - 1):
            partition, leader, offset, epoch, start, size = asked.numbers("iiqiqi")
            assert (leader, start) == (-1, -1)
            asked.no_tags()
            found.append(Wanted(topic_id, partition, offset, size, epoch))
        asked.no_tags()
    assert found == wanted
    assert (asked.unsigned(), asked.unsigned()) == (1, 1)
    asked.no_tags()
    assert asked.left.read() == b""


def compact(count: int) -> bytes:
    """The length of a compact array or string; 0 stands for null."""
    value, out = count + 1, bytearray()
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


TAGS = st.sampled_from((b"\0", b"\1\5\3abc", b"\2\4\0\x81\1\2xy"))
DIVERGING = b"\2\0\x0d" + struct.pack(">iq", 3, 70) + b"\0\5\1z"
FETCHED = st.builds(
    Fetched,
    st.sampled_from(IDS),
    st.integers(0, 500),
    st.sampled_from((0, 1, 100)),
    OFFSETS,
    OFFSETS,
    OFFSETS,
    st.lists(st.tuples(OFFSETS, OFFSETS), max_size=3),
    st.sampled_from((b"", b"x" * 126, b"y" * 127, b"z" * 20_000)).map(memoryview),
    st.booleans(),
)


@given(st.lists(FETCHED, max_size=5), TAGS, st.booleans())
def test_answers_are_read_with_tags_that_nobody_knows_yet(told, tags, null):
    out = tags + struct.pack(">ihi", 0, 0, 0) + compact(len(told))
    for each in told:
        out += each.topic_id + compact(1)
        out += struct.pack(">ihqqq", each.partition, each.error, each.high, each.stable, each.start)
        out += b"\0" if null and not each.aborted else compact(len(each.aborted))
        out += b"".join(struct.pack(">qq", *one) + tags for one in each.aborted)
        out += struct.pack(">i", -1)
        out += b"\0" if null and not each.records else compact(len(each.records)) + bytes(each.records)
        out += (DIVERGING if each.diverged else tags) + tags
    assert fetching._decoded(memoryview(out + tags)) == (0, told)


def test_an_error_of_the_whole_answer_is_read():
    out = b"\0" + struct.pack(">ihi", 0, 71, 0) + compact(0) + b"\0"
    assert fetching._decoded(memoryview(out)) == (71, [])
