"""Where a resource names another: the field that a refusal points at. Pure.

A kind says what its resources refer to (`Kind.references`), not where; the field is the one without which it
would not. Next on the data's way: `store_write` refuses what names something that is not there.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import msgspec

from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import JsonObject, Resource

_PLACES_MAX = 64


def field_naming(kind: Kind, resource: Resource, key: Key) -> str:
    """The path of the field by which `resource` refers to `key`; empty when it is no field of its own."""
    if kind.namespaced and key == Key("Tenant", "", resource.metadata.namespace):
        return "metadata.namespace"
    references = kind.references
    # Bounded, because each place is a copy and the text may stand anywhere in what somebody sent.
    for path, spec in islice(_without(resource.spec, key.name), _PLACES_MAX):
        other = msgspec.structs.replace(resource, spec=cast("JsonObject", spec))
        if references is not None and key not in set(references(other)):
            return f"{kind.root}{path}".removeprefix(".")
    return "metadata.name" if key.name == resource.metadata.name else ""


def _without(value: Any, text: str) -> Iterator[tuple[str, Any]]:
    """Every place where `text` stands in a value, and the value with nothing there."""
    if isinstance(value, dict):
        for name, part in cast("JsonObject", value).items():
            for path, less in _without(part, text):
                yield f".{name}{path}", {**value, name: less}
    elif isinstance(value, list):
        parts = cast("list[Any]", value)
        for number, part in enumerate(parts):
            for path, less in _without(part, text):
                yield f"[{number}]{path}", [*parts[:number], less, *parts[number + 1 :]]
    elif value == text:
        yield "", ""
