"""JSON patches (RFC 6902) at JSON pointers (RFC 6901): what they do, what they refuse, and their bounds."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_parts import DEPLOYMENTS, manifest, served
from transom.hub.api import patches
from transom.hub.api.patches import (
    OPERATIONS_MAX,
    TooManyOperationsError,
    UnreadablePatchError,
    check_json_patch,
    json_patched,
    same,
)
from transom.model.errors import InvalidError

MEDIA = "application/json-patch+json"

# RFC 6902, appendix A, and RFC 6901, 5: a document, the operations, and what comes out.
DONE: dict[str, tuple[Any, list[dict[str, Any]], Any]] = {
    "A.1": ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    "A.2": (
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    "A.3": ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    "A.4": ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    "A.5": (
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    "A.6": (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    "A.7": (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "A.8": (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    "A.10": (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    "A.11": (
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
        {"foo": "bar", "baz": "qux"},
    ),
    "A.14": (
        {"/": 9, "~1": 10},
        [{"op": "test", "path": "/~01", "value": 10}, {"op": "remove", "path": "/~1"}],
        {"~1": 10},
    ),
    "A.16": (
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
    "add replaces a member": (
        {"a": 1},
        [{"op": "add", "path": "/a", "value": None}],
        {"a": None},
    ),
    "add at the end by its index": ({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
    "replace in a list": ({"a": [1, 2]}, [{"op": "replace", "path": "/a/0", "value": 3}], {"a": [3, 2]}),
    "copy is a copy": (
        {"a": {"x": 1}},
        [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "add", "path": "/b/x", "value": 2}],
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    "move onto itself": ({"a": {"x": 1}}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": {"x": 1}}),
    "move to the whole": ({"a": {"x": 1}}, [{"op": "move", "from": "/a", "path": ""}], {"x": 1}),
    "the whole": ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    "an empty name": ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
    "digits and a dash as names": (
        {"0": 1, "-": 2, "01": 3},
        [{"op": "remove", "path": "/0"}, {"op": "remove", "path": "/-"}, {"op": "remove", "path": "/01"}],
        {},
    ),
    "numbers by value": ({"a": 1.0}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1.0}),
}

# A document, the operations, and the first that cannot be done with a part of the reason.
CANNOT: dict[str, tuple[Any, list[dict[str, Any]], str]] = {
    "A.9": ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], "testing the value failed"),
    "A.12": ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], "there is no 'baz'"),
    "A.15": ({"a": 10}, [{"op": "test", "path": "/a", "value": "10"}], "testing the value failed"),
    "true is not 1": ({"a": True}, [{"op": "test", "path": "/a", "value": 1}], "testing the value failed"),
    "0 is not false": (
        {"a": [0]},
        [{"op": "test", "path": "/a", "value": [False]}],
        "testing the value failed",
    ),
    "test of what is not there": ({}, [{"op": "test", "path": "/a", "value": None}], "there is no 'a'"),
    "remove what is not there": ({"a": 1}, [{"op": "remove", "path": "/b"}], "there is no 'b'"),
    "replace what is not there": ({"a": 1}, [{"op": "replace", "path": "/b", "value": 1}], "there is no 'b'"),
    "copy what is not there": ({"a": 1}, [{"op": "copy", "from": "/b", "path": "/c"}], "there is no 'b'"),
    "move what is not there": ({"a": 1}, [{"op": "move", "from": "/b", "path": "/b"}], "there is no 'b'"),
    "into a part of itself": (
        {"a": {"b": {}}},
        [{"op": "move", "from": "/a", "path": "/a/b/c"}],
        "moved into a part of itself",
    ),
    "behind the end": ({"a": [1]}, [{"op": "add", "path": "/a/2", "value": 1}], "the list has no place 2"),
    "replace at the end": ({"a": [1]}, [{"op": "replace", "path": "/a/1", "value": 1}], "has no place 1"),
    "remove at the dash": ({"a": [1]}, [{"op": "remove", "path": "/a/-"}], "'-' is no place in a list"),
    "a leading zero": ({"a": [1, 2]}, [{"op": "remove", "path": "/a/01"}], "'01' is no place"),
    "a sign": ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], "'-1' is no place"),
    "other digits": ({"a": [1, 2]}, [{"op": "remove", "path": "/a/\u0661"}], "is no place in a list"),
    "a huge index": ({"a": [1]}, [{"op": "remove", "path": "/a/" + "9" * 5000}], "is no place in a list"),
    "a name in a list": ({"a": [1]}, [{"op": "add", "path": "/a/x", "value": 1}], "'x' is no place"),
    "a part of a number": ({"a": 1}, [{"op": "add", "path": "/a/x", "value": 1}], "has no parts"),
    "a part of null": ({"a": None}, [{"op": "add", "path": "/a/x", "value": 1}], "has no parts"),
}

UNREADABLE: dict[str, tuple[Any, str]] = {
    "an object": ({"op": "remove", "path": "/a"}, "a list of operations"),
    "no path": (
        [{"op": "remove"}],
        "operation 0 of the patch: 'path' is missing",
    ),
    "text for an operation": (
        [{"op": "remove", "path": "/a"}, "x"],
        "operation 1 of the patch: is not an object",
    ),
    "an operation nobody knows": ([{"op": "merge", "path": "/a"}], "op is 'merge', none of add, copy, move"),
    "an operation that cannot be one": ([{"op": ["add"], "path": "/a"}], "op is ['add']"),
    "no value": ([{"op": "add", "path": "/a"}], "'value' is missing"),
    "no from": ([{"op": "move", "path": "/a"}], "'from' is missing"),
    "a path without its slash": ([{"op": "remove", "path": "a"}], "no JSON pointer"),
    "a path that is a number": ([{"op": "remove", "path": 1}], "no JSON pointer"),
    "a tilde alone": ([{"op": "remove", "path": "/a~"}], "no JSON pointer"),
    "a tilde before 2": ([{"op": "copy", "from": "/~2", "path": "/a"}], "no JSON pointer"),
}


@pytest.mark.parametrize("case", DONE.values(), ids=DONE)
def test_what_a_patch_does(case):
    document, operations, expected = case
    before = copy.deepcopy(document)
    assert same(json_patched(document, check_json_patch(operations)), expected)
    assert document == before, "what is patched is never changed in place"


@pytest.mark.parametrize("case", CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_done_leaves_everything_as_it_was(case):
    document, operations, why = case
    before = copy.deepcopy(document)
    # What would have worked before it is not done either.
    operations = check_json_patch([{"op": "add", "path": "/first", "value": 1}, *operations])
    with pytest.raises(InvalidError) as refused:
        json_patched(document, operations)
    assert why in refused.value.problems[0].message
    assert "operation 1 of the patch" in refused.value.problems[0].message
    assert document == before


@pytest.mark.parametrize("case", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_patch_is_refused_before_anything_is_looked_at(case):
    patch, why = case
    with pytest.raises(UnreadablePatchError) as refused:
        check_json_patch(patch)
    assert why in str(refused.value)


def test_a_patch_has_a_bounded_number_of_operations():
    operation = {"op": "add", "path": "/a", "value": 1}
    assert len(check_json_patch([operation] * OPERATIONS_MAX)) == OPERATIONS_MAX
    with pytest.raises(TooManyOperationsError, match=f"is {OPERATIONS_MAX}, got {OPERATIONS_MAX + 1}"):
        check_json_patch([operation] * (OPERATIONS_MAX + 1))


def test_a_patch_cannot_double_an_object_until_memory_is_full(monkeypatch):
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 12
    grown = json_patched({"a": []}, doubling)
    assert len(grown["a"]) == len(doubling)
    monkeypatch.setattr(patches, "COPIED_BYTES_MAX", 1000)
    with pytest.raises(InvalidError, match="copies more than"):
        json_patched({"a": []}, doubling)


@pytest.mark.parametrize("many", [100, 400, OPERATIONS_MAX])
def test_a_patch_cannot_nest_an_object_in_itself_deeper_than_any_may_be(many):
    with pytest.raises(InvalidError, match="nested deeper than"):
        json_patched({"a": {}}, [{"op": "copy", "from": "/a", "path": "/a/a"}] * many)


# --- for any document --------------------------------------------------------------------------------------

NAMES = st.text("ab01-~/", max_size=3)
SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.text("xy", max_size=2)
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_size=4,
)


def places(value: Any, pointer: str = ""):
    """Every place of a document: (pointer, value), from the outside in."""
    yield pointer, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, f"{pointer}/{number}")


def patched(document: Any, *operations: dict[str, Any]) -> Any:
    return json_patched(document, check_json_patch(list(operations)))


@given(DOCUMENTS)
def test_every_place_has_a_pointer_and_is_found_by_it(document):
    for pointer, value in places(document):
        assert patched(document, {"op": "test", "path": pointer, "value": value}) == document
        with pytest.raises(InvalidError):
            patched(document, {"op": "test", "path": pointer, "value": [value]})


@given(DOCUMENTS, SCALARS, st.data())
def test_replacing_changes_that_place_and_no_other(document, new, data):
    pointer, _ = data.draw(st.sampled_from(list(places(document))))
    after = dict(places(patched(document, {"op": "replace", "path": pointer, "value": new})))
    assert same(after[pointer], new)
    above = [pointer[:at] for at in range(len(pointer) + 1)]
    for other, value in places(document):
        if other not in above and not other.startswith(f"{pointer}/"):
            assert same(after[other], value)


@given(DOCUMENTS, st.data())
def test_what_is_added_and_removed_again_was_never_there(document, data):
    holders = [(at, value) for at, value in places(document) if isinstance(value, (dict, list))]
    pointer, holder = data.draw(st.sampled_from(holders))
    token = str(data.draw(st.integers(0, len(holder)))) if isinstance(holder, list) else "new"
    path = f"{pointer}/{token}"
    added = patched(document, {"op": "add", "path": path, "value": "x"})
    assert dict(places(added))[path] == "x"
    assert same(patched(added, {"op": "remove", "path": path}), document)


@given(DOCUMENTS, st.data())
def test_a_move_is_a_copy_and_a_removal(document, data):
    document = {**document, "held": {"x": [1]}}
    start, value = data.draw(st.sampled_from([each for each in places(document) if each[0]]))
    moved = patched(document, {"op": "move", "from": start, "path": "/moved"})
    removed = patched(document, {"op": "remove", "path": start})
    assert same(moved, {**removed, "moved": value})
    copied = patched(document, {"op": "copy", "from": start, "path": "/moved"})
    assert same(copied, {**document, "moved": value})


OPERATIONS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": st.lists(st.sampled_from(["a", "b", "0", "1", "-", "~0", "~1", ""]), max_size=3).map(
            lambda tokens: "".join(f"/{token}" for token in tokens)
        ),
        "from": st.sampled_from(["", "/a", "/b", "/a/0", "/a/b", "/~1"]),
        "value": SCALARS | st.just([0, {}]) | st.just({"a": [1]}),
    }
)


@given(DOCUMENTS, st.lists(OPERATIONS, max_size=8))
def test_any_patch_is_done_one_after_the_other_or_refused_whole(document, operations):
    before = copy.deepcopy(document)
    try:
        whole = json_patched(document, check_json_patch(operations))
    except InvalidError:
        whole = None
    assert same(document, before)
    step: Any = document
    try:
        for operation in operations:
            step = patched(step, operation)
    except InvalidError:
        step = None
    assert same(step, whole)


# --- through the API ---------------------------------------------------------------------------------------


async def test_a_patch_that_cannot_be_done_is_refused_as_kubernetes_refuses_it(tmp_path):
    async with served(tmp_path) as api:
        created = (await api.ask("POST", DEPLOYMENTS, manifest())).body
        since = await api.revision()
        version = {"op": "replace", "path": "/spec/version", "value": "2"}
        for patch, code, reason in (
            ([version, {"op": "test", "path": "/spec/app", "value": "x"}], 422, "Invalid"),
            ([version, {"op": "remove", "path": "/spec/nothing"}], 422, "Invalid"),
            ([version, {"op": "replace", "path": "", "value": []}], 422, "Invalid"),
            ([version, {"op": "remove", "path": ""}], 422, "Invalid"),
            ([{"op": "copy", "from": "/spec", "path": "/spec/a"}] * OPERATIONS_MAX, 422, "Invalid"),
            ([{"op": "remove", "path": "nothing"}], 400, "BadRequest"),
            ({"spec": {"version": "2"}}, 400, "BadRequest"),
            ([version] * (OPERATIONS_MAX + 1), 413, "RequestEntityTooLarge"),
        ):
            refused = await api.ask("PATCH", f"{DEPLOYMENTS}/shop", patch, media=MEDIA)
            assert (refused.code, refused.body["reason"]) == (code, reason), patch[:2]
        assert (await api.ask("GET", f"{DEPLOYMENTS}/shop")).body == created
        assert await api.revision() == since
        done = await api.ask("PATCH", f"{DEPLOYMENTS}/shop", [version], media=MEDIA)
        assert (done.code, done.body["spec"]["version"]) == (200, "2")


async def test_a_patch_that_names_another_version_is_a_conflict(tmp_path):
    async with served(tmp_path) as api:
        await api.ask("POST", DEPLOYMENTS, manifest())
        patch = [{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}]
        stale = await api.ask("PATCH", f"{DEPLOYMENTS}/shop", patch, media=MEDIA)
        assert (stale.code, stale.body["reason"]) == (409, "Conflict")


async def test_a_strategic_merge_patch_is_of_no_kind_that_is_served(tmp_path):
    async with served(tmp_path) as api:
        await api.ask("POST", DEPLOYMENTS, manifest())
        media = "application/strategic-merge-patch+json"
        refused = await api.ask("PATCH", f"{DEPLOYMENTS}/shop", {"spec": {}}, media=media)
        assert (refused.code, refused.body["reason"]) == (415, "UnsupportedMediaType")
        assert "application/merge-patch+json" in refused.body["message"]
