"""An OpenAPI v2 document in protobuf, which is all that kubectl reads of `/openapi/v2`.

Every client made with Kubernetes' Go library decodes this answer as protobuf, whatever it says it is; old
ones (before OpenAPI v3) cannot explain, validate or apply without it. The messages are those of gnostic's
`openapiv2/OpenAPIv2.proto`, the encoding is protobuf's own (https://protobuf.dev/programming-guides/encoding/):
fields by their number, and no library. Only what `openapi.document_v2` says is known here; another word is a
fault of ours. Pure.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from transom.model.resources import to_json

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

_VARINT, _FIXED64, _BYTES = 0, 1, 2

Encode = Callable[[int, Any], bytes]
"""From a field's number and its value to its bytes, number and all."""


def encoded(document: Mapping[str, Any]) -> bytes:
    """`document` as gnostic's message `Document`."""
    return _fields(document, _DOCUMENT)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # seven bits a byte
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _bytes(number: int, value: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _truth(number: int, value: bool) -> bytes:  # noqa: FBT001
    return _tag(number, _VARINT) + _varint(int(value))


def _count(number: int, value: int) -> bytes:
    return _tag(number, _VARINT) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _tag(number, _FIXED64) + struct.pack("<d", value)


def _any(number: int, value: Any) -> bytes:
    """Gnostic's `Any`: the value as YAML, of which JSON is a part."""
    return _bytes(number, _bytes(2, to_json(value)))


def _each(one: Encode) -> Encode:
    """A repeated field."""

    def encode(number: int, values: Iterable[Any]) -> bytes:
        return b"".join(one(number, value) for value in values)

    return encode


def _message(table: Mapping[str, tuple[int, Encode]]) -> Encode:
    return lambda number, value: _bytes(number, _fields(value, table))


def _within(inner: int, encode: Encode) -> Encode:
    """A message whose one field has the number `inner`."""
    return lambda number, value: _bytes(number, encode(inner, value))


def _named(encode: Encode, inner: int = 1) -> Encode:
    """A map: a message whose field `inner` is repeated, each with a name (1) and a value (2)."""

    def encode_all(number: int, values: Mapping[str, Any]) -> bytes:
        pairs = (_bytes(inner, _text(1, name) + encode(2, value)) for name, value in values.items())
        return _bytes(number, b"".join(pairs))

    return encode_all


_EXTENSIONS = "x-"
"""How the words begin that OpenAPI leaves to others; a message has one field for all of them."""


def _extension(number: int, named: tuple[str, Any]) -> bytes:
    name, value = named
    return _bytes(number, _text(1, name) + _any(2, value))


def _fields(value: Mapping[str, Any], table: Mapping[str, tuple[int, Encode]]) -> bytes:
    """The fields of a message, in the order of their numbers."""
    found: list[tuple[int, bytes]] = []
    for word, part in value.items():
        if word.startswith(_EXTENSIONS):
            number, encode = table[_EXTENSIONS]
            found.append((number, encode(number, (word, part))))
        else:
            number, encode = table[word]
            found.append((number, encode(number, part)))
    return b"".join(data for _, data in sorted(found, key=lambda field: field[0]))


def _schema(number: int, value: Mapping[str, Any]) -> bytes:
    return _bytes(number, _fields(value, _SCHEMA))


_SCHEMA: dict[str, tuple[int, Encode]] = {
    "$ref": (1, _text),
    "format": (2, _text),
    "description": (4, _text),
    "multipleOf": (6, _double),
    "maximum": (7, _double),
    "exclusiveMaximum": (8, _truth),
    "minimum": (9, _double),
    "exclusiveMinimum": (10, _truth),
    "maxLength": (11, _count),
    "minLength": (12, _count),
    "pattern": (13, _text),
    "maxItems": (14, _count),
    "minItems": (15, _count),
    "uniqueItems": (16, _truth),
    "maxProperties": (17, _count),
    "minProperties": (18, _count),
    "required": (19, _each(_text)),
    "enum": (20, _each(_any)),
    "additionalProperties": (21, _within(1, _schema)),
    "type": (22, _within(1, _text)),
    "items": (23, _within(1, _schema)),
    "properties": (25, _named(_schema)),
    _EXTENSIONS: (31, _extension),
}
_IN_QUERY: dict[str, tuple[int, Encode]] = {
    "required": (1, _truth),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (6, _text),
    "format": (7, _text),
    "maximum": (11, _double),
    "minimum": (13, _double),
    "maxLength": (15, _count),
    "minLength": (16, _count),
    "enum": (21, _each(_any)),
}
_IN_PATH: dict[str, tuple[int, Encode]] = {
    "required": (1, _truth),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (5, _text),
    "format": (6, _text),
    "maxLength": (14, _count),
    "minLength": (15, _count),
}
_IN_BODY: dict[str, tuple[int, Encode]] = {
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _truth),
    "schema": (5, _schema),
}


def _parameter(number: int, value: Mapping[str, Any]) -> bytes:
    """`ParametersItem`: of a body, or of the query or the path, each a message inside others."""
    parameter: Encode = {
        "body": _within(1, _within(1, _message(_IN_BODY))),
        "query": _within(1, _within(2, _within(3, _message(_IN_QUERY)))),
        "path": _within(1, _within(2, _within(4, _message(_IN_PATH)))),
    }[value["in"]]
    return parameter(number, value)


_RESPONSE: dict[str, tuple[int, Encode]] = {"description": (1, _text), "schema": (2, _within(1, _schema))}
_OPERATION: dict[str, tuple[int, Encode]] = {
    "tags": (1, _each(_text)),
    "description": (3, _text),
    "operationId": (5, _text),
    "produces": (6, _each(_text)),
    "consumes": (7, _each(_text)),
    "parameters": (8, _each(_parameter)),
    "responses": (9, _named(_within(1, _message(_RESPONSE)))),
    _EXTENSIONS: (13, _extension),
}
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_PATH: dict[str, tuple[int, Encode]] = {
    **{method: (number, _message(_OPERATION)) for method, number in _METHODS.items()},
    "parameters": (9, _each(_parameter)),
}
_KEY: dict[str, tuple[int, Encode]] = {
    "type": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "description": (4, _text),
}
_DOCUMENT: dict[str, tuple[int, Encode]] = {
    "swagger": (1, _text),
    "info": (2, _message({"title": (1, _text), "version": (2, _text)})),
    "paths": (8, _named(_message(_PATH), inner=2)),
    "definitions": (9, _named(_schema)),
    "security": (12, _each(_named(_within(1, _each(_text))))),
    "securityDefinitions": (13, _named(_within(2, _message(_KEY)))),
}
