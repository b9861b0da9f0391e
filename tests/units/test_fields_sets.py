"""Sets of fields and how managedFields writes them (`hub.fields.sets`, `shapes`, `walks`)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fields_parts import SHAPE, told
from transom.hub.fields.sets import field, from_fields_v1, item, keyed, to_fields_v1
from transom.hub.fields.walks import Difference, difference, fields_of, with_declared, without

ELEMENTS = st.one_of(
    st.text(max_size=4).map(field),
    st.one_of(st.text(max_size=4), st.integers(), st.booleans()).map(item),
    st.dictionaries(
        st.text(min_size=1, max_size=3), st.one_of(st.text(max_size=3), st.integers()), min_size=1
    ).map(keyed),
    st.integers(min_value=0, max_value=9).map(lambda number: f"i:{number}"),
)
SETS = st.frozensets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=12)


@given(SETS)
def test_fields_v1_gives_back_the_set_it_was_made_of(fields):
    assert from_fields_v1(to_fields_v1(fields)) == fields


def test_fields_v1_is_written_as_kubernetes_writes_it():
    value = {
        "size": 3,
        "labels": {"a": "1"},
        "regions": ["eu"],
        "ports": [{"port": 80, "weight": 2}],
        "whole": {"x": "y"},
    }
    assert to_fields_v1(fields_of(SHAPE, value)) == {
        "f:size": {},
        "f:labels": {"f:a": {}},
        "f:regions": {'v:"eu"': {}},
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:weight": {}}},
        "f:whole": {},
    }
    created = difference(SHAPE, {}, {"labels": {"a": "1"}}).added
    assert to_fields_v1(created) == {"f:labels": {".": {}, "f:a": {}}}, "what comes is managed itself"


def test_keys_are_read_however_they_are_written_and_later_elements_left_out():
    tree = {"f:ports": {'k:{"protocol": "TCP",\n"port": 80}': {}, "x:later": {"f:a": {}}, "v: 1": {}}}
    assert told(from_fields_v1(tree)) == {'.ports[port=80,protocol="TCP"]', ".ports[=1]"}


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"spec": {}}, "colon"),
        ({"f:a": 1}, "other than objects"),
        ([], "other than objects"),
        ({"k:{": {}}, "JSON"),
        ({"k:1": {}}, "no object"),
        ({"v:nothing": {}}, "JSON"),
    ],
)
def test_what_is_no_fields_v1_is_refused(tree, why):
    with pytest.raises(ValueError, match=why):
        from_fields_v1(tree)


def test_places_that_the_schema_does_not_know_are_fields_of_their_own():
    assert told(fields_of(SHAPE, {"new": {"a": {"b": 1}, "list": [1, 2]}})) == {
        ".new",
        ".new.a",
        ".new.a.b",
        ".new.list",
    }


def test_what_is_empty_is_a_field():
    empty = {"labels": {}, "limits": None, "regions": [], "command": []}
    assert told(fields_of(SHAPE, empty)) == {".labels", ".limits", ".regions", ".command"}


def test_what_stands_twice_is_managed_as_a_whole():
    ports = [{"port": 80, "weight": 1}, {"port": 80, "protocol": "TCP"}, {"port": 443}]
    assert told(fields_of(SHAPE, {"ports": ports})) == {
        '.ports[port=80,protocol="TCP"]',
        '.ports[port=443,protocol="TCP"]',
        '.ports[port=443,protocol="TCP"].port',
    }
    once = {"ports": [{"port": 80, "weight": 1}]}
    found = difference(SHAPE, once, {"ports": ports[:2]})
    assert told(found.added) == {'.ports[port=80,protocol="TCP"]'}
    assert '.ports[port=80,protocol="TCP"].weight' in told(found.removed)
    assert difference(SHAPE, {"ports": ports}, {"ports": ports}) == Difference(*[frozenset()] * 3)
    assert told(difference(SHAPE, {"ports": ports[:2]}, {"ports": ports[1::-1]}).modified) == {
        '.ports[port=80,protocol="TCP"]'
    }


def test_items_that_cannot_be_told_apart_make_the_list_one_field():
    assert told(fields_of(SHAPE, {"ports": [{"weight": 1}, 7], "zones": [7]})) == {".ports", ".zones"}
    assert told(fields_of(SHAPE, {"regions": [["eu"], {"a": 1}]})) == {".regions"}


@pytest.mark.parametrize(
    ("before", "after", "removed", "modified", "added"),
    [
        ({}, {"size": 1}, set(), set(), {".size"}),
        ({"size": 1}, {}, {".size"}, set(), set()),
        ({"size": 1}, {"size": 2}, set(), {".size"}, set()),
        ({"size": 1}, {"size": 1.0}, set(), set(), set()),
        ({"size": 1}, {"size": True}, set(), {".size"}, set()),
        ({"command": [[1]]}, {"command": [[True]]}, set(), {".command"}, set()),
        ({"whole": {"a": "1"}}, {"whole": {"a": "2"}}, set(), {".whole"}, set()),
        ({"labels": {"a": "1"}}, {"labels": {}}, {".labels.a"}, set(), set()),
        ({"labels": {"a": "1"}}, {}, {".labels", ".labels.a"}, set(), set()),
        ({"labels": None}, {"labels": {}}, set(), {".labels"}, set()),
        ({"labels": None}, {"labels": {"a": "1"}}, set(), set(), {".labels.a"}),
        ({"new": 1}, {"new": {"a": 1}}, set(), {".new"}, {".new.a"}),
        ({"new": {"a": 1}}, {"new": [1]}, {".new.a"}, {".new"}, set()),
        (
            {"regions": ["eu", "us"]},
            {"regions": ["us", "ap"]},
            {'.regions[="eu"]'},
            set(),
            {'.regions[="ap"]'},
        ),
        ({"regions": ["eu", "us"]}, {"regions": ["us", "eu"]}, set(), set(), set()),
    ],
)
def test_difference(before, after, removed, modified, added):
    found = difference(SHAPE, before, after)
    assert [told(each) for each in found] == [removed, modified, added]


def test_without_takes_fields_and_items_and_leaves_what_is_empty_then():
    value = {
        "size": 1,
        "labels": {"a": "1"},
        "ports": [{"port": 80, "weight": 2}, {"port": 443}],
        "whole": {},
    }
    port = keyed({"port": 80, "protocol": "TCP"})
    gone = frozenset({("f:labels", "f:a"), ("f:ports", port, "f:weight"), ("f:whole", "f:x"), ("f:size",)})
    left = {"labels": {}, "ports": [{"port": 80}, {"port": 443}], "whole": {}}
    assert without(SHAPE, value, gone) == left
    assert without(SHAPE, left, frozenset({("f:ports", port)}))["ports"] == [{"port": 443}]


def test_with_declared_adds_the_fields_of_the_schema_on_the_way():
    zone = keyed({"name": "a"})
    fields = frozenset({("f:zones", zone, "f:tags", item("x")), ("f:labels", "f:a"), ("f:new", "f:a", "f:b")})
    assert with_declared(SHAPE, fields) - fields == {
        ("f:zones",),
        ("f:zones", zone, "f:tags"),
        ("f:labels",),
    }
