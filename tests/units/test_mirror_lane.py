"""A partition step by step: what goes out, when, as what, and what stops or ends it."""

from typing import Any

import pytest

from mirror_batches import LEADERS_EPOCH, batch_bytes, checksummed, control_bytes, record
from transom.links.kafka.lane import FLYING_MAX, Lane, Outcome, Way
from transom.links.kafka.offset_map import Break, OffsetMap
from transom.logs.kafka_produce import Producer
from transom.logs.protocol import TopicPartition

FROM, TO = TopicPartition("orders", 0), TopicPartition("eu.orders", 0)
PRODUCER = Producer(7, 0)


def lane_at(source: int = 0, target: int = 0) -> Lane:
    """A lane whose beginning is kept, as is who leads the source."""
    lane = Lane(FROM, TO, "a", OffsetMap(), source, target)
    lane.epochs.read(LEADERS_EPOCH, source - 1)
    lane.kept(lane.version)
    return lane


def fetched(lane: Lane, *data: bytes, aborted: list[tuple[int, int]] | None = None) -> None:
    lane.fetched(memoryview(bytearray(b"".join(data))), aborted or [])


def batch_of(*offsets: int, **about: Any) -> bytes:
    return batch_bytes([record(offset) for offset in offsets], **about)


def test_whole_batches_go_on_as_they_are_and_need_no_new_break():
    lane = lane_at()
    fetched(lane, batch_of(0, 1, codec=4), batch_of(2))
    assert not lane.unkept
    first, second = lane.take(PRODUCER, join=False), lane.take(PRODUCER, join=False)
    assert first.data[61:] == batch_of(0, 1, codec=4)[61:]
    assert (first.way, first.sequence, first.count) == (Way.PASSED, 0, 2)
    assert (second.sequence, second.count) == (2, 1)


def test_nothing_goes_out_before_its_break_is_kept():
    lane = lane_at()
    fetched(lane, batch_of(0), batch_of(5))
    lane.take(PRODUCER, join=True)
    assert lane.unkept
    assert not lane.sendable
    lane.kept(lane.version)
    assert lane.sendable


def test_nothing_of_another_leader_goes_out_before_that_is_kept():
    lane = lane_at()
    fetched(lane, batch_of(0), batch_of(1, epoch=LEADERS_EPOCH + 1))
    assert lane.take(PRODUCER, join=True).count == 1
    assert lane.unkept
    assert not lane.sendable
    assert lane.epochs.known[-1] == (LEADERS_EPOCH + 1, 1)
    lane.kept(lane.version)
    assert lane.sendable


def test_a_batch_with_gaps_and_a_beginning_in_the_middle_are_recoded():
    lane = lane_at(source=1)
    fetched(lane, batch_of(0, 1, 3), batch_of(4))
    lane.kept(lane.version)
    sent = lane.take(PRODUCER, join=False)
    assert (sent.way, sent.count) == (Way.RECODED, 2)
    assert lane.map.breaks == [Break(1, 0), Break(3, 1)]
    assert lane.take(PRODUCER, join=True).way is Way.PASSED


def test_at_most_five_are_under_way():
    lane = lane_at()
    fetched(lane, *(batch_of(offset) for offset in range(7)))
    for _ in range(FLYING_MAX):
        assert lane.sendable
        lane.take(PRODUCER, join=False)
    assert not lane.sendable


def test_only_waiting_batches_of_one_codec_are_joined():
    lane = lane_at()
    fetched(lane, batch_of(0, codec=1), batch_of(1, codec=1), batch_of(2), batch_of(3))
    assert lane.take(PRODUCER, join=True).count == 2
    last = lane.take(PRODUCER, join=True)
    assert (last.way, last.count, last.sequence) == (Way.JOINED, 2, 2)


def test_a_payload_that_nobody_can_read_is_passed_on_alone_for_the_target_to_judge():
    unreadable = bytearray(batch_of(1, codec=4))
    unreadable[61:] = bytes(len(unreadable) - 61)
    lane = lane_at()
    fetched(lane, batch_of(0, codec=4), bytes(checksummed(unreadable)), batch_of(2, codec=4))
    sent = [lane.take(PRODUCER, join=True) for _ in range(3)]
    assert [(each.way, each.sequence) for each in sent] == [(Way.PASSED, number) for number in range(3)]
    assert (lane.waiting_records, lane.waiting_bytes) == (0, 0)


def test_a_batch_that_is_refused_stops_its_partition_there_and_holds_nothing():
    lane = lane_at()
    fetched(lane, batch_of(0), batch_of(1), batch_of(2))
    first, poison, behind = (lane.take(PRODUCER, join=False) for _ in range(3))
    lane.answered(behind, Outcome.LOST, told="out of order")
    lane.answered(poison, Outcome.REFUSED, told="is refused")
    assert lane.stopped is None  # the first may have to go out again
    lane.answered(first, Outcome.WRITTEN, 0)
    assert lane.stopped == (1, "the batch at offset 1 is refused")
    assert not lane.lost
    assert lane.bytes_held == 0
    assert (lane.written, lane.done) == (1, 1)


def test_what_is_refused_as_one_is_sent_in_smaller_ones_with_the_same_sequences():
    lane = lane_at()
    fetched(lane, *(batch_of(offset) for offset in range(8)))
    whole = lane.take(PRODUCER, join=True)
    assert whole.count == 8
    lane.answered(whole, Outcome.REFUSED, told="is too large")
    assert lane.stopped is None
    parts = []
    while lane.sendable:
        parts.append(lane.take(PRODUCER, join=True))
    assert len(parts) > 1
    assert [part.sequence for part in parts] == [
        sum(each.count for each in parts[:n]) for n in range(len(parts))
    ]
    assert all(len(part.data) < len(whole.data) for part in parts)


def test_a_producer_that_was_shut_out_ends_the_lane():
    lane = lane_at()
    fetched(lane, batch_of(0))
    lane.answered(lane.take(PRODUCER, join=False), Outcome.LOST, told="is fenced")
    assert lane.is_ended
    assert not lane.sendable


def test_a_copy_that_ends_before_what_was_written_is_looked_at_anew():
    lane = lane_at(target=10)
    fetched(lane, batch_of(0))
    lane.answered(lane.take(PRODUCER, join=False), Outcome.WRITTEN, 0)
    assert "made anew" in lane.lost
    assert (lane.written, lane.done, lane.bytes_held) == (10, 0, 0)


def test_who_appends_to_the_copy_shifts_all_that_follows_and_it_is_kept_first():
    lane = lane_at()
    fetched(lane, batch_of(0), batch_of(1), batch_of(9))
    lane.kept(lane.version)
    lane.answered(lane.take(PRODUCER, join=False), Outcome.WRITTEN, 0)
    lane.answered(lane.take(PRODUCER, join=False), Outcome.WRITTEN, 4)
    assert lane.strangers == 3
    assert lane.map.breaks == [Break(0, 0), Break(1, 4), Break(9, 5)]
    assert not lane.sendable
    lane.kept(lane.version)
    assert lane.sendable
    assert (lane.to_target(1), lane.to_source(3), lane.written) == (4, 1, 5)


def test_batches_of_no_records_marks_and_aborted_ones_are_passed_over_and_done():
    theirs = Producer(40, 0)
    lane = lane_at()
    fetched(
        lane,
        batch_of(0, attributes=0x10, producer=theirs),
        control_bytes(1, theirs, commit=False),
        batch_of(2, attributes=0x10, producer=theirs),
        control_bytes(3, theirs, commit=True),
        aborted=[(theirs.id, 0)],
    )
    assert lane.fetch_at == 4
    lane.kept(lane.version)
    sent = lane.take(PRODUCER, join=False)
    assert (sent.count, sent.pieces[0].source) == (1, 2)
    lane.answered(sent, Outcome.WRITTEN, 0)
    assert (lane.done, lane.to_target(4)) == (4, 1)
    lane.settle()
    assert lane.map.breaks[-1] == (4, 1)


@pytest.mark.parametrize("at", [*range(17, 61), 70])
def test_a_damaged_batch_stops_its_partition_whatever_was_damaged(at: int):
    damaged = bytearray(batch_of(1, 2))
    damaged[at] ^= 0x20  # in the attributes: what says that it is a mark
    lane = lane_at()
    fetched(lane, batch_of(0), bytes(damaged), batch_of(3))
    assert lane.stopped is not None
    assert lane.stopped.offset == 1
    assert "checksum" in lane.stopped.why
    assert lane.sendable  # what came before
    assert lane.fetch_at == 1


def test_a_batch_of_an_old_format_stops_its_partition():
    why = "the batch at offset 0 is of format 1, from before Kafka 0.11; have it written anew"
    old = bytearray(batch_of(0))
    old[16] = 1
    lane = lane_at()
    fetched(lane, bytes(old))
    assert lane.stopped == (0, why)


def test_a_whole_batch_that_begins_before_the_road_is_cut():
    lane = lane_at(source=1)
    fetched(lane, batch_of(0, 1, 2))
    sent = lane.take(PRODUCER, join=False)
    assert (sent.way, sent.count, sent.pieces[0].source) == (Way.RECODED, 2, 1)


def test_what_failed_goes_out_again_before_anything_behind_it():
    lane = lane_at()
    fetched(lane, *(batch_of(offset) for offset in range(4)))
    for sent in [lane.take(PRODUCER, join=False) for _ in range(3)]:
        lane.answered(sent, Outcome.AGAIN)
    first = lane.take(PRODUCER, join=False)
    lane.answered(first, Outcome.AGAIN)  # while others wait to go out again
    assert [lane.take(PRODUCER, join=False).sequence for _ in range(4)] == [0, 1, 2, 3]


def test_strangers_are_counted_once_for_all_that_is_under_way_and_all_that_comes():
    lane = lane_at()
    fetched(lane, batch_of(0), batch_of(1))
    first, second = lane.take(PRODUCER, join=False), lane.take(PRODUCER, join=False)
    lane.answered(first, Outcome.WRITTEN, 3)
    lane.answered(second, Outcome.WRITTEN, 4)
    assert (lane.strangers, lane.written, lane.lost) == (3, 5, "")
    fetched(lane, batch_of(2))
    lane.kept(lane.version)
    assert lane.take(PRODUCER, join=False).pieces[0].target == 5
