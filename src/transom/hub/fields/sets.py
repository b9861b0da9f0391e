"""Sets of fields: which places of an object somebody manages, and how managedFields writes them (FieldsV1).

A field is a path of elements from the top of the object, each as FieldsV1 writes it: `f:NAME` a field of an
object, `k:{"KEY":VALUE}` the item of a keyed list, `v:VALUE` the item of a set, `i:NUMBER` an item by its
place. A set holds the paths themselves; that `f:spec` leads to a field does not put `f:spec` into it. Plain
frozen sets, so that union, intersection and difference are Python's own.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/ (FieldsV1)
Next on the data's way: `walks` finds the sets of objects.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import msgspec

from transom.model.errors import UNREADABLE
from transom.model.resources import JsonObject, to_json

Path = tuple[str, ...]
FieldSet = frozenset[Path]

NONE: Final[FieldSet] = frozenset()
ITSELF: Final = "."
"""Says, beside what is in it, that a place itself is managed."""


def to_fields_v1(fields: Iterable[Path]) -> JsonObject:
    """The set as FieldsV1 writes it: {"f:spec": {"f:env": {".": {}, "f:A": {}}}}."""
    tree: JsonObject = {}
    managed: list[JsonObject] = []
    for path in fields:
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        managed.append(node)
    for node in managed:
        if node:  # one with nothing in it says by that alone that it is managed
            node[ITSELF] = {}
    return tree


def from_fields_v1(tree: object) -> FieldSet:
    """The set that FieldsV1 wrote; elements of a kind that is not known are left out.

    Raises `ValueError` for what is no FieldsV1.
    """
    return frozenset(_read(_node(tree), ())) - {()}


def _read(node: JsonObject, path: Path) -> Iterator[Path]:
    if not node or ITSELF in node:
        yield path
    for text, inner in node.items():
        if text == ITSELF:
            continue
        element = _element(text)
        if element is not None:
            yield from _read(_node(inner), (*path, element))


def _node(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise ValueError("fieldsV1 holds something other than objects")  # noqa: TRY004
    return cast("JsonObject", value)


def _element(text: str) -> str | None:
    """One element, written as we write it; None for one that a later Kubernetes may know."""
    mark, colon, rest = text[:1], text[1:2], text[2:]
    if colon != ":":
        raise ValueError(f"fieldsV1: {text!r} has no colon after its first letter")
    if mark == "f":
        return text
    if mark not in "kvi":
        return None
    try:
        value = msgspec.json.decode(rest)
    except UNREADABLE:
        raise ValueError(f"fieldsV1: {text!r} does not hold JSON") from None
    if mark == "k" and not isinstance(value, dict):
        raise ValueError(f"fieldsV1: the key {text!r} is no object")
    return f"{mark}:{to_json(value).decode()}"


def field(name: str) -> str:
    """The element of a field of an object."""
    return f"f:{name}"


def item(value: Any) -> str:
    """The element of an item of a set."""
    return f"v:{to_json(value).decode()}"


def keyed(keys: JsonObject) -> str:
    """The element of an item of a keyed list."""
    return f"k:{to_json(keys).decode()}"


def spoken(path: Path) -> str:
    """A field as messages name it: `.spec.zones[name="a"].driver`, `.metadata.finalizers[="x"]`."""
    return "".join(_spoken(element) for element in path)


def _spoken(element: str) -> str:
    mark, rest = element[0], element[2:]
    if mark == "f":
        return f".{rest}"
    if mark == "k":
        keys: JsonObject = msgspec.json.decode(rest)
        return f"[{','.join(f'{name}={to_json(value).decode()}' for name, value in keys.items())}]"
    return f"[={rest}]" if mark == "v" else f"[{rest}]"
