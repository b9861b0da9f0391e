"""Deletes that the source may have forgotten before they were read: when that is noted, and when not."""

from math import inf

import msgspec
import pytest

from mirror_batches import SOURCES_PRODUCER, batch_bytes, control_bytes, record
from transom.links.kafka.deletes import WHY, Deletes
from transom.links.kafka.ledger import GAPS_MAX, Gap, PartitionRecord
from transom.links.kafka.resuming import with_deletes

DAY = 86_400.0
RECORD = PartitionRecord("a", "eu.orders", "b", complete_at=1000.0)


def read(deletes: Deletes, told_at: float, offset: int, *data: bytes) -> bool:
    """Whether something is noted of what was fetched at `offset`, asked for half a second before."""
    return deletes.missed(memoryview(b"".join(data)), offset, told_at - 0.5, told_at)


def batch_of(*offsets: int, base: int | None = None, last: int | None = None) -> bytes:
    return batch_bytes([record(offset) for offset in offsets], base=base, last=last)


HOLES = {
    "before it": ([batch_of(7), batch_of(8)], (5, 8)),
    "between": ([batch_of(5), batch_of(8)], (6, 9)),
    "in a batch": ([batch_of(5, 7), batch_of(8)], (5, 8)),
    "an emptied batch": ([batch_of(base=5, last=6), batch_of(7)], (5, 7)),
    "two": ([batch_of(5), batch_of(7), batch_of(8), batch_of(10)], (6, 11)),
}


@pytest.mark.parametrize(("data", "missing"), HOLES.values(), ids=HOLES)
def test_offsets_that_are_missing_are_noted_when_they_are_read_too_late(data, missing):
    deletes = Deletes(DAY, 1000.0)
    assert not read(deletes, 1000.0 + DAY, 5, *data)
    assert read(deletes, 1001.0 + DAY, 5, *data)
    assert deletes.missing == missing
    assert deletes.noted() == missing
    assert deletes.noted() is None


@pytest.mark.parametrize(
    "data",
    [
        [],
        [batch_of(5, 6), batch_of(7)],
        [batch_of(3, 4, 5, 6), batch_of(7)],
        [batch_of(1), batch_of(5), control_bytes(6, SOURCES_PRODUCER, commit=False), batch_of(7)],
        [b"\0" * 200],
    ],
)
def test_nothing_is_noted_where_nothing_is_missing(data):
    assert not read(Deletes(DAY, 1000.0), 1001.0 + DAY, 5, *data)


def test_nothing_is_noted_where_nothing_is_compacted():
    assert not read(Deletes(inf, 1000.0), 1e12, 5, batch_of(7))


def test_a_new_copy_lacks_nothing_until_its_first_reading_takes_too_long():
    deletes = Deletes(DAY)
    assert not read(deletes, 1000.5, 0, batch_of(7))
    assert not read(deletes, 1000.0 + DAY, 8, batch_of(10))
    assert read(deletes, 1001.0 + DAY, 11, batch_of(12))


def test_the_copy_had_all_there_was_once_what_was_read_then_is_written():
    deletes = Deletes(DAY, 1000.0)
    deletes.read_all(2000.0, 10, done=10)
    assert deletes.complete_at == 1000.0
    deletes.read_all(3000.0, 20, done=9)
    assert deletes.complete_at == 1000.0, "what was read first is not written"
    deletes.read_all(4000.0, 20, done=10)
    assert deletes.complete_at == 2000.0
    deletes.read_all(5000.0, 20, done=20)
    assert deletes.complete_at == 4000.0


def test_it_is_kept_now_and_then():
    deletes = Deletes(DAY, 1000.0)
    for at in (1001.0, 1600.0, 1601.0):
        deletes.read_all(at, 10, done=10)
        assert not deletes.outdated
    deletes.read_all(1602.0, 10, done=10)
    assert deletes.complete_at == 1601.0
    assert deletes.outdated
    assert with_deletes(RECORD, deletes, 1700.0).complete_at == 1601.0
    assert not deletes.outdated
    assert not Deletes(inf, 1000.0).outdated


def test_all_that_may_be_missing_is_one_gap_beside_the_others():
    others = tuple(Gap(number, number, "lost", 0.0) for number in range(GAPS_MAX))
    record, deletes = msgspec.structs.replace(RECORD, gaps=others), Deletes(1.0, 1000.0)
    for at, offset in ((1700.0, 30), (1800.0, 20), (1900.0, 40)):
        assert read(deletes, at, offset, batch_of(offset + 2))
        record = with_deletes(record, deletes, at)
    assert record.gaps == (*others[1:], Gap(20, 43, WHY, 1900.0))
