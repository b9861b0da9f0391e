"""Batches as brokers store them: found in what was fetched, checked, and written by another producer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_batches import (
    CODECS,
    SOURCES_PRODUCER,
    batch_bytes,
    checksummed,
    client_reads,
    control_bytes,
    header,
    one,
    record,
    records_made,
)
from transom.links.kafka import batches
from transom.links.kafka.batches import BadBatchError
from transom.logs.kafka_produce import Producer

MIRROR = Producer(9_000_000_001, 12)
THREE = [record(7), record(8), record(9)]


def test_batches_are_found_one_behind_the_other_with_what_their_headers_say():
    data = batch_bytes(THREE, codec=3) + control_bytes(10, SOURCES_PRODUCER, commit=True)
    first, mark = batches.split(memoryview(data))
    assert (first.base, first.next, first.last_delta, first.size) == (7, 10, 2, 3)
    assert (first.base_timestamp, first.max_timestamp) == (THREE[0].timestamp, THREE[2].timestamp)
    assert first.producer_id == SOURCES_PRODUCER.id
    assert first.attributes & batches.CODEC == 3
    assert first.is_whole
    assert not first.is_control
    assert mark.is_control
    assert mark.next == 11


def test_what_is_cut_off_at_the_end_is_left_out_wherever_the_cut_is():
    first, second = batch_bytes(THREE), batch_bytes([record(10)])
    for end in range(len(first) + len(second)):
        found = list(batches.split(memoryview(first + second)[:end]))
        assert [batch.base for batch in found] == ([7] if end >= len(first) else [])
    assert [batch.base for batch in batches.split(memoryview(first + second))] == [7, 10]


@pytest.mark.parametrize("magic", [0, 1])
def test_formats_before_magic_2_are_refused_by_name(magic):
    data = bytearray(batch_bytes(THREE))
    data[16] = magic
    with pytest.raises(BadBatchError, match=f"format {magic}.*0.11"):
        list(batches.split(memoryview(data)))


@pytest.mark.parametrize("length", [-(1 << 31), -12, -1, 0, 48])
def test_a_length_below_its_own_header_is_refused(length):
    data = bytearray(batch_bytes(THREE))
    data[8:12] = length.to_bytes(4, "big", signed=True)
    with pytest.raises(BadBatchError, match="bytes long"):
        list(batches.split(memoryview(data)))


@given(st.binary(max_size=300), st.integers(0, 200))
def test_garbage_is_refused_or_left_out(garbage, at):
    data = bytearray(batch_bytes(THREE))
    data[at : at + len(garbage)] = garbage
    try:
        found = list(batches.split(memoryview(data)))
    except BadBatchError:
        return
    assert sum(len(batch.data) for batch in found) <= len(data)


@given(st.data())
def test_a_bit_that_flips_behind_the_checksum_is_noticed(data):
    whole = bytearray(batch_bytes(THREE, codec=data.draw(st.sampled_from(CODECS))))
    batches.check(one(bytes(whole)))
    bit = data.draw(st.integers(17 * 8, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    (found,) = batches.split(memoryview(whole))
    with pytest.raises(BadBatchError, match="checksum"):
        batches.check(found)


@given(records_made(), st.sampled_from(CODECS), st.integers(0, (1 << 31) - 1))
def test_a_stamped_batch_is_the_mirrors_and_its_payload_is_untouched(made, codec, sequence):
    made = [each._replace(offset=number) for number, each in enumerate(made)]
    original = batch_bytes(made, codec=codec, attributes=batches.TRANSACTIONAL | 0x40)
    batch = one(original)
    written = bytes(batches.restamped(batch, MIRROR, sequence))
    assert written[61:] == original[61:]
    read = header(written)
    assert read.validate_crc()
    assert (read.magic, read.base_offset, read.last_offset_delta) == (2, 0, len(made) - 1)
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == (*MIRROR, sequence)
    assert read.attributes == codec  # neither transactional nor with a delete horizon
    assert (read.first_timestamp, read.max_timestamp) == (batch.base_timestamp, batch.max_timestamp)
    assert int.from_bytes(written[8:12], "big") == len(written) - 12
    assert int.from_bytes(written[12:16], "big", signed=True) == -1  # the leader puts its epoch there
    assert client_reads(written) == made


@pytest.mark.parametrize(
    ("last", "attributes", "whole"), [(9, 0, True), (10, 0, False), (9, batches.LOG_APPEND_TIME, False)]
)
def test_only_a_batch_without_gaps_and_with_its_own_times_goes_on_as_it_is(last, attributes, whole):
    assert one(batch_bytes(THREE, last=last, attributes=attributes)).is_whole == whole


def test_sequences_wrap_as_brokers_count_them():
    assert batches.after(5, 3) == 8
    assert batches.after((1 << 31) - 1, 1) == 0
    assert batches.after((1 << 31) - 2, 5) == 3


def test_the_checksum_is_over_the_attributes_to_the_end():
    whole = bytearray(batch_bytes(THREE))
    whole[0:8], whole[12:16] = bytes(8), bytes(4)  # the offset and the leader's epoch are the broker's
    batches.check(one(bytes(whole)))
    assert checksummed(bytearray(whole)) == whole
