"""Records numbered anew: a plain client reads in the new batch what it would have read in the old ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_batches import CODECS, Made, batch_bytes, checksummed, client_reads, one, record, records_made
from transom.links.kafka import batches, recoding
from transom.links.kafka.batches import BadBatchError
from transom.logs.kafka_produce import Producer

MIRROR = Producer(5, 0)


def rewritten(found, attributes):
    return bytes(batches.stamped(recoding.joined(found, attributes), MIRROR, 0))


def numbered(made):
    return [each._replace(offset=number) for number, each in enumerate(made)]


@given(records_made(), st.sampled_from(CODECS), st.data())
def test_what_compaction_left_is_the_same_records_without_gaps(made, codec, data):
    base = made[0].offset - data.draw(st.integers(0, min(3, made[0].offset)))
    last = made[-1].offset + data.draw(st.integers(0, 3))
    original = batch_bytes(made, codec=codec, base=base, last=last)
    assert client_reads(original) == made  # the batch made by hand is one
    found = list(recoding.records(one(original)))
    assert [each.offset for each in found] == [each.offset for each in made]
    assert client_reads(rewritten(found, codec)) == numbered(made)


@given(records_made(), st.sampled_from(CODECS), st.data())
def test_a_road_may_begin_in_the_middle_of_a_batch(made, codec, data):
    start = data.draw(st.integers(made[0].offset - 1, made[-1].offset + 1))
    found = list(recoding.records(one(batch_bytes(made, codec=codec)), start))
    wanted = [each for each in made if each.offset >= start]
    assert [each.offset for each in found] == [each.offset for each in wanted]
    if found:
        assert client_reads(rewritten(found, codec)) == numbered(wanted)


@given(st.lists(records_made(most=5), min_size=2, max_size=5), st.sampled_from(CODECS))
def test_several_batches_become_one(runs, codec):
    found = [each for made in runs for each in recoding.records(one(batch_bytes(made, codec=codec)))]
    whole = rewritten(found, codec)
    assert client_reads(whole) == numbered(each for made in runs for each in made)
    assert one(whole).attributes == codec
    assert one(whole).max_timestamp == max(each.timestamp for made in runs for each in made)
    assert one(whole).is_whole


@pytest.mark.parametrize("codec", CODECS)
def test_times_that_the_broker_gave_are_kept_as_each_records_own(codec):
    made = [record(3), record(4), record(6)]
    appended = 1_800_000_000_000
    original = batch_bytes(made, codec=codec, attributes=batches.LOG_APPEND_TIME, max_timestamp=appended)
    assert [each.timestamp for each in client_reads(original)] == [appended] * 3
    written = rewritten(list(recoding.records(one(original))), one(original).attributes)
    assert client_reads(written) == [each._replace(timestamp=appended) for each in numbered(made)]
    assert one(written).attributes == codec


@given(st.lists(st.integers(-1, (1 << 63) - 1), min_size=1, max_size=6))
def test_times_may_run_backwards_and_be_far_apart(times):
    made = [Made(number, at, None, b"") for number, at in enumerate(times)]
    found = list(recoding.records(one(batch_bytes(made))))
    assert client_reads(rewritten(found, 0)) == made


def test_records_of_more_than_a_varint_byte_are_counted_right():
    made = [
        Made(number, 0, b"k" * (number % 300), b"v" * 70_000 if number == 8200 else b"")
        for number in range(8300)
    ]
    found = list(recoding.records(one(batch_bytes(made, codec=4))))
    assert client_reads(rewritten(found, 4)) == made


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_varints_come_back(value):
    assert recoding._varint(recoding._zigzag(value), 0) == (value, len(recoding._zigzag(value)))


def test_about_how_large_a_join_becomes_is_no_less_than_it_is():
    made = [[record(number)] for number in range(200)]
    single = [one(batch_bytes(each)) for each in made]
    whole = rewritten([each for batch in single for each in recoding.records(batch)], 0)
    assert len(whole) <= 61 + sum(map(recoding.joined_bytes, single))


@settings(max_examples=200)
@given(records_made(most=4), st.sampled_from(CODECS), st.binary(min_size=1, max_size=20), st.data())
def test_garbage_with_a_right_checksum_is_refused_as_a_bad_batch(made, codec, garbage, data):
    whole = bytearray(batch_bytes(made, codec=codec))
    at = data.draw(st.integers(21, len(whole) - 1))
    whole[at : at + len(garbage)] = garbage
    whole[8:12] = (len(whole) - 12).to_bytes(4, "big")
    batch = one(bytes(checksummed(whole)))
    batches.check(batch)
    try:
        found = list(recoding.records(batch))
        written = rewritten(found, batch.attributes) if found else b""
    except BadBatchError:
        return
    offsets = [each.offset for each in found]
    assert offsets == sorted(set(offsets))
    assert not offsets or batch.base <= offsets[0] <= offsets[-1] < batch.next
    assert len(offsets) == batch.size or batch.size <= 0
    assert not written or one(written).size == len(found)


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_that_nobody_knows_is_refused(codec):
    with pytest.raises(BadBatchError, match=f"codec {codec}"):
        list(recoding.records(one(batch_bytes([record(1)], attributes=codec))))


def test_what_stands_behind_the_last_record_is_refused():
    whole = bytearray(batch_bytes([record(1), record(2)]))
    whole[57:61] = (1).to_bytes(4, "big")
    with pytest.raises(BadBatchError, match="more than"):
        list(recoding.records(one(bytes(checksummed(whole)))))


def test_a_payload_that_ends_in_the_middle_of_a_record_is_refused():
    whole = bytearray(batch_bytes([record(1), record(2)]))
    for end in range(61, len(whole)):
        cut = bytearray(whole[:end])
        cut[8:12] = (end - 12).to_bytes(4, "big")
        with pytest.raises(BadBatchError, match=r"middle of a record|longer than"):
            list(recoding.records(one(bytes(checksummed(cut)))))


@pytest.mark.parametrize("first", [-3, (1 << 63) - 1])
def test_a_time_that_no_batch_can_hold_is_refused(first):
    whole = bytearray(batch_bytes([record(1), record(2)]))
    whole[27:35] = first.to_bytes(8, "big", signed=True)
    with pytest.raises(BadBatchError, match="time"):
        list(recoding.records(one(bytes(checksummed(whole)))))
