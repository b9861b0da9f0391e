"""Offsets translate exactly, for every record and for what lies between, before and after a restart."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from transom.links.kafka.offset_map import CHUNK_BREAKS, Break, OffsetMap


class Model:
    """Every record's two offsets, next to a map that is kept chunk by chunk."""

    def __init__(self) -> None:
        self.map = OffsetMap()
        self.pairs: dict[int, int] = {}
        self.source = self.target = self.start = 0
        self.chunks: dict[int, list[Break]] = {}

    def put(self, ahead: int, strangers: int, count: int) -> None:
        """`count` records, behind offsets of the source and of the target that hold none."""
        self.source += ahead
        self.target += strangers
        for _ in range(count):
            self.map.extend(self.source, self.target)
            self.pairs[self.source] = self.target
            self.source += 1
            self.target += 1

    def many(self, breaks: int) -> None:
        for _ in range(breaks):
            self.put(1, 0, 1)

    def cut(self, back: int) -> None:
        """The last `back` offsets of the target were never written."""
        self.target = max(self.start, self.target - back)
        self.map.cut(self.target)
        self.pairs = {source: target for source, target in self.pairs.items() if target < self.target}
        following = self.map.to_source(self.target)
        # Behind the last record that is there, and before the first that is not; what the copy does not
        # hold any more may be forgotten.
        there = [source for source, target in self.pairs.items() if target >= self.start]
        assert not there or max(there) < (following or 0)
        self.source = self.source if following is None else min(self.source, following)

    def rewind(self, back: int) -> None:
        """The last `back` offsets of the source hold other records from now on."""
        self.source = max(0, self.source - back)
        self.map.rewind(self.source)
        self.pairs = {source: target for source, target in self.pairs.items() if source < self.source}
        self.map.extend(self.source, self.target)  # as a lane does where it begins

    def forget(self, ahead: int) -> None:
        """The copy begins farther on."""
        self.keep()
        self.start = min(self.target, self.start + ahead)
        for number in self.map.forget(self.start):
            del self.chunks[number]

    def keep(self) -> None:
        for number, breaks in self.map.unkept().items():
            assert len(breaks) <= CHUNK_BREAKS
            if breaks:
                self.chunks[number] = breaks
            else:
                self.chunks.pop(number, None)
        assert self.map.unkept() == {}

    def reload(self) -> None:
        self.keep()
        before = self.map.breaks
        self.map = OffsetMap(self.chunks)
        assert self.map.breaks == before
        assert self.map.unkept() == {}

    def check(self) -> None:
        """Each record, and each place between two, is where a reader would go on."""
        breaks = self.map.breaks
        assert all(one.source < two.source and one.target <= two.target for one, two in _runs(breaks))
        there = [pair for pair in sorted(self.pairs.items()) if pair[1] >= self.start]
        for source, target in there:
            assert self.map.to_target(source) == target
            assert self.map.to_source(target) == source
        for (source, target), (next_source, next_target) in _runs(there):
            for hole in {source + 1, next_source - 1} - {source}:
                assert target < (self.map.to_target(hole) or 0) <= next_target
            for hole in {target + 1, next_target - 1} - {target}:
                assert source < (self.map.to_source(hole) or 0) <= next_source


def _runs(items):
    return pairwise(items)


FEW = st.integers(0, 3)
BACK = st.sampled_from((0, 1, 2, 5, 255, 300, 10_000))
STEPS = st.one_of(
    st.tuples(st.just("put"), FEW, FEW, st.integers(1, 5)),
    st.tuples(st.just("many"), st.sampled_from((1, 200, 255, 256, 257))),
    st.tuples(st.just("cut"), BACK),
    st.tuples(st.just("rewind"), BACK),
    st.tuples(st.just("forget"), BACK),
    st.tuples(st.sampled_from(("keep", "reload"))),
)


@settings(max_examples=100)
@example([("many", 257), ("forget", 300), ("put", 0, 0, 1), ("rewind", 2), ("cut", 1)])
@given(st.lists(STEPS, max_size=12))
def test_every_record_is_found_from_both_sides_whatever_happened(steps):
    model = Model()
    for what, *numbers in steps:
        getattr(model, what)(*numbers)
        if what != "many":
            model.check()
    model.reload()
    model.check()


@given(
    st.lists(STEPS.filter(lambda step: step[0] in ("put", "many")), max_size=4),
    st.sampled_from((0, 1, 300, 900)),
)
def test_what_was_kept_in_part_when_a_process_died_is_a_map_without_holes(steps, back):
    model = Model()
    for what, *numbers in [("many", 700), *steps]:
        getattr(model, what)(*numbers)
    model.keep()
    before = model.map.breaks
    model.rewind(back)
    unkept = list(model.map.unkept().items())
    for died in range(len(unkept) + 1):
        chunks = {**model.chunks, **dict(unkept[:died])}
        found = OffsetMap({number: breaks for number, breaks in chunks.items() if breaks}).breaks
        if died < len(unkept):
            assert found == before[: len(found)]
        else:
            assert found == model.map.breaks


def test_a_steady_partition_is_one_break_whatever_its_size():
    held = OffsetMap()
    assert held.extend(1_000_000, 5)
    assert not any(held.extend(1_000_000 + number, 5 + number) for number in range(1, 1000))
    assert held.breaks == [Break(1_000_000, 5)]
    assert held.to_target(1 << 40) == (1 << 40) - 999_995


def test_a_break_behind_which_nothing_stands_is_replaced():
    held = OffsetMap()
    held.extend(0, 0)
    assert held.extend(10, 8)
    assert held.extend(14, 8)  # what was to come at 10 is no record, either
    assert held.breaks == [Break(0, 0), Break(14, 8)]
    assert held.extend(14, 11)  # somebody else wrote before it
    assert held.breaks == [Break(0, 0), Break(8, 11), Break(14, 11)]
    assert [held.to_target(source) for source in (7, 8, 13, 14)] == [7, 11, 11, 11]


def test_before_anything_is_known_nothing_is_told():
    assert OffsetMap().to_target(5) is None
    assert OffsetMap().to_source(5) is None
    held = OffsetMap()
    held.extend(7, 3)
    assert (held.to_target(2), held.to_source(0)) == (3, 7)  # the first there is


def test_a_break_is_kept_with_its_chunk_alone():
    model = Model()
    model.many(CHUNK_BREAKS)
    model.keep()
    model.many(1)
    assert set(model.map.unkept()) == {1}
    model.many(1)
    ((number, breaks),) = model.map.unkept().items()
    assert (number, len(breaks)) == (1, 2)


def test_only_whole_chunks_of_which_nothing_is_left_are_forgotten():
    model = Model()
    model.many(2 * CHUNK_BREAKS + 10)
    model.keep()
    assert model.map.forget(CHUNK_BREAKS - 1) == []  # the chunk's last record is there
    assert model.map.forget(CHUNK_BREAKS) == [0]
    assert model.map.forget(CHUNK_BREAKS) == []
    assert len(model.map) == CHUNK_BREAKS + 10
    model.many(1)
    assert set(model.map.unkept()) == {2}


def test_the_break_at_the_copys_end_says_what_comes_next():
    held = OffsetMap()
    for source, target in ((0, 0), (10, 5), (20, 9)):
        held.extend(source, target)
    held.cut(5)
    assert held.breaks == [Break(0, 0), Break(10, 5)]
    assert held.to_source(5) == 10  # not 5, which the source may have lost without any harm
    held.rewind(10)
    assert held.breaks == [Break(0, 0)]
