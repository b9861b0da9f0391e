"""What holds of any object and any who apply and update it (`hub.fields`)."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from fields_parts import SHAPE, World, applier
from transom.hub.fields.managers import Manager, apply
from transom.hub.fields.merging import list_problems
from transom.hub.fields.sets import Path, from_fields_v1, to_fields_v1
from transom.hub.fields.walks import difference, fields_of, places_of, with_declared, without

NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.sampled_from(["1", "2"])
NUMBERS = st.integers(min_value=1, max_value=3)


def partial(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def keyed_list(keys: dict[str, Any], by: str, **fields: Any) -> st.SearchStrategy[list[Any]]:
    items = st.fixed_dictionaries(keys, optional=fields)
    return st.lists(items, max_size=3, unique_by=lambda item: item[by])


OBJECTS = partial(
    size=NUMBERS,
    title=TEXTS,
    labels=st.dictionaries(NAMES, TEXTS, max_size=3),
    limits=partial(cpu=NUMBERS, disk=NUMBERS),
    whole=st.dictionaries(NAMES, TEXTS, max_size=2),
    command=st.lists(TEXTS, max_size=2),
    regions=st.lists(NAMES, max_size=3, unique=True),
    ports=keyed_list({"port": NUMBERS}, "port", name=TEXTS, weight=NUMBERS),
    zones=keyed_list({"name": NAMES}, "name", driver=TEXTS, tags=st.lists(NAMES, max_size=2, unique=True)),
    new=partial(a=NUMBERS, b=st.dictionaries(NAMES, NUMBERS, max_size=2), c=st.lists(NUMBERS, max_size=2)),
)
WRITERS = st.sampled_from(["one", "two", "three"])
STEPS = st.lists(st.tuples(st.booleans(), WRITERS, OBJECTS), max_size=5)


def after(steps: list[tuple[bool, str, Any]]) -> World:
    world = World()
    for applies, name, value in steps:
        if applies:
            world.apply(name, value, force=True)
        else:
            world.update(name, value)
    return world


@given(STEPS, WRITERS, OBJECTS)
def test_applying_again_changes_nothing(steps, name, value):
    world = after(steps)
    world.apply(name, value, force=True)
    live, managers = world.live, world.managers
    world.apply(name, value)
    assert not any(difference(SHAPE, live, world.live))
    assert (world.live, world.managers) == (live, managers)


@given(STEPS, WRITERS, OBJECTS)
def test_what_is_applied_is_there_and_everything_it_does_not_name_is_as_it_was(steps, name, value):
    world = after(steps)
    before, live = world.managers.get(applier(name), frozenset()), world.live
    world.apply(name, value, force=True)
    found = difference(SHAPE, world.live, value)
    assert not found.modified
    assert not found.added, "nothing is missing"
    own = with_declared(SHAPE, before) | places_of(SHAPE, value)
    for path in frozenset[Path]().union(*difference(SHAPE, live, world.live)):
        assert any(path[: len(part)] == part for part in own), path


@given(OBJECTS, OBJECTS)
def test_two_with_different_fields_never_conflict(one, two):
    apart = without(SHAPE, two, with_declared(SHAPE, fields_of(SHAPE, one)))
    assert not fields_of(SHAPE, one) & fields_of(SHAPE, apart)
    world = World()
    world.apply("one", one)
    world.apply("two", apart)
    assert world.managers.get(applier("one"), frozenset()) == fields_of(SHAPE, one)


@given(STEPS, WRITERS, OBJECTS, OBJECTS)
def test_what_one_drops_goes_unless_somebody_else_manages_it(steps, name, first, second):
    world = after(steps)
    world.apply(name, first, force=True)
    dropped = fields_of(SHAPE, first) - places_of(SHAPE, second)
    others = [fields for manager, fields in world.managers.items() if manager != applier(name)]
    held = frozenset[Path]().union(*others)
    kept = with_declared(SHAPE, held)
    world.apply(name, second, force=True)
    left = places_of(SHAPE, world.live)
    for path in dropped:
        # What is in an item that goes, goes with it.
        stays = path in kept and all(
            path[:depth] in kept for depth in range(1, len(path)) if path[:depth] in dropped
        )
        assert (path in left) == stays, path


@given(STEPS)
def test_sets_hold_fields_that_are_there_and_nobody_is_left_with_none(steps):
    world = after(steps)
    there = places_of(SHAPE, world.live)
    for manager, fields in world.managers.items():
        assert fields, manager
        assert fields <= there, (manager, fields - there)


@given(OBJECTS, st.lists(st.tuples(WRITERS, OBJECTS), min_size=1, max_size=5))
def test_updates_alone_leave_every_field_with_exactly_one_manager(first, steps):
    world = World()
    for name, value in [("first", first), *steps]:
        world.update(name, value)
    sets = list(world.managers.values())
    assert frozenset[Path]().union(*sets) == places_of(SHAPE, world.live)
    assert sum(map(len, sets)) == len(places_of(SHAPE, world.live))


@given(STEPS, WRITERS, OBJECTS)
def test_force_leaves_what_was_changed_to_its_applier(steps, name, value):
    world = after(steps)
    live = world.live
    world.apply(name, value, force=True)
    changed = difference(SHAPE, live, world.live)
    for manager, fields in world.managers.items():
        if manager != Manager(name, "Apply"):
            assert not fields & (changed.modified | changed.added)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "port", "tags", "a", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)
JUNK = st.dictionaries(
    st.sampled_from(["size", "labels", "whole", "regions", "ports", "zones", "new"]), ANYTHING
)


@example({"size": None}, {"size": {"name": None}}, {"size": None})
@given(JUNK, JUNK, JUNK)
def test_whatever_is_written_and_applied_nothing_breaks(written, first, second):
    """What fits no schema is refused elsewhere, and after the merge; it must get there."""
    world = World()
    world.update("somebody", written)
    world.apply("one", first, force=True)
    world.apply("one", second, force=True)
    again = apply(SHAPE, world.live, world.managers, second, applier("one"), force=False)
    assert again.managers == world.managers
    list(list_problems(SHAPE, second))
    for fields in world.managers.values():
        assert from_fields_v1(to_fields_v1(fields)) == fields
