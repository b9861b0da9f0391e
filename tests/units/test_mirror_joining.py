"""Whether batches are joined is decided by what is measured."""

from mirror_batches import batch_bytes, record
from transom.links.kafka.joining import Joining
from transom.links.kafka.lane import Lane
from transom.links.kafka.offset_map import OffsetMap
from transom.logs.protocol import TopicPartition

AT = TopicPartition("orders", 0)
SHORT_ROAD, LONG_ROAD = 0.0005, 0.1


def waiting(batches: int, records: int) -> Lane:
    """A lane in which `batches` of `records` each wait."""
    lane = Lane(AT, AT, "a", OffsetMap(), 0, 0)
    data = b"".join(
        batch_bytes([record(begin + number) for number in range(records)])
        for begin in range(0, batches * records, records)
    )
    lane.fetched(memoryview(bytearray(data)), [])
    return lane


def measured(road_seconds: float, record_seconds: float = 2e-6) -> Joining:
    joining = Joining()
    for now in range(200):
        joining.answered(road_seconds, now)
        joining.joined(1000, 1000 * record_seconds)
    return joining


def test_a_long_road_joins_and_a_short_one_passes_on():
    lane = waiting(50, 100)
    assert measured(LONG_ROAD).is_better(lane)
    assert not measured(SHORT_ROAD).is_better(lane)


def test_tiny_batches_are_joined_on_a_short_road():
    assert measured(SHORT_ROAD).is_better(waiting(200, 1))


def test_nothing_is_joined_with_nothing():
    assert not measured(LONG_ROAD).is_better(waiting(1, 100))
    assert not measured(LONG_ROAD).is_better(waiting(0, 1))


def test_where_joining_is_slow_batches_are_passed_on():
    lane = waiting(50, 20)
    assert measured(0.01).is_better(lane)
    assert not measured(0.01, record_seconds=1e-4).is_better(lane)


def test_what_is_slow_for_a_moment_is_no_long_road():
    joining = measured(SHORT_ROAD)
    for now in range(200, 205):
        joining.answered(5.0, now)
    assert joining.answer_seconds == SHORT_ROAD
    for now in range(205, 240):
        joining.answered(LONG_ROAD, now)
    assert joining.answer_seconds == LONG_ROAD


def test_before_anything_was_answered_nothing_is_joined():
    assert not Joining().is_better(waiting(50, 100))
