"""What differs between two states of a resource, path by path."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from transom.hub.differences import differences
from transom.model.resources import JsonObject, Metadata, Resource

NAMES = st.sampled_from(["a", "b.c", "a/b", "ü", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
SPECS = st.dictionaries(NAMES, VALUES, max_size=4)


def of(spec: JsonObject, **metadata: Any) -> Resource:
    return Resource("Deployment", Metadata("shop", "acme", **metadata), spec=spec)


def test_old_and_new_values_stand_at_their_paths() -> None:
    before = of({"version": "1", "env": {"A": "1", "B": "2"}, "zones": ["a"], "same": {"x": 1}})
    after = of({"version": "2", "env": {"A": "1", "b.c": None}, "zones": ["a", "b"], "same": {"x": 1}})
    assert differences(before, after) == [
        {"path": "spec.env.B", "old": "2"},
        {"path": 'spec.env["b.c"]', "new": None},
        {"path": "spec.version", "old": "1", "new": "2"},
        {"path": "spec.zones", "old": ["a"], "new": ["a", "b"]},
    ]


def test_metadata_counts_where_people_declare_it() -> None:
    before = of({}, uid="u", generation=1, resource_version="5", labels={"a/b": "x"}, finalizers=["f"])
    after = of({}, uid="u", generation=2, resource_version="9", annotations={"why": "so"})
    assert differences(before, after.with_status({"ready": 3})) == [
        {"path": "metadata.annotations.why", "new": "so"},
        {"path": "metadata.finalizers", "old": ["f"]},
        {"path": 'metadata.labels["a/b"]', "old": "x"},
    ]


def test_what_is_new_has_everything_as_new() -> None:
    assert differences(None, of({"version": "1"})) == [{"path": "spec.version", "new": "1"}]


@given(SPECS, SPECS)
def test_nothing_is_told_of_equals_and_something_of_all_others(before: JsonObject, after: JsonObject) -> None:
    found = differences(of(before), of(after))
    assert (found == []) == (before == after)
    paths = [change["path"] for change in found]
    assert len(set(paths)) == len(paths)
    back = differences(of(after), of(before))
    assert [(c["path"], c.get("old", ...), c.get("new", ...)) for c in found] == [
        (c["path"], c.get("new", ...), c.get("old", ...)) for c in back
    ]
