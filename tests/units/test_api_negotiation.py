"""Which representation an `Accept` header gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.hub.api.errors import RefusedError
from transom.hub.api.negotiation import AS_IT_IS, Form, form_for, media_type_for

TABLE = Form("meta.k8s.io", "v1", "Table")
OLD_TABLE = Form("meta.k8s.io", "v1beta1", "Table")
FORMS = (AS_IT_IS, TABLE, OLD_TABLE)
AS_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
AS_OLD_TABLE = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", AS_IT_IS),
        ("*/*", AS_IT_IS),
        ("application/*", AS_IT_IS),
        ("Application/JSON", AS_IT_IS),
        (AS_TABLE, TABLE),
        ("application/json; g=meta.k8s.io ; v=v1; as=Table", TABLE),
        (f"{AS_TABLE},{AS_OLD_TABLE},application/json", TABLE),
        (f"application/json;q=0.5,{AS_OLD_TABLE};q=0.9", OLD_TABLE),
        (f"{AS_TABLE};q=0, application/json", AS_IT_IS),
        ("application/json;as=Table;v=v2;g=meta.k8s.io, application/json", AS_IT_IS),
        ("application/vnd.kubernetes.protobuf, application/json", AS_IT_IS),
        ("application/json;stream=watch", AS_IT_IS),
        ("text/html, */*;q=0.1", AS_IT_IS),
    ],
)
def test_the_first_that_can_be_given_decides(accept: str, form: Form) -> None:
    assert form_for(accept, FORMS) == form


@pytest.mark.parametrize(
    "accept",
    [
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "text/*",
        "application/json;q=0",
        "application/json;q=much",
        "application/json;as=Table;v=v2;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ],
)
def test_what_cannot_be_given_is_refused_with_what_can(accept: str) -> None:
    with pytest.raises(RefusedError, match="only the following media types are accepted: ") as caught:
        form_for(accept, FORMS)
    assert caught.value.code == 406
    assert "application/json;g=meta.k8s.io;v=v1;as=Table" in str(caught.value)


def test_one_of_several_media_types() -> None:
    both = ("application/json", "text/plain")
    assert media_type_for("", both) == "application/json"
    assert media_type_for("*/*", both) == "application/json"
    assert media_type_for("text/plain, application/json;q=0.9", both) == "text/plain"
    with pytest.raises(RefusedError, match="application/json, text/plain"):
        media_type_for("image/png", both)


@given(st.text(max_size=200))
def test_any_header_is_answered_or_refused(accept: str) -> None:
    for wanted in (accept, f"{AS_TABLE},{accept}", f"application/json;{accept}"):
        try:
            assert form_for(wanted, FORMS) in FORMS
        except RefusedError as error:
            assert error.code == 406  # noqa: PT017


def test_a_header_of_many_clauses_is_read_no_further_than_anyone_needs() -> None:
    with pytest.raises(RefusedError):
        form_for("text/html," * 64 + "application/json", FORMS)
