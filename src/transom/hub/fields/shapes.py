"""How the fields of a kind are owned, read once from its structural schema (OpenAPI v3).

Objects are owned field by field, lists as a whole, unless the schema says otherwise:
`x-kubernetes-map-type: atomic`, `x-kubernetes-list-type: set` or `map` (with `x-kubernetes-list-map-keys`).
What the schema does not know is owned as if it said nothing. Next on the data's way: `walks`.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from transom.hub.fields.sets import item, keyed
from transom.model.resources import JsonObject

ListKind = Literal["atomic", "set", "map"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How values at one place are owned.

    Of an object: `fields` are those that the schema declares, `values` the shape of all others, `atomic` says
    that it is replaced whole. Of a list: `lists` says how, `items` the shape of its items, `keys` what tells
    them apart, `key_defaults` what an item means that leaves a key out.
    """

    fields: "Mapping[str, Shape]" = field(default_factory=dict[str, "Shape"])
    values: "Shape | None" = None
    items: "Shape | None" = None
    lists: ListKind = "atomic"
    keys: tuple[str, ...] = ()
    key_defaults: JsonObject = field(default_factory=dict[str, Any])
    atomic: bool = False

    def of(self, name: str) -> "Shape":
        """The shape of a field of an object."""
        return self.fields.get(name) or self.values or UNKNOWN

    @property
    def of_items(self) -> "Shape":
        """The shape of a list's items."""
        return self.items or UNKNOWN

    def elements(self, values: Sequence[Any]) -> list[str] | None:
        """The elements of a list's items, in its order; None when it is owned as a whole.

        That is so as well when an item cannot be told apart: an object in a set, one without any key.
        """
        if self.lists == "atomic":
            return None
        found: list[str] = []
        for value in values:
            element = self._element(value)
            if element is None:
                return None
            found.append(element)
        return found

    def _element(self, value: Any) -> str | None:
        if self.lists == "set":
            return None if value is None or isinstance(value, dict | list) else item(value)
        if not isinstance(value, dict):
            return None
        given = cast("JsonObject", value)
        keys = {
            name: given[name] if name in given else self.key_defaults[name]
            for name in self.keys
            if name in given or name in self.key_defaults
        }
        return keyed(keys) if keys else None


UNKNOWN = Shape()
"""What nothing is known of: objects by field, lists as a whole."""


def shape_from(schema: Mapping[str, Any]) -> Shape:
    """The shape that a structural schema describes (`model.schemas.schema_of`)."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    additional = _schema(schema.get("additionalProperties"))
    lists: ListKind = schema.get("x-kubernetes-list-type", "atomic")
    keys: tuple[str, ...] = tuple(schema.get("x-kubernetes-list-map-keys", ()))
    of_items = _schema(schema.get("items"))
    declared: Mapping[str, Any] = of_items.get("properties", {})
    return Shape(
        fields={name: shape_from(inner) for name, inner in properties.items()},
        values=shape_from(additional) if additional else None,
        items=shape_from(of_items) if of_items else None,
        lists=lists,
        keys=keys,
        key_defaults={key: declared[key]["default"] for key in keys if "default" in declared.get(key, {})},
        atomic=schema.get("x-kubernetes-map-type") == "atomic",
    )


def _schema(value: Any) -> Mapping[str, Any]:
    """A schema inside of another; nothing where there is none, or only whether anything may be there."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
