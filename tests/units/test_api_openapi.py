"""The OpenAPI documents: complete, true, and readable by who asks for protobuf."""

import struct
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_parts import KEY, served
from transom.catalog.kinds import shipped
from transom.hub.api.applying import FieldManagement
from transom.hub.api.openapi import document_v2, document_v3
from transom.hub.api.openapi_proto import MEDIA_TYPE, encoded
from transom.hub.api.operations import definition_name
from transom.hub.api.served import Served, served_of
from transom.model import schemas
from transom.model.resources import to_json
from transom.model.schemas import schema_of

SERVED = [served_of(kind) for kind in shipped().faces]
V3, V2 = document_v3(SERVED), document_v2(SERVED)
DEPLOYMENT = "dev.transom.v1.Deployment"
ONE = "/apis/transom.dev/v1/namespaces/{namespace}/deployments/{name}"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


async def get(api, path, accept="application/json", **headers):
    headers = {"Authorization": f"Bearer {KEY}", "Accept": accept, **headers}
    url = api.address + path
    async with api.session.get(url, headers=headers, allow_redirects=False) as response:
        return response.status, await response.read(), response.headers


def operations(document) -> Iterator[tuple[str, str, dict]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def references(part) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_whoever_makes_something_of_schemas_leaves_them_as_they_are():
    """They are made once, for all who ask."""
    catalog = shipped()
    schemas._schema_of_class.cache_clear()
    before = [to_json(schema_of(kind)) for kind in catalog.faces]
    FieldManagement(catalog)
    again = [served_of(kind) for kind in catalog.faces]
    assert (document_v3(again), encoded(document_v2(again))) == (V3, encoded(V2))
    assert [to_json(schema_of(kind)) for kind in catalog.faces] == before


# --- what is said ----------------------------------------------------------------------------------------


def test_whatever_is_referred_to_is_there():
    for document, root, found in (
        (V3, "#/components/schemas/", V3["components"]["schemas"]),
        (V2, "#/definitions/", V2["definitions"]),
    ):
        named = set(references(document))
        assert len(named) > 20
        for reference in named:
            assert reference.startswith(root)
            assert reference.removeprefix(root) in found


def test_every_operation_says_what_it_is_about_and_what_it_answers():
    names = [operation["operationId"] for _, _, operation in operations(V3)]
    assert len(names) == len(set(names)) > 50
    for path, method, operation in operations(V3):
        assert {"400", "401", "403", "404", "406", "500"} <= set(operation["responses"]), path
        assert operation["x-kubernetes-action"]
        name = definition_name(**operation["x-kubernetes-group-version-kind"])
        assert name in V3["components"]["schemas"]
        given = V3["paths"][path].get("parameters", [])
        assert {f"{{{one['name']}}}" for one in given} == {part for part in path.split("/") if "{" in part}
        assert ("requestBody" in operation) == (method in ("post", "put", "patch", "delete"))


def test_what_kubectl_looks_for_before_it_sends_a_dry_run_or_has_fields_checked():
    for document in (V3, V2):
        patch = document["paths"][ONE]["patch"]
        kind = {"group": "transom.dev", "version": "v1", "kind": "Deployment"}
        assert patch["x-kubernetes-group-version-kind"] == kind
        assert {"dryRun", "fieldValidation", "fieldManager", "force"} <= {
            parameter["name"] for parameter in patch["parameters"]
        }


def test_what_only_a_region_writes_can_only_be_read():
    found = {(path, method) for path, method, _ in operations(V3) if "/instances" in path}
    root = "/apis/transom.dev/v1"
    many = f"{root}/namespaces/{{namespace}}/instances"
    paths = (f"{root}/instances", many, f"{many}/{{name}}", f"{many}/{{name}}/status")
    assert found == {(path, "get") for path in paths}


def test_v2_says_no_more_than_it_has_words_for():
    spec = V2["definitions"][DEPLOYMENT]["properties"]["spec"]["properties"]
    assert "default" not in spec["instances"]
    tenant = V2["definitions"]["dev.transom.v1.Tenant"]["properties"]["spec"]["properties"]
    assert "type" not in tenant["regions"], "it may be null"
    assert tenant["regions"]["description"]
    body = V2["paths"][ONE]["put"]["parameters"][-1]
    assert (body["in"], body["schema"]) == ("body", {"$ref": f"#/definitions/{DEPLOYMENT}"})
    assert V2["paths"][ONE]["put"]["consumes"] == ["application/json", "application/yaml"]
    for part in walk(V2):
        assert not {"nullable", "oneOf", "anyOf", "requestBody", "content"} & set(part)


def walk(part) -> Iterator[dict]:
    """Every object in `part`, but for the names of fields and definitions."""
    if isinstance(part, dict):
        yield part
        for word, value in part.items():
            if word in ("properties", "definitions"):
                for inner in value.values():
                    yield from walk(inner)
            elif word != "enum":
                yield from walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from walk(value)


# --- how it is served --------------------------------------------------------------------------------------


async def test_a_document_for_each_group_and_version_under_its_hash(api):
    code, index, _ = await get(api, "/openapi/v3")
    told = msgspec.json.decode(index)["paths"]["apis/transom.dev/v1"]["serverRelativeURL"]
    assert (code, told.split("?")[0]) == (200, "/openapi/v3/apis/transom.dev/v1")
    code, body, headers = await get(api, told)
    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert DEPLOYMENT in msgspec.json.decode(body)["components"]["schemas"]
    assert "immutable" in headers["Cache-Control"]
    code, again, headers = await get(api, told.split("?")[0])
    assert (code, again) == (200, body)
    assert "immutable" not in headers["Cache-Control"], "without its hash it is whatever it is now"
    assert (await get(api, told, **{"If-None-Match": headers["ETag"]}))[0] == 304
    code, _, headers = await get(api, f"{told}0")
    assert (code, headers["Location"]) == (301, told)
    assert (await get(api, told, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"))[0] == 406
    assert (await get(api, "/openapi/v3/apis/nobody.dev/v1"))[0] == 404


async def test_everything_at_once_for_older_clients(api):
    code, body, headers = await get(api, "/openapi/v2")
    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert msgspec.json.decode(body)["swagger"] == "2.0"
    for accept in (PROTOBUF, MEDIA_TYPE, f"{PROTOBUF},application/json"):
        code, proto, headers = await get(api, "/openapi/v2", accept)
        assert (code, headers["Content-Type"]) == (200, MEDIA_TYPE)
        assert proto != body
    assert (await get(api, "/openapi/v2", PROTOBUF, **{"If-None-Match": headers["ETag"]}))[0] == 304
    assert (await get(api, "/openapi/v2", "text/html"))[0] == 406


async def test_every_operation_answers_as_it_says(api):
    _, index, _ = await get(api, "/openapi/v3")
    documents = [(await get(api, f"/openapi/v3/{root}"))[1] for root in msgspec.json.decode(index)["paths"]]
    every = [each for document in documents for each in operations(msgspec.json.decode(document))]
    for path, method, operation in every:
        url = path.replace("{namespace}", "acme").replace("{name}", "nothing")
        for body in (None, {}, []):
            answer = await api.ask(method.upper(), url, body)
            assert str(answer.code) in operation["responses"], (method, path, answer.code, answer.body)
            if answer.code >= 400:
                assert answer.body["kind"] == "Status"


# --- protobuf ----------------------------------------------------------------------------------------------


def fields(data: bytes) -> list[tuple[int, object]]:
    """The fields of a protobuf message, by the rules of its encoding alone: number, and number or bytes."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 0:
            found.append((number, varint()))
        elif wire_type == 1:
            found.append((number, struct.unpack("<d", data[at : at + 8])[0]))
            at += 8
        else:
            assert wire_type == 2
            size = varint()
            assert at + size <= len(data)
            found.append((number, data[at : at + size]))
            at += size
    return found


def inside(data: bytes, *numbers: int) -> list:
    """The values of the fields that these numbers lead to, one message inside the other."""
    values = [data]
    for number in numbers:
        values = [value for one in values for found, value in fields(one) if found == number]
    return values


def named(data: bytes, name: str, *numbers: int) -> bytes:
    """The value of the pair of this name, in the map that the numbers lead to."""
    (found,) = [pair for pair in inside(data, *numbers) if inside(pair, 1) == [name.encode()]]
    return inside(found, 2)[0]


def test_protobuf_says_the_same_by_the_numbers_of_gnostic():
    data = encoded(V2)
    assert inside(data, 1) == [b"2.0"]
    assert inside(data, 9, 1, 1) == [name.encode() for name in V2["definitions"]]
    assert inside(data, 8, 2, 1) == [path.encode() for path in V2["paths"]]
    schema = named(data, DEPLOYMENT, 9, 1)
    spec = named(schema, "spec", 25, 1)
    assert inside(spec, 19) == [b"app", b"version", b"command", b"regions"]
    instances = named(spec, "instances", 25, 1)
    assert inside(instances, 22, 1) == [b"integer"]
    assert inside(instances, 7) == [100.0]
    assert inside(instances, 4) == [b"How many instances run in each region."]
    regions = named(spec, "regions", 25, 1)
    assert inside(regions, 15) == [1]
    assert inside(regions, 23, 1, 22, 1) == [b"string"]
    extension = named(regions, "x-kubernetes-list-type", 31)
    assert msgspec.json.decode(inside(extension, 2)[0]) == "set"
    patch = inside(named(data, ONE, 8, 2), 8)[0]
    assert inside(patch, 5) == [V2["paths"][ONE]["patch"]["operationId"].encode()]
    queries = [parameter["name"] for parameter in V2["paths"][ONE]["patch"]["parameters"][:-1]]
    assert inside(patch, 8, 1, 2, 3, 4) == [name.encode() for name in queries]
    assert inside(patch, 8, 1, 1, 2) == [b"body"]
    assert inside(named(data, ONE, 8, 2), 9, 1, 2, 4, 4) == [b"name", b"namespace"]
    kind = msgspec.json.decode(inside(named(patch, "x-kubernetes-group-version-kind", 13), 2)[0])
    assert kind["kind"] == "Deployment"
    conflict = named(patch, "409", 9, 1)
    assert inside(conflict, 1, 2, 1, 1) == [b"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Status"]


@given(
    st.dictionaries(st.text(min_size=1, max_size=300), st.text(max_size=300), max_size=4),
    st.integers(min_value=0, max_value=2**63 - 1),
)
def test_texts_and_numbers_of_any_size_are_encoded(descriptions, most):
    schemas = {
        name: {"type": "string", "description": text, "maxLength": most}
        for name, text in descriptions.items()
    }
    data = encoded({"definitions": schemas})
    for name, text in descriptions.items():
        schema = named(data, name, 9, 1)
        assert inside(schema, 4) == [text.encode()]
        assert inside(schema, 11) == [most]


def test_what_has_no_number_is_a_fault_and_not_left_out():
    with pytest.raises(KeyError, match="nullable"):
        encoded({"definitions": {"a": {"nullable": True}}})


def test_what_is_only_created_has_no_path_of_its_own():
    review = Served("authorization.k8s.io", "v1", "reviews", "Review", False, ("create",), {"type": "object"})
    document = document_v3([review])
    assert list(document["paths"]) == ["/apis/authorization.k8s.io/v1/reviews"]
    assert list(document["paths"]["/apis/authorization.k8s.io/v1/reviews"]) == ["post"]
    assert "io.k8s.authorization.v1.Review" in document["components"]["schemas"]
