"""The structured merge of what somebody applies into what is there (`hub.fields.merging`)."""

import pytest

from fields_parts import SHAPE
from transom.hub.fields.merging import list_problems, merge


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ({"size": 1, "title": "a"}, {"size": 2}, {"size": 2, "title": "a"}),
        ({"labels": {"a": "1"}}, {"labels": {"b": "2"}}, {"labels": {"a": "1", "b": "2"}}),
        ({"labels": {"a": "1"}}, {"labels": {}}, {"labels": {"a": "1"}}),
        ({"labels": {"a": "1"}}, {"labels": None}, {"labels": {"a": "1"}}),
        ({"labels": {}}, {"labels": None}, {"labels": {}}),
        ({"size": 1}, {"size": None}, {"size": None}),
        ({"whole": {"a": "1"}}, {"whole": {"b": "2"}}, {"whole": {"b": "2"}}),
        ({"command": ["a", "b"]}, {"command": ["c"]}, {"command": ["c"]}),
        ({"command": ["a"]}, {"command": None}, {"command": None}),
        ({"regions": ["a"]}, {"regions": None}, {"regions": ["a"]}),
        ({"regions": []}, {"regions": None}, {"regions": []}),
        ({"new": {"a": {"b": 1}}}, {"new": {"a": {"c": 2}}}, {"new": {"a": {"b": 1, "c": 2}}}),
        ({"new": 1}, {"new": {"a": 1}}, {"new": {"a": 1}}),
        ({"new": {"a": 1}}, {"new": 1}, {"new": 1}),
        ({"limits": {"cpu": 1}}, {"limits": "all"}, {"limits": "all"}),
        ({"zones": "all"}, {"zones": [{"name": "a"}]}, {"zones": [{"name": "a"}]}),
    ],
)
def test_merge(live, applied, merged):
    assert merge(SHAPE, live, applied) == merged


def test_keyed_lists_merge_by_key_and_defaults_of_keys_count():
    live = {"ports": [{"port": 80, "protocol": "TCP", "weight": 1}, {"port": 80, "protocol": "UDP"}]}
    applied = {"ports": [{"port": 80, "name": "web"}, {"port": 53, "protocol": "UDP"}]}
    assert merge(SHAPE, live, applied)["ports"] == [
        {"port": 80, "protocol": "TCP", "weight": 1, "name": "web"},
        {"port": 80, "protocol": "UDP"},
        {"port": 53, "protocol": "UDP"},
    ]


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("abc", "b", "abc"),
        ("abc", "ca", "bca"),
        ("ab", "ca", "cab"),
        ("xa", "ca", "xca"),
        ("abx", "bac", "bxac"),
        ("abcd", "dcba", "dcba"),
        ("axby", "ba", "xbya"),
        ("", "ba", "ba"),
        ("ab", "", "ab"),
        ("ab", "xyz", "abxyz"),
        ("aba", "a", "ab"),
        ("xxa", "a", "xxa"),
    ],
)
def test_sets_take_the_order_of_what_is_applied_and_keep_the_others_between(live, applied, merged):
    given = merge(SHAPE, {"regions": list(live)}, {"regions": list(applied)})
    assert "".join(given["regions"]) == merged


def test_an_item_that_stands_twice_is_replaced_by_the_one_applied():
    twice = {"zones": [{"name": "a", "driver": "x"}, {"name": "a", "driver": "y"}, {"name": "b"}]}
    assert merge(SHAPE, twice, {"zones": [{"name": "a", "tags": ["t"]}]}) == {
        "zones": [{"name": "a", "tags": ["t"]}, {"name": "b"}]
    }


def test_items_that_cannot_be_told_apart_are_told():
    wrong = {
        "regions": ["eu", "us", "eu", ["x"]],
        "ports": [7, {"port": 1}, {"port": 1, "protocol": "TCP"}],
        "zones": [{"name": "a", "tags": ["x", "x"]}, {"driver": "x"}, "b"],
        "command": ["x", "x"],
    }
    assert {str(problem) for problem in list_problems(SHAPE, wrong)} == {
        'regions[2]: duplicate entries for key [="eu"]',
        "regions[3]: must be a plain value, by which the items are told apart",
        "ports[0]: must be an object with port or protocol, by which the items are told apart",
        'ports[2]: duplicate entries for key [port=1,protocol="TCP"]',
        'zones[name="a"].tags[1]: duplicate entries for key [="x"]',
        "zones[1]: must be an object with name, by which the items are told apart",
        "zones[2]: must be an object with name, by which the items are told apart",
    }
