"""What of a group's place is carried, and where to: cases, and what holds for all of them."""

from bisect import bisect_left, bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as some

from transom.links.kafka.group_plan import Held, plan
from transom.logs.kafka_admin_api import Committed
from transom.logs.protocol import TopicPartition

MARK = "transom:orders"
TOPICS = {"orders": "eu.orders"}
HERE, THERE = TopicPartition("orders", 0), TopicPartition("eu.orders", 0)
MIRRORED = 1000


def to_target(topic: str, partition: int, offset: int) -> int | None:
    assert (topic, partition) == HERE
    return offset + 7 if offset <= MIRRORED else None


def to_source(topic: str, partition: int, offset: int) -> int | None:
    assert (topic, partition) == HERE
    return offset - 7


BOTH = (to_target, to_source)


def own(offset: int) -> Committed:
    return Committed(offset, "")


def carried(offset: int) -> Committed:
    return Committed(offset, MARK)


CASES = {
    "new at the target": (own(5), None, 12, None),
    "offset 0 is exact (KAFKA-10048)": (own(0), None, 7, None),
    "further": (own(9), carried(12), 16, None),
    "as it was": (own(5), carried(12), None, None),
    "never backwards": (own(3), carried(12), None, None),
    "it went on at the target": (own(5), own(20), None, 13),
    "it went on at the target, and was carried back": (carried(13), own(20), None, None),
    "it went back at the target on purpose": (carried(13), own(8), None, None),
    "it failed back, and is ahead at the source": (own(15), own(20), 22, None),
    "carried back, then its offsets at the target expired": (carried(13), None, 20, None),
    "it began at the target": (None, own(20), None, 13),
    "only carried, and expired at the source": (None, carried(20), None, None),
    "another mirror's mark is not ours": (None, Committed(20, "transom:visits"), None, 13),
}


@pytest.mark.parametrize(("source", "target", "ahead", "back"), CASES.values(), ids=CASES)
def test_cases(
    source: Committed | None, target: Committed | None, ahead: int | None, back: int | None
) -> None:
    held = Held({HERE: source} if source else {}, {THERE: target} if target else {})
    todo = plan(held, TOPICS, BOTH, MARK)
    assert todo.to_target == ({} if ahead is None else {THERE: ahead})
    assert todo.to_source == ({} if back is None else {HERE: back})
    assert (todo.unknown, todo.active) == (False, False)


def test_what_is_not_mirrored_is_left_alone() -> None:
    other = TopicPartition("visits", 0)
    todo = plan(Held({other: own(3)}, {other: own(9)}), TOPICS, BOTH, MARK)
    assert todo == ({}, {}, False, False)


def test_what_is_not_mirrored_yet_waits() -> None:
    todo = plan(Held({HERE: own(MIRRORED + 1)}, {}), TOPICS, BOTH, MARK)
    assert todo == ({}, {}, True, False)


@pytest.mark.parametrize("active", [(True, False), (False, True)])
def test_what_a_group_with_members_committed_waits_on_their_side(active: tuple[bool, bool]) -> None:
    ahead = plan(Held({HERE: own(5)}, {}, *active), TOPICS, BOTH, MARK)
    assert (ahead.to_target, ahead.active) == (({}, True) if active[1] else ({THERE: 12}, False))
    back = plan(Held({}, {THERE: own(20)}, *active), TOPICS, BOTH, MARK)
    assert (back.to_source, back.active) == (({}, True) if active[0] else ({HERE: 13}, False))


@pytest.mark.parametrize("source", [own(3), carried(3)])
@pytest.mark.parametrize("target", [own(12), carried(12), None])
def test_a_rewind_goes_exactly_to_where_the_source_is(source: Committed, target: Committed | None) -> None:
    held = Held({HERE: source}, {THERE: target} if target else {})
    todo = plan(held, TOPICS, BOTH, MARK, rewind=True)
    assert todo == ({THERE: 10}, {}, False, False)


class Offsets:
    """A partition and its copy: the offsets of the same records, with holes on either side."""

    def __init__(self, source: list[int], target: list[int]) -> None:
        count = min(len(source), len(target))
        self.source, self.target = sorted(source)[:count], sorted(target)[:count]

    def to_target(self, _topic: str, _partition: int, offset: int) -> int:
        return self._next(self.source, self.target, offset)

    def to_source(self, _topic: str, _partition: int, offset: int) -> int:
        return self._next(self.target, self.source, offset)

    @staticmethod
    def _next(here: list[int], there: list[int], offset: int) -> int:
        """The next record from `offset` on; behind the last one the end."""
        at = bisect_left(here, offset)
        return there[at] if at < len(there) else there[-1] + 1

    def unread(self, offset: int, records: list[int]) -> int:
        return len(records) - bisect_right(records, offset - 1)


RECORDS = some.lists(some.integers(0, 60), min_size=1, max_size=12, unique=True)
MOVES = some.lists(
    some.tuples(some.sampled_from(["source", "target", "carry"]), some.integers(0, 12)), max_size=12
)


@given(source=RECORDS, target=RECORDS, moves=MOVES)
def test_both_sides_agree_after_a_round_and_no_commit_goes_backwards(
    source: list[int], target: list[int], moves: list[tuple[str, int]]
) -> None:
    """A group reads forwards now here, now there; after each round both sides name the same next record."""
    offsets = Offsets(source, target)
    translate = (offsets.to_target, offsets.to_source)
    here: dict[TopicPartition, Committed] = {}
    there: dict[TopicPartition, Committed] = {}
    for side, read in [*moves, ("carry", 0)]:
        if side == "carry":
            while True:
                todo = plan(Held(here, there), TOPICS, translate, MARK)
                if not (todo.to_target or todo.to_source):
                    break
                for held, committed in ((there, todo.to_target), (here, todo.to_source)):
                    for at, offset in committed.items():
                        assert at not in held or held[at].offset < offset
                        held[at] = carried(offset)
            if here or there:
                left = offsets.unread(here[HERE].offset, offsets.source)
                assert left == offsets.unread(there[THERE].offset, offsets.target)
            continue
        held, at, records = (
            (here, HERE, offsets.source) if side == "source" else (there, THERE, offsets.target)
        )
        now = held.get(at, own(0)).offset
        first = bisect_left(records, now)
        behind = min(len(records), first + read) - 1
        held[at] = own(max(now, records[behind] + 1) if behind >= first else now)
