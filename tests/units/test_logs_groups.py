"""Assignment: whatever members want, every partition has one reader who wants it, and loads are even."""

from hypothesis import given
from hypothesis import strategies as st

from transom.logs.groups import assign
from transom.logs.protocol import TopicPartition

topics = st.sampled_from(["a", "b", "c"])
wishes = st.dictionaries(st.text("xyz", min_size=1, max_size=2), st.sets(topics, min_size=1), max_size=6)
sizes = st.fixed_dictionaries({name: st.integers(1, 7) for name in "abc"})


@given(wishes, sizes)
def test_each_partition_has_exactly_one_reader_that_wants_it(
    wanted: dict[str, set[str]], size: dict[str, int]
):
    spread = assign({name: sorted(wish) for name, wish in wanted.items()}, size)
    given_out = [(at, name) for name, held in spread.items() for at in held]
    assert all(at.topic in wanted[name] for at, name in given_out)
    expected = {
        TopicPartition(topic, partition)
        for wish in wanted.values()
        for topic in wish
        for partition in range(size[topic])
    }
    assert sorted(at for at, _ in given_out) == sorted(expected)


@given(st.sets(st.text("xyz", min_size=1, max_size=3), min_size=1), sizes)
def test_members_that_want_the_same_get_the_same_number_but_for_one(names: set[str], size: dict[str, int]):
    loads = [len(held) for held in assign({name: ["a", "b", "c"] for name in names}, size).values()]
    assert max(loads) - min(loads) <= 1


@given(wishes, sizes)
def test_the_order_in_which_members_are_listed_does_not_matter(
    wanted: dict[str, set[str]], size: dict[str, int]
):
    listed = {name: sorted(wish) for name, wish in wanted.items()}
    assert assign(listed, size) == assign(dict(reversed(listed.items())), size)
