"""What stands at the end of a copy is found whatever cleaners took out of it, and however little an answer
holds.
"""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from mirror_batches import batch_bytes, control_bytes, one, record
from transom.links.kafka.fetching import Fetched
from transom.links.kafka.tail import NO_TAIL, Tail, _before, _Place
from transom.logs.kafka_produce import Producer

US, BEFORE = Producer(7, 0), Tail(0, 0, 6)
RECORDS, MARK, GONE = "records", "mark", "gone"
RUNS = st.lists(
    st.tuples(st.sampled_from((RECORDS, MARK, GONE)), st.integers(1, 40)), min_size=1, max_size=12
)


class Copy:
    """A log of batches: of records, of marks, and offsets of which nothing is left."""

    def __init__(self, runs: Sequence[tuple[str, int]]) -> None:
        self.batches: list[bytes] = []
        self.records_end = self.end = 0
        for kind, count in runs:
            if kind == RECORDS:
                last = self.end + count - 1
                self.batches.append(batch_bytes([record(self.end)], last=last, producer=US))
                self.records_end = last + 1
            elif kind == MARK:
                self.batches += [control_bytes(self.end + each, US, commit=True) for each in range(count)]
            self.end += count

    def fetch(self, offset: int, most: int) -> Fetched:
        found = [data for data in self.batches if one(data).next > offset][:most]
        return Fetched(b"", 0, 0, self.end, self.end, 0, [], memoryview(b"".join(found)))

    def tail(self, known: Tail, most: int) -> Tail:
        """What is found by answers of so many batches."""
        place = _Place(self.end - 1, self.end - 1)
        for _ in range(2000):
            if place.upto < known.records_end:
                return Tail(0, place.upto + 1, known.writer)
            before = _before(self.fetch(place.offset, most), place, known)
            if isinstance(before, Tail):
                return before
            assert before is not None
            place = before
        raise AssertionError(f"still at {place}")


@given(RUNS, st.integers(1, 3))
@example([(RECORDS, 5), (GONE, 3), (MARK, 1)], 1)
@example([(RECORDS, 5), (GONE, 40), (RECORDS, 1), (MARK, 2), (GONE, 40), (MARK, 1)], 1)
@example([(MARK, 1), (GONE, 9), (MARK, 1)], 2)
def test_the_last_record_that_is_left_is_found(runs: list[tuple[str, int]], most: int) -> None:
    copy = Copy([*runs, (MARK, 1)])  # of who takes it now
    expected = Tail(0, copy.records_end, US.id if copy.records_end else None)
    assert copy.tail(NO_TAIL, most) == expected


@given(RUNS, RUNS, st.integers(1, 3))
@example([(RECORDS, 5)], [(GONE, 9)], 1)
def test_what_was_known_is_believed_where_nothing_behind_it_is_left(
    earlier: list[tuple[str, int]], later: list[tuple[str, int]], most: int
) -> None:
    known = BEFORE._replace(records_end=Copy(earlier).end)
    copy = Copy([*earlier, *later, (MARK, 1)])
    if copy.records_end > known.records_end:
        assert copy.tail(known, most) == Tail(0, copy.records_end, US.id)
    else:
        assert copy.tail(known, most) == known
