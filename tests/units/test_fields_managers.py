"""Applying and updating, told as what happens to one object (`hub.fields.managers`)."""

import pytest

from fields_parts import World
from transom.hub.fields.managers import FieldConflictError


def test_what_its_only_manager_drops_is_gone():
    world = World()
    world.apply("ci", {"size": 1, "title": "a", "labels": {"x": "1", "y": "2"}})
    world.apply("ci", {"size": 1, "labels": {"y": "2"}})
    assert world.live == {"size": 1, "labels": {"y": "2"}}
    assert world.applied_by("ci") == {".size", ".labels.y"}
    world.apply("ci", {"size": 1})
    assert world.live == {"size": 1}, "the object it was in goes with the last of it"
    world.apply("ci", {})
    assert (world.live, world.managers) == ({}, {}), "who manages nothing is nobody"


def test_what_others_manage_stays_when_one_drops_it():
    world = World()
    world.apply("one", {"size": 1, "labels": {"a": "1", "b": "2"}})
    world.apply("two", {"size": 1, "labels": {"a": "1"}})
    world.apply("one", {"labels": {}})
    assert world.live == {"size": 1, "labels": {"a": "1"}}
    assert world.applied_by("one") == {".labels"}
    assert world.applied_by("two") == {".size", ".labels.a"}
    world.apply("two", {})
    assert world.live == {"labels": {}}, "one wants them, even without anything in them"


def test_what_nobody_applied_is_not_removed_with_what_it_is_in():
    world = World()
    world.apply("one", {"limits": {"cpu": 1}})
    world.update("somebody", {"limits": {"cpu": 1, "disk": 2}})
    assert world.updated_by("somebody") == {".limits.disk"}
    world.apply("one", {})
    assert world.live == {"limits": {"disk": 2}}
    assert world.applied_by("one") == set()


def test_items_of_keyed_lists_go_with_their_only_manager():
    world = World()
    world.apply("one", {"ports": [{"port": 1, "weight": 1}, {"port": 2}, {"port": 3}]})
    world.apply("two", {"ports": [{"port": 3, "name": "x"}, {"port": 4}]})
    world.apply("one", {"ports": [{"port": 1}]})
    assert world.live == {"ports": [{"port": 1}, {"port": 3, "name": "x"}, {"port": 4}]}
    assert world.applied_by("two") == {
        '.ports[port=3,protocol="TCP"]',
        '.ports[port=3,protocol="TCP"].name',
        '.ports[port=3,protocol="TCP"].port',
        '.ports[port=4,protocol="TCP"]',
        '.ports[port=4,protocol="TCP"].port',
    }


def test_an_item_whose_fields_others_manage_stays_with_them_alone():
    world = World()
    world.apply("one", {"zones": [{"name": "a", "driver": "x"}, {"name": "b"}]})
    both = [{"name": "a", "driver": "x", "tags": ["t"]}, {"name": "b"}]
    world.update("somebody", {"zones": both})
    assert world.updated_by("somebody") == {'.zones[name="a"].tags', '.zones[name="a"].tags[="t"]'}
    world.apply("one", {"zones": [{"name": "b"}]})
    assert world.live == {"zones": [{"name": "b"}]}, "nobody else manages the item itself"
    assert world.updated_by("somebody") == set()


def test_what_nobody_manages_stays_inside_of_what_somebody_else_does():
    world = World()
    world.apply("one", {"zones": [{"name": "a", "driver": "x"}]})
    world.apply("two", {"zones": [{"name": "a"}]})
    world.live["zones"][0]["tags"] = ["by itself"]
    world.apply("one", {})
    assert world.live == {"zones": [{"name": "a", "tags": ["by itself"]}]}
    world.apply("two", {})
    assert world.live == {}, "and goes with it"


def test_the_same_value_is_shared_and_another_is_a_conflict():
    world = World()
    world.apply("one", {"size": 1, "regions": ["eu"]})
    world.apply("two", {"size": 1, "regions": ["eu", "us"]})
    assert world.live == {"size": 1, "regions": ["eu", "us"]}
    live, managers = world.live, world.managers
    with pytest.raises(FieldConflictError) as refused:
        world.apply("two", {"size": 2, "regions": ["eu"]})
    assert str(refused.value) == 'Apply failed with 1 conflict: conflict with "one": .size'
    assert (world.live, world.managers) == (live, managers), "nothing was changed"
    world.apply("two", {"size": 2, "regions": ["eu"]}, force=True)
    assert world.live == {"size": 2, "regions": ["eu"]}
    assert world.applied_by("one") == {'.regions[="eu"]'}, "force takes the field over"


def test_conflicts_are_told_by_manager_in_kubernetes_words():
    world = World()
    world.apply("one", {"size": 1, "labels": {"a": "1"}})
    world.update("edit", {"size": 1, "labels": {"a": "1"}, "command": ["x"]})
    with pytest.raises(FieldConflictError) as refused:
        world.apply("two", {"size": 2, "labels": {"a": "2"}, "command": ["y"]})
    assert str(refused.value) == (
        'Apply failed with 3 conflicts: conflicts with "edit" using v1:\n- .command\n'
        'conflicts with "one":\n- .labels.a\n- .size'
    )


def test_an_update_takes_over_just_what_it_changes():
    world = World()
    world.apply("one", {"size": 1, "title": "a", "command": ["x"]})
    world.update("edit", {"size": 2, "title": "a", "labels": {"k": "v"}})
    assert world.applied_by("one") == {".title"}
    assert world.updated_by("edit") == {".size", ".labels", ".labels.k"}
    with pytest.raises(FieldConflictError):
        world.apply("one", {"size": 1, "title": "a"})
    world.apply("one", {"title": "a"})
    assert world.live == {"size": 2, "title": "a", "labels": {"k": "v"}}, "it is the other's now"
    world.update("edit", {"title": "a"})
    assert (world.updated_by("edit"), world.applied_by("one")) == (set(), {".title"})


def test_who_updates_and_applies_under_one_name_is_two():
    world = World()
    world.update("ci", {"size": 1})
    with pytest.raises(FieldConflictError, match=r'conflict with "ci" using v1: \.size'):
        world.apply("ci", {"size": 2})
    world.apply("ci", {"size": 1})
    world.update("ci", {"size": 3})
    assert (world.updated_by("ci"), world.applied_by("ci")) == ({".size"}, set())


def test_what_is_atomic_is_managed_and_replaced_as_a_whole():
    world = World()
    world.apply("one", {"command": ["a", "b"], "whole": {"x": "1"}})
    with pytest.raises(FieldConflictError) as refused:
        world.apply("two", {"command": ["a", "b", "c"], "whole": {"x": "1", "y": "2"}})
    assert "- .command\n- .whole" in str(refused.value)
    world.apply("two", {"command": ["c"], "whole": {"y": "2"}}, force=True)
    assert world.live == {"command": ["c"], "whole": {"y": "2"}}
    assert (world.applied_by("one"), world.applied_by("two")) == (set(), {".command", ".whole"})


def test_fields_that_the_schema_does_not_know_are_pruned_too():
    world = World()
    world.apply("one", {"new": {"a": {"x": 1}, "b": 2}})
    world.apply("two", {"new": {"c": [1]}})
    world.apply("one", {"new": {"b": 2}})
    assert world.live == {"new": {"b": 2, "c": [1]}}


def test_an_object_that_becomes_a_leaf_and_back():
    world = World()
    world.apply("one", {"new": {"a": 1}})
    world.apply("one", {"new": 1})
    assert (world.live, world.applied_by("one")) == ({"new": 1}, {".new"})
    world.apply("one", {"new": {"b": 1}})
    assert (world.live, world.applied_by("one")) == ({"new": {"b": 1}}, {".new", ".new.b"})
