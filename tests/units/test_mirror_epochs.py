"""Epochs of leaders: a source that has other records than it had is found out, one that only grew never."""

from hypothesis import given
from hypothesis import strategies as st

from transom.links.kafka.epochs import EPOCHS_MAX, UNKNOWN, Epochs


def ends(log: list[int], asked: int) -> tuple[int, int]:
    """What a broker answers whose log has these epochs, one a record (KIP-101)."""
    known = [(epoch, offset + 1) for offset, epoch in enumerate(log) if epoch <= asked]
    return known[-1] if known else (asked, 0)


def written(sizes: list[tuple[int, int]], log: list[int]) -> list[int]:
    """`log` with more behind it: so many records, by leaders so many epochs later."""
    log = list(log)
    epoch = max(log, default=0)
    for later, size in sizes:
        epoch += later
        log += [epoch] * size
    return log


WRITTEN = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=8)


def read(log: list[int], upto: int) -> Epochs:
    epochs = Epochs()
    for offset in range(upto):
        epochs.read(log[offset], offset)
    return Epochs(epochs.known)  # as it is kept


@given(WRITTEN, WRITTEN, st.data())
def test_it_is_found_out_from_where_on_the_source_has_other_records(first, second, data):
    had = written(first, [])
    done = data.draw(st.integers(1, len(had)), "mirrored up to")
    lost_from = data.draw(st.integers(0, len(had)), "truncated at")
    # A leader of a new epoch, as after an election; and it grows beyond what was mirrored.
    has = [*had[:lost_from], *[epoch + max(had) for epoch in written(second, [1])]]
    has += [has[-1]] * len(had)
    epochs = read(had, done)
    asked = epochs.before(done)
    assert asked == had[done - 1]
    agreed = epochs.agreed(*ends(has, epochs.newest))
    assert min(agreed, done) == min(lost_from, done)


@given(WRITTEN, st.data())
def test_a_source_that_only_grew_agrees(first, data):
    had = written(first, [])
    done = data.draw(st.integers(1, len(had)))
    assert read(had, done).agreed(*ends(had, had[done - 1])) >= done


def test_what_was_not_read_is_not_known():
    epochs = Epochs()
    assert epochs.before(7) == UNKNOWN
    assert epochs.read(3, 7)
    assert not epochs.read(3, 9)
    assert (epochs.before(7), epochs.before(8), epochs.newest) == (UNKNOWN, 3, 3)
    epochs.forget(7)
    assert (epochs.known, epochs.newest) == ((), UNKNOWN)


def test_only_the_newest_are_remembered():
    epochs = Epochs()
    for number in range(EPOCHS_MAX + 5):
        epochs.read(number, number * 10)
    assert len(epochs.known) == EPOCHS_MAX
    assert epochs.before(45) == UNKNOWN
    assert epochs.before(10 * EPOCHS_MAX) == EPOCHS_MAX - 1
