"""How resources become answers: whole, as a Table, or their metadata alone; and flat kinds both ways."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from transom.hub.api.errors import RefusedError
from transom.hub.api.rendering import rendering_for
from transom.hub.api.tables import human_duration
from transom.hub.api.wire import from_wire, object_on_wire
from transom.model.kinds import Column, Kind, Spec
from transom.model.resources import Metadata, Resource, to_json

NOW = 1_700_000_000.0
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
OLD_TABLE = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class DoorSpec(Spec):
    colour: str = "red"


DOOR = Kind("Door", "doors", DoorSpec, columns=(Column("COLOUR", lambda door: door.spec["colour"]),))
FLAT = Kind("Door", "doors", DoorSpec, flat=True)


def door(name="front", colour="red", revision="7"):
    metadata = Metadata(
        name, "acme", "u1", resource_version=revision, creation_timestamp="2023-11-14T22:08:20Z"
    )
    return Resource("Door", metadata, "transom.dev/v1", {"colour": colour})


def render(accept="", answers="one", kind=DOOR, query=""):
    headers = [(b"accept", accept.encode())] if accept else []
    scope = {"type": "http", "headers": headers, "query_string": query.encode(), "path": "/"}
    return rendering_for(Request(scope), kind, answers, lambda: NOW)


def listed(rendering, *doors):
    items = b",".join(rendering.item(to_json(each)) for each in doors)
    return msgspec.json.decode(rendering.opening({"resourceVersion": "9"}) + items + rendering.closing)


def watched(rendering, *doors):
    return [msgspec.json.decode(rendering.line("ADDED", to_json(each))) for each in doors]


def test_whole_resources_are_shown_as_they_are_stored():
    assert render().as_stored
    assert render().one(door()) == to_json(door())
    shown = listed(render(answers="list"), door("a"), door("b"))
    assert (shown["kind"], shown["apiVersion"]) == ("DoorList", "transom.dev/v1")
    assert shown["metadata"] == {"resourceVersion": "9"}
    assert [item["metadata"]["name"] for item in shown["items"]] == ["a", "b"]
    told = watched(render(answers="watch"), door())
    assert told == [{"type": "ADDED", "object": msgspec.to_builtins(door())}]
    bookmark = msgspec.json.decode(render(answers="watch").bookmark({"resourceVersion": "9"}))
    kind = {"kind": "Door", "apiVersion": "transom.dev/v1"}
    assert bookmark == {"type": "BOOKMARK", "object": {**kind, "metadata": {"resourceVersion": "9"}}}


def test_a_flat_kind_has_no_spec_for_clients():
    rendering = render(kind=FLAT)
    assert not rendering.as_stored
    shown = msgspec.json.decode(rendering.one(door()))
    assert set(shown) == {"apiVersion", "kind", "metadata", "colour"}
    assert listed(render(kind=FLAT, answers="list"), door())["items"] == [shown]
    assert watched(render(kind=FLAT, answers="watch"), door())[0]["object"] == shown


def test_a_list_as_a_table():
    table = listed(render(TABLE, "list"), door("a"), door("b", "blue"))
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["metadata"] == {"resourceVersion": "9"}
    columns = [(column["name"], column["type"]) for column in table["columnDefinitions"]]
    assert columns == [("Name", "string"), ("Colour", "string"), ("Age", "date")]
    assert [row["cells"] for row in table["rows"]] == [["a", "red", "5m"], ["b", "blue", "5m"]]
    shown = table["rows"][0]["object"]
    assert (shown["kind"], shown["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert shown["metadata"]["name"] == "a"
    assert "spec" not in shown


def test_one_resource_as_a_table_has_its_revision():
    table = msgspec.json.decode(render(OLD_TABLE).one(door()))
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1beta1")
    assert table["metadata"] == {"resourceVersion": "7"}
    assert table["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"


def test_a_watch_as_tables_names_the_columns_once():
    rendering = render(TABLE, "watch")
    first, second = watched(rendering, door("a"), door("b", revision="8"))
    assert (first["type"], first["object"]["kind"]) == ("ADDED", "Table")
    assert len(first["object"]["columnDefinitions"]) == 3
    assert "columnDefinitions" not in second["object"]
    assert second["object"]["metadata"] == {"resourceVersion": "8"}
    assert second["object"]["rows"][0]["cells"] == ["b", "red", "5m"]
    marked = {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}
    bookmark = msgspec.json.decode(rendering.bookmark(marked))
    assert bookmark["object"]["metadata"] == {"resourceVersion": "9"}
    assert bookmark["object"]["rows"][0]["object"]["metadata"] == marked
    assert len(bookmark["object"]["rows"][0]["cells"]) == 3


@pytest.mark.parametrize("include", ["None", "Metadata", "Object", ""])
def test_what_goes_with_a_row(include):
    for kind in (DOOR, FLAT):
        table = listed(render(TABLE, "list", kind, f"includeObject={include}"), door())
        shown = table["rows"][0]["object"]
        if include == "None":
            assert shown is None
        elif include == "Object":
            assert (shown["kind"], "spec" in shown) == ("Door", not kind.flat)
        else:
            assert shown["kind"] == "PartialObjectMetadata"
    with pytest.raises(RefusedError, match="must be one of None, Metadata, Object, not 'Everything'"):
        render(TABLE, query="includeObject=Everything")


def test_metadata_alone():
    shown = msgspec.json.decode(render(PARTIAL).one(door()))
    assert set(shown) == {"kind", "apiVersion", "metadata"}
    assert (shown["kind"], shown["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert shown["metadata"]["uid"] == "u1"
    many = listed(render(PARTIALS, "list"), door("a"), door("b"))
    assert (many["kind"], len(many["items"])) == ("PartialObjectMetadataList", 2)
    assert many["items"][0] == msgspec.json.decode(render(PARTIAL).one(door("a")))
    watch = render(PARTIAL, "watch")
    assert watched(watch, door())[0]["object"] == shown
    bookmark = msgspec.json.decode(watch.bookmark({"resourceVersion": "9"}))
    assert bookmark["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    ("accept", "answers"),
    [
        (PARTIALS, "one"),
        (PARTIAL, "list"),
        (PARTIALS, "watch"),
        ("application/vnd.kubernetes.protobuf", "one"),
        ("application/yaml", "list"),
    ],
)
def test_what_there_is_not_is_refused(accept, answers):
    with pytest.raises(RefusedError) as caught:
        render(accept, answers)
    assert caught.value.code == 406


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "<invalid>"),
        (-1.5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (599, "9m59s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (13_980, "3h53m"),
        (28_799, "7h59m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (691_199, "7d23h"),
        (694_800, "8d"),
        (63_071_999, "729d"),
        (63_072_000, "2y"),
        (64_000_000, "2y10d"),
        (252_288_000, "8y"),
        (400_000_000, "12y"),
    ],
)
def test_ages_in_the_words_of_kubernetes(seconds, said):
    assert human_duration(seconds) == said


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text(), max_size=3))
def test_what_is_shown_of_a_flat_kind_is_read_back(spec):
    spec = {name: value for name, value in spec.items() if name not in ("apiVersion", "kind", "metadata")}
    held = msgspec.structs.replace(door(), spec=spec)
    back = from_wire(FLAT, object_on_wire(FLAT, held))
    assert back == {**msgspec.to_builtins(held), "spec": spec}
    assert from_wire(DOOR, msgspec.to_builtins(held)) == object_on_wire(DOOR, held)
