"""Names, versions, records, resources, errors: the values everything else is made of."""

import inspect

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.model import errors
from transom.model.errors import Advice, InvalidError, Problem, TransomError, advice_for
from transom.model.names import Key, is_label, is_subdomain, spoken
from transom.model.records import Record
from transom.model.resources import (
    Condition,
    Metadata,
    OwnerReference,
    Resource,
    conditions_of,
    from_json,
    to_json,
    with_conditions,
)
from transom.model.version import Version

# --- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a--b", "eu-1", "a" * 63])
def test_labels(name: str) -> None:
    assert is_label(name)
    assert is_subdomain(name)


@pytest.mark.parametrize(
    "name", ["", "-", "-a", "a-", "A", "a_b", "a b", "a.b", "é", "a\n", "a" * 64, "\u0661", "a\0", "a/b"]
)
def test_what_is_no_label(name: str) -> None:
    assert not is_label(name)


def test_subdomains() -> None:
    assert is_subdomain("web.eu")
    assert is_subdomain(".".join(["a" * 62] * 4))
    for name in ("", ".", "a..b", ".a", "a.", "a.B", ".".join(["a" * 63] * 4)):
        assert not is_subdomain(name)


@given(
    st.builds(
        Key, st.sampled_from(["Region", "Deployment"]), st.sampled_from(["", "acme"]), st.just("web.eu")
    )
)
def test_a_key_is_read_back(key: Key) -> None:
    assert Key.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "a/b", "a/b/c/d", "/b/c", "a/b/"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(InvalidError, match="expected Kind/namespace/name"):
        Key.parse(text)


# --- versions and records ------------------------------------------------------------------------------

NUMBERS = st.integers(0, 10**18 - 1)
VERSIONS = st.builds(Version, NUMBERS, NUMBERS, st.text(min_size=1))


@given(VERSIONS)
def test_a_version_is_read_back(version: Version) -> None:
    assert Version.parse(str(version)) == version


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.", ".2.hub", "1..hub", "a.2.hub", "-1.2.hub", "1.²2.hub", "1 .2.hub", "+1.2.hub"]
    + [f"1.{'9' * digits}.hub" for digits in (19, 5000)],
)
def test_what_is_no_version(text: str) -> None:
    # Also what no table could store: one such record must not stop whoever reads it.
    with pytest.raises(InvalidError, match=r"EPOCH\.COUNTER\.ORIGIN"):
        Version.parse(text)


def test_versions_compare_by_epoch_then_counter_then_origin() -> None:
    ordered = [
        Version(1, 9, "z"),
        Version(2, 1, "a"),
        Version(2, 1, "b"),
        Version(2, 2, "a"),
        Version(10, 1, "a"),
    ]
    for at, one in enumerate(ordered):
        assert all(one < later for later in ordered[at + 1 :])


RECORDS = st.builds(Record, st.text("ab:1", max_size=4), VERSIONS, st.binary(max_size=4), st.booleans())


@given(RECORDS, RECORDS)
def test_a_fingerprint_differs_when_anything_differs(one: Record, two: Record) -> None:
    assert (one.fingerprint() == two.fingerprint()) == (one == two)


def test_a_fingerprint_does_not_confuse_key_and_value() -> None:
    version = Version(1, 1, "hub")
    assert Record("ab", version, b"c").fingerprint() != Record("a", version, b"bc").fingerprint()
    assert Record("a", version, b"", deleted=True).fingerprint() != Record("a", version, b"").fingerprint()


# --- resources -----------------------------------------------------------------------------------------

OWNER = OwnerReference("transom.dev/v1", "Deployment", "web", "uid-1", controller=True)


def resource() -> Resource:
    meta = Metadata(
        "web.eu", "acme", uid="uid-2", generation=3, resource_version="9", owner_references=[OWNER]
    )
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "then"}
    return Resource(
        "RegionalDeployment", meta, "transom.dev/v1", {"b": 1, "a": [1, {}]}, {"conditions": [ready]}
    )


def test_a_resource_is_read_back_and_has_the_names_of_the_kubernetes_api() -> None:
    made = resource()
    assert from_json(to_json(made)) == made
    plain = msgspec.json.decode(to_json(made))
    assert plain["apiVersion"] == "transom.dev/v1"
    assert plain["metadata"]["resourceVersion"] == "9"
    assert plain["metadata"]["ownerReferences"][0]["apiVersion"] == "transom.dev/v1"


def test_equal_values_give_equal_bytes() -> None:
    assert to_json({"b": {"d": 1, "c": 2}, "a": 3}) == to_json({"a": 3, "b": {"c": 2, "d": 1}})


def test_what_a_region_is_told_is_the_same_whatever_its_status() -> None:
    made = resource()
    later = made.with_status({"ready": 1}).with_metadata(resource_version="10")
    assert to_json(made.desired()) == to_json(later.desired())
    assert to_json(made.desired()) != to_json(made.with_metadata(generation=4).desired())
    assert made.desired().status == {}


def test_owner_conditions_and_deletion() -> None:
    made = resource()
    assert made.owner == OWNER
    assert made.with_metadata(owner_references=[]).owner is None
    assert not made.deleting
    assert made.with_metadata(deletion_timestamp="now").deleting
    ready = made.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.last_transition_time) == ("True", "then")
    assert made.condition("Other") is None


def test_the_time_of_a_condition_moves_only_with_its_status() -> None:
    old = resource().status
    same = with_conditions(old, [Condition("Ready", "True", "New", "words")], "now")
    assert conditions_of({"conditions": same}) == [Condition("Ready", "True", "New", "words", "then")]
    turned = with_conditions(old, [Condition("Ready", "False"), Condition("Other", "True")], "now")
    assert [one["lastTransitionTime"] for one in turned] == ["now", "now"]


# --- errors --------------------------------------------------------------------------------------------


def test_every_error_has_an_advice_and_a_docstring_for_its_reader() -> None:
    found = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, TransomError)]
    assert len(found) > 10
    for error in found:
        assert isinstance(error.advice, Advice)
        assert error.__doc__


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.ConflictError("x"), Advice.RETRY),
        (errors.UnreachableError("x"), Advice.RETRY),
        (errors.StorageFullError("x"), Advice.RETRY),
        (errors.GenerationError("x"), Advice.RETRY),
        (errors.FencedError("x"), Advice.STOP),
        (errors.VersionClashError("x"), Advice.STOP),
        (errors.NewerDataError("x"), Advice.CRASH),
        (errors.BrokenInvariantError("x"), Advice.CRASH),
        (ConnectionResetError(), Advice.RETRY),
        (TimeoutError(), Advice.RETRY),
        (KeyError("a bug"), Advice.CRASH),
        (ExceptionGroup("g", [TimeoutError(), OSError()]), Advice.RETRY),
        (ExceptionGroup("g", [TimeoutError(), errors.FencedError("x")]), Advice.STOP),
        (
            ExceptionGroup("g", [ExceptionGroup("h", [KeyError("a bug")]), errors.FencedError("x")]),
            Advice.CRASH,
        ),
    ],
)
def test_what_to_do_about_an_error(error: Exception, advice: Advice) -> None:
    assert advice_for(error) is advice


def test_an_invalid_error_lists_every_problem() -> None:
    error = InvalidError("the file", [Problem("a.b[0]", "is wrong"), Problem("", "as a whole")])
    assert str(error) == "the file is invalid: a.b[0]: is wrong; as a whole"
    assert str(InvalidError("it", [])) == "it is invalid"


def test_a_key_without_a_namespace_is_spoken_as_people_write_it():
    assert spoken("Region//eu and ApiKey/acme/ci") == "Region/eu and ApiKey/acme/ci"
    assert spoken("see https://a//b") == "see https://a//b"
