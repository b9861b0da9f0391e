"""Selectors: label selectors against a plain reading of what Kubernetes says of them, and field selectors."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_parts import DEPLOYMENTS, ROOT, manifest, served
from transom.catalog.deployment.kind import DEPLOYMENT
from transom.catalog.event.kind import EVENT
from transom.hub.api.errors import RefusedError
from transom.hub.api.selectors import Selector, selector_of
from transom.model.resources import Metadata, Resource


class Requirement(NamedTuple):
    """One part of a label selector, as it is meant."""

    key: str
    operator: str
    values: tuple[str, ...]

    def holds(self, labels: dict[str, str]) -> bool:
        """By the page on labels: what has no such label is not equal to anything, and never compared."""
        there, value = self.key in labels, labels.get(self.key, "")
        match self.operator:
            case "exists":
                return there
            case "!":
                return not there
            case "=" | "==" | "in":
                return there and value in self.values
            case "!=" | "notin":
                return not there or value not in self.values
            case ">":
                return there and value.isdigit() and int(value) > int(self.values[0])
            case _:
                return there and value.isdigit() and int(value) < int(self.values[0])

    def written(self, gap: str) -> str:
        """As clients write it, with or without spaces wherever they may stand."""
        match self.operator:
            case "exists":
                return f"{gap}{self.key}{gap}"
            case "!":
                return f"{gap}!{gap}{self.key}"
            case "in" | "notin":
                values = f"{gap},{gap}".join(self.values)
                return f"{self.key} {self.operator} ({gap}{values}{gap})"
            case _:
                return f"{self.key}{gap}{self.operator}{gap}{self.values[0]}"


KEYS = st.sampled_from(["app", "in", "notin", "example.com/app", "a_b.c"])
VALUES = st.sampled_from(["", "a", "b", "in", "1", "07", "x.y-z_1"])
NUMBERS = st.integers(0, 10).map(str)


def requirement(operators: tuple[str, ...], values: Any) -> Any:
    return st.builds(Requirement, KEYS, st.sampled_from(operators), values)


REQUIREMENTS = st.one_of(
    requirement(("exists", "!"), st.just(())),
    requirement(("=", "==", "!="), st.tuples(VALUES)),
    requirement(("in", "notin"), st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    requirement((">", "<"), st.tuples(NUMBERS)),
)


def labelled(labels: dict[str, str]) -> Resource:
    return Resource("Deployment", Metadata("shop", namespace="acme", labels=labels))


def read_or_refused(labels: str, fields: str) -> Selector | RefusedError:
    try:
        return selector_of(DEPLOYMENT, labels, fields)
    except RefusedError as refused:
        return refused


@given(
    st.lists(REQUIREMENTS, max_size=4),
    st.dictionaries(KEYS, VALUES | NUMBERS, max_size=4),
    st.sampled_from(["", " ", "\t "]),
)
def test_a_label_selector_means_what_it_says(wanted, labels, gap):
    text = f"{gap},{gap}".join(each.written(gap) for each in wanted)
    selected = selector_of(DEPLOYMENT, text, "")(labelled(labels))
    assert selected is all(each.holds(labels) for each in wanted)


def test_what_is_compared_is_greater_or_less_and_not_equal():
    texts = ("n>1", "n<1", "n>0", "n<2")
    assert [selector_of(DEPLOYMENT, text, "")(labelled({"n": "1"})) for text in texts] == [
        False,
        False,
        True,
        True,
    ]


@given(st.text(st.sampled_from("ab1 =!,()<>-/._in\\\u0661"), max_size=12))
def test_whatever_text_is_a_selector_or_is_refused_and_never_selects_all_by_mistake(text):
    read = read_or_refused(text, "")
    if isinstance(read, RefusedError):
        assert (read.code, "unable to parse requirement" in str(read)) == (400, True)
    else:
        assert bool(read) is bool(text.strip()), "what asks for something selects something"


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "a,",
        ",a",
        "a,,b",
        "a b",
        "a=b c",
        "a=b=c",
        "a in",
        "a in b",
        "a in (b",
        "a in (b c)",
        "a in ()x",
        "a notin b)",
        "!a=b",
        "!",
        "!!a",
        "=a",
        "a===b",
        "a>x",
        "a>1.5",
        "a>",
        "a<b",
        "-a",
        "a-=b",
        "a/b/c",
        "/a",
        "a/",
        "a" * 64,
        f"a={'b' * 64}",
        "a=-b",
        "a=b\u00e9",
        "\u00e9=b",
        "a\\=b",
        "(a)",
    ],
)
def test_a_bad_label_selector_is_a_bad_request(text):
    with pytest.raises(RefusedError, match="unable to parse requirement") as refused:
        selector_of(DEPLOYMENT, text, "")
    assert refused.value.code == 400


# --- fields ----------------------------------------------------------------------------------------------


def shop(**spec: Any) -> Resource:
    return Resource("Deployment", Metadata("shop", namespace="acme"), spec=spec, status={})


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("metadata.name=shop", True),
        ("metadata.name==shop", True),
        ("metadata.name!=shop", False),
        ("metadata.name=other", False),
        ("metadata.name=shop,metadata.namespace=acme", True),
        ("metadata.name=shop,metadata.namespace!=acme", False),
        ("metadata.name=shop,metadata.name=other", False),
        (" metadata.name =shop", True),
        ("spec.version=1", True),
        ("spec.version!=1", False),
        ("spec.instances=3", True),
        ("spec.healthCheck.kind=tcp", True),
        ("spec.region=", None),
        (r"spec.version=1\,2", False),
        ("", True),
    ],
)
def test_fields_are_compared_as_text(text, selected):
    resource = shop(version="1", instances=3, healthCheck={"kind": "tcp"})
    if selected is None:
        with pytest.raises(RefusedError, match=r"field label not supported: spec\.region"):
            selector_of(DEPLOYMENT, "", text)
        return
    assert selector_of(DEPLOYMENT, "", text)(resource) is selected


def test_a_comma_an_equals_sign_and_a_backslash_are_escaped_in_a_value():
    resource = shop(version="a,b=c\\d")
    assert selector_of(DEPLOYMENT, "", r"spec.version=a\,b\=c\\d,metadata.name=shop")(resource)
    assert not selector_of(DEPLOYMENT, "", r"spec.version=a\,b\=c\\e")(resource)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metadata.labels.app=x", "field label not supported: metadata.labels.app"),
        ("metadata.uid=x", "field label not supported: metadata.uid"),
        ("spec=x", "field label not supported: spec"),
        ("spec.regions=eu", "field label not supported: spec.regions"),
        ("spec.healthCheck=x", "field label not supported: spec.healthCheck"),
        ("spec.sepc=x", "field label not supported: spec.sepc"),
        ("metadata.name", "invalid field selector"),
        ("metadata.name>x", "invalid field selector"),
        ("=x", "invalid field selector"),
        ("metadata.name=a=b", "invalid field selector"),
        (r"metadata.name=a\b", "invalid field selector"),
        ("metadata.name=a\\", "invalid field selector"),
    ],
)
def test_a_bad_field_selector_is_a_bad_request(text, words):
    with pytest.raises(RefusedError) as refused:
        selector_of(DEPLOYMENT, "", text)
    assert refused.value.code == 400
    assert words in str(refused.value)


def test_the_fields_of_a_flat_kind_stand_beside_its_metadata():
    event = Resource("Event", Metadata("e", namespace="acme"), spec={"reason": "Started", "type": "Normal"})
    assert selector_of(EVENT, "", "reason=Started,type=Normal")(event)
    assert not selector_of(EVENT, "", "reason=Stopped")(event)
    with pytest.raises(RefusedError, match=r"field label not supported: spec\.reason"):
        selector_of(EVENT, "", "spec.reason=Started")


@given(st.text(st.sampled_from("name.metadatspecvrion=!,\\ "), max_size=30))
def test_no_text_of_fields_is_ignored(text):
    read = read_or_refused("", text)
    if isinstance(read, RefusedError):
        assert read.code == 400
    else:
        assert bool(read) is bool(text.replace(",", "").strip())


# --- through the API -------------------------------------------------------------------------------------


async def test_lists_show_what_is_selected(tmp_path):
    async with served(tmp_path) as api:
        for number in range(6):
            item = manifest(f"app-{number}", version=str(number % 3))
            item["metadata"]["labels"] = {"even": str(number % 2 == 0).lower(), "n": str(number)}
            await api.ask("POST", DEPLOYMENTS, item)

        async def names(query: str) -> list[int]:
            listed = await api.ask("GET", f"{DEPLOYMENTS}?{query}")
            assert listed.code == 200, listed.body
            return [int(item["metadata"]["name"][-1]) for item in listed.body["items"]]

        assert await names("labelSelector=even%3Dtrue") == [0, 2, 4]
        assert await names("labelSelector=even%3Dtrue,n%3E1") == [2, 4]
        assert await names("labelSelector=n+in+(1,5,9)") == [1, 5]
        assert await names("labelSelector=!even") == []
        assert await names("fieldSelector=spec.version%3D1") == [1, 4]
        assert await names("fieldSelector=metadata.name%3Dapp-3") == [3]
        assert await names("fieldSelector=metadata.name!%3Dapp-3&labelSelector=even%3Dfalse") == [1, 5]
        assert await names("fieldSelector=metadata.namespace%3Dglobex") == []
        everywhere = await api.ask("GET", f"{ROOT}/deployments?fieldSelector=metadata.namespace%3Dacme")
        assert len(everywhere.body["items"]) == 6
        for query in ("labelSelector=a+b", "fieldSelector=spec.nothing%3D1"):
            for method in ("GET", "DELETE"):
                refused = await api.ask(method, f"{DEPLOYMENTS}?{query}")
                assert (refused.code, refused.body["reason"]) == (400, "BadRequest")
        assert len(await names("")) == 6
