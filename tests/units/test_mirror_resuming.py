"""Where a partition goes on: every case, and that nothing is passed over in silence."""

import msgspec
import pytest

from transom.links.kafka.epochs import Epoch
from transom.links.kafka.ledger import GAPS_MAX, Gap, Kept, PartitionRecord
from transom.links.kafka.offset_map import Break
from transom.links.kafka.resuming import Policy, Sight, Skip, resumed
from transom.links.kafka.tail import Tail
from transom.logs.kafka_epochs import EpochEnd
from transom.logs.protocol import TopicPartition

FROM, TO = TopicPartition("orders", 3), TopicPartition("eu.orders", 3)
US, THEM = 77, 78
NEW = Sight(FROM, "a", 5, 90, TO, "b", Tail(0, 0, None), US, 1000.0)
# 60 records from offset 10 of the source, the first at 0; then a mark of who takes it now.
FOLLOWED = NEW._replace(tail=Tail(61, 60, US))
RECORD = PartitionRecord("a", "eu.orders", "b", writers=(US,), tail=Tail(0, 0, None))
CONTINUE = Policy(when_lost=True, when_recreated=True)


def kept(*breaks: tuple[int, int], record: PartitionRecord = RECORD) -> Kept:
    return Kept(record, {0: [Break(*each) for each in breaks]})


STEADY = kept((10, 0))
LED = msgspec.structs.replace(RECORD, epochs=(Epoch(3, 9), Epoch(4, 50)))
"""The source was led in epoch 3 up to offset 50."""


def test_a_new_partition_begins_where_the_source_begins():
    lane, record = resumed(NEW._replace(tail=Tail(1, 0, None)), Kept(), Policy())
    assert (lane.fetch_at, lane.end, lane.stopped) == (5, 1, None)
    assert (lane.start, lane.high, lane.lag) == (5, 90, 85)
    assert record == PartitionRecord("a", "eu.orders", "b", writers=(US,), tail=Tail(1, 0, None))
    assert lane.unkept


def test_a_copy_is_followed_from_its_last_record_on():
    lane, record = resumed(FOLLOWED, STEADY, Policy())
    assert (lane.fetch_at, lane.end, lane.stopped) == (70, 61, None)
    assert lane.map.breaks == [Break(10, 0), Break(70, 61)]
    assert record.gaps == ()
    assert record.tail == FOLLOWED.tail


def test_breaks_that_were_never_reached_are_forgotten():
    lane, _ = resumed(FOLLOWED, kept((10, 0), (75, 61), (80, 64)), Policy())
    assert (lane.fetch_at, lane.map.breaks) == (70, [Break(10, 0), Break(70, 61)])


def test_who_took_it_last_and_wrote_nothing_is_believed_where_it_began():
    record = msgspec.structs.replace(RECORD, tail=Tail(61, 60, US))
    lane, _ = resumed(
        FOLLOWED._replace(tail=Tail(63, 60, US)), kept((10, 0), (85, 61), record=record), Policy()
    )
    assert (lane.fetch_at, lane.end) == (85, 63)


@pytest.mark.parametrize(
    ("sight", "held", "kind"),
    [
        (NEW._replace(tail=Tail(8, 7, THEM)), Kept(), "did not write"),
        (FOLLOWED, Kept(RECORD, {}), "did not write"),
        (
            FOLLOWED._replace(tail=Tail(61, 60, THEM)),
            STEADY,
            "else writes to eu.orders, at offset 59",
        ),
        (FOLLOWED._replace(source_id="z"), STEADY, "made anew; the one before was mirrored up to offset 70"),
        (FOLLOWED._replace(start=75), STEADY, "lost offsets 70 to 74"),
        (FOLLOWED._replace(end=64), STEADY, "truncated: it ends at offset 64, and was mirrored up to 70"),
        (
            FOLLOWED._replace(epoch_end=EpochEnd(4, 33)),
            kept((10, 0), record=LED),
            "truncated at offset 33 and written anew from there; it was mirrored up to 70",
        ),
        (
            FOLLOWED._replace(epoch_end=EpochEnd(3, 60)),
            kept((10, 0), record=LED),
            "truncated at offset 50 and written anew from there; it was mirrored up to 70",
        ),
        (
            FOLLOWED._replace(epoch_end=EpochEnd(-1, -1)),
            kept((10, 0), record=LED),
            "knows nothing of the leaders that wrote what was mirrored up to offset 70",
        ),
    ],
)
def test_what_is_wrong_stops_the_partition_is_said_and_kept_once(sight, held, kind):
    lane, record = resumed(sight, held, Policy())
    assert lane.stopped is not None
    assert kind in lane.stopped.why
    assert [gap.why for gap in record.gaps] == [lane.stopped.why]
    assert record.source_id == (held.record or record).source_id  # not accepted yet
    again, later = resumed(
        sight._replace(now=2000.0), Kept(record, {0: list(lane.map.breaks)} if held.chunks else {}), Policy()
    )
    assert again.stopped == lane.stopped
    assert later.gaps == record.gaps


@pytest.mark.parametrize(
    ("sight", "at", "gap"),
    [
        (FOLLOWED._replace(source_id="z", start=0), 0, (70, 70)),
        (FOLLOWED._replace(source_id="z", start=3, end=20), 3, (70, 70)),
        (FOLLOWED._replace(start=75), 75, (70, 75)),
        (FOLLOWED._replace(end=64), 64, (64, 70)),
    ],
)
def test_by_policy_it_goes_on_and_keeps_the_gap(sight, at, gap):
    lane, record = resumed(sight, kept((10, 0), (66, 56)), CONTINUE)
    assert (lane.stopped, lane.fetch_at, lane.end) == (None, at, 61)
    assert [(each.begin, each.end) for each in record.gaps] == [gap]
    assert record.source_id == sight.source_id
    recreated = sight.source_id == "z"
    before = [] if recreated else [Break(10, 0), Break(66, 56)][: 1 if at < 66 else 2]
    assert lane.map.breaks == [*before, Break(at, 61)]
    chunks = {0: lane.map.breaks}
    next_lane, later = resumed(sight._replace(tail=Tail(62, 60, US)), Kept(record, chunks), Policy())
    assert (next_lane.stopped, next_lane.fetch_at, later.gaps) == (None, at, record.gaps)


@pytest.mark.parametrize("policy", [Policy(when_lost=True), Policy(when_recreated=True)])
def test_each_policy_is_for_its_own_case(policy):
    lost, _ = resumed(FOLLOWED._replace(start=75), STEADY, policy)
    recreated, _ = resumed(FOLLOWED._replace(source_id="z"), STEADY, policy)
    assert (lost.stopped is None) == policy.when_lost
    assert (recreated.stopped is None) == policy.when_recreated
    strangers, _ = resumed(FOLLOWED._replace(tail=Tail(61, 60, THEM)), STEADY, CONTINUE)
    assert strangers.stopped is not None


@pytest.mark.parametrize(
    "sight",
    [
        FOLLOWED,
        FOLLOWED._replace(source_id="z"),
        FOLLOWED._replace(start=75),
        FOLLOWED._replace(tail=Tail(61, 60, THEM)),
    ],
)
def test_an_order_to_skip_is_carried_out_once_whatever_was_wrong(sight):
    order = Skip("one", 80)
    lane, record = resumed(sight, STEADY, Policy(), order)
    assert (lane.stopped, lane.fetch_at) == (None, 80)
    assert (record.skipped, record.source_id) == ("one", sight.source_id)
    (gap,) = record.gaps
    assert gap == Gap(70, 80, "was skipped by command", 1000.0)
    writer = sight.tail.writer if sight.tail.writer == US else record.tail.writer
    restarted = sight._replace(tail=Tail(62, 60, writer))
    again, later = resumed(restarted, Kept(record, {0: lane.map.breaks}), Policy(), order)
    assert (again.stopped, again.fetch_at, later.gaps) == (None, 80, record.gaps)
    back, _ = resumed(restarted, Kept(record, {0: lane.map.breaks}), Policy(), Skip("two", 30))
    assert back.fetch_at == max(30, sight.start)
    assert back.map.breaks[-1] == (back.fetch_at, 62)


@pytest.mark.parametrize(("to", "at"), [(0, 5), (80, 80), (1000, 90)])
def test_an_order_leads_to_what_the_source_has(to, at):
    lane, _ = resumed(FOLLOWED, STEADY, Policy(), Skip("one", to))
    assert lane.fetch_at == at


def test_a_copy_that_was_made_anew_begins_anew():
    lane, record = resumed(FOLLOWED._replace(target_id="c", tail=Tail(1, 0, None)), STEADY, Policy())
    assert (lane.stopped, lane.fetch_at, lane.end, record.target_id) == (None, 5, 1, "c")
    assert lane.map.breaks == [Break(5, 1)]


def test_the_newest_writers_and_gaps_are_kept():
    many = tuple(Gap(number, number, "why", 0.0) for number in range(GAPS_MAX))
    record = msgspec.structs.replace(RECORD, writers=(*range(10, 18), US), gaps=many)
    _, later = resumed(FOLLOWED._replace(start=75, writer=99), kept((10, 0), record=record), Policy())
    assert later.writers == (*range(12, 18), US, 99)
    assert (len(later.gaps), later.gaps[0], later.gaps[-1].end) == (GAPS_MAX, many[1], 75)
    _, same = resumed(FOLLOWED, kept((10, 0), record=record), Policy())
    assert same.writers[-1] == US
    assert same.writers.count(US) == 1


def test_of_a_compacted_topic_it_is_known_when_the_copy_had_all_there_was():
    compacted = NEW._replace(tail=Tail(1, 0, None), deletes_kept_seconds=60.0)
    lane, record = resumed(compacted, Kept(), Policy())
    assert record.complete_at == compacted.now
    assert (lane.deletes.kept_seconds, lane.deletes.complete_at) == (60.0, 0.0)
    later = FOLLOWED._replace(deletes_kept_seconds=60.0, now=5000.0)
    lane, again = resumed(later, kept((10, 0), record=record), Policy())
    assert again.complete_at == lane.deletes.complete_at == compacted.now
    anew, made_anew = resumed(
        later._replace(target_id="c", tail=Tail(1, 0, None)), kept((10, 0), record=record), Policy()
    )
    assert (anew.deletes.complete_at, made_anew.complete_at) == (0.0, later.now)


def test_a_source_that_agrees_goes_on_and_what_was_not_reached_of_its_leaders_is_forgotten():
    led = msgspec.structs.replace(LED, epochs=(*LED.epochs, Epoch(6, 70), Epoch(7, 80)))
    sight = FOLLOWED._replace(epoch_end=EpochEnd(4, 70))
    lane, record = resumed(sight, kept((10, 0), record=led), Policy())
    assert (lane.fetch_at, lane.stopped, record.gaps) == (70, None, ())
    assert lane.epochs.known == record.epochs == LED.epochs
    assert lane.epochs.before(lane.fetch_at) == 4


def test_told_to_go_on_it_copies_what_the_source_has_instead_of_what_it_lost():
    sight = FOLLOWED._replace(epoch_end=EpochEnd(4, 33))
    lane, record = resumed(sight, kept((10, 0), record=LED), CONTINUE)
    assert (lane.fetch_at, lane.stopped, lane.epochs.known) == (33, None, ())
    assert [(gap.begin, gap.end) for gap in record.gaps] == [(33, 70)]
    assert lane.map.breaks == [Break(10, 0), Break(33, 61)]


@pytest.mark.parametrize("skip", [Skip("one", 80), Skip("one", 70)])
def test_behind_a_skip_nothing_is_known_of_leaders(skip):
    sight = FOLLOWED._replace(epoch_end=EpochEnd(4, 33))
    lane, record = resumed(sight, kept((10, 0), record=LED), Policy(), skip)
    assert (lane.fetch_at, lane.stopped, record.epochs) == (skip.to, None, ())
