"""The structural schema of a kind: what becomes of everything that a spec's class may say."""

import re
from typing import Annotated, Any, Literal, Optional

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, create_model

from transom.catalog.kinds import shipped
from transom.model.errors import InvalidError
from transom.model.kinds import Kind, Spec
from transom.model.resources import ManagedFields, Metadata, OwnerReference
from transom.model.schemas import GROUP_VERSION_KIND, PRESERVE, metadata_schema, schema_of

Label = Annotated[str, AfterValidator(str.lower), Field(json_schema_extra={"maxLength": 63})]
Listed = Field(
    default_factory=list,
    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
)


class Hinge(Spec):
    """What a door
    turns on.

    There are many.
    """

    name: Label
    oiled: bool = False


class DoorSpec(Spec):
    """What closes a room."""

    colour: str = Field(pattern=r"^[a-z]+\z", min_length=1)
    """The colour, in lower
    case.
    """
    height: float = Field(gt=0, le=4, default=2)
    hinges: list[Hinge] = Listed
    main_hinge: Hinge = Hinge(name="a")
    """The first."""
    spare: Hinge | None = None
    notes: dict[str, str] = Field(default_factory=dict)
    anything: Any = None
    freely: dict[str, Any] = Field(default_factory=dict)
    port: int | str = 80
    what: int | bool = 1
    opens: Literal["in", "out"] = "in"
    material: Literal["wood"] = "wood"
    maximum: Annotated[int, Field(lt=9)] | None = None


class DoorStatus(BaseModel):
    """Whether it is open."""

    open: bool = False


DOOR = Kind("Door", "doors", DoorSpec, status=DoorStatus, status_owner="api", dotted_names=True)


def spec_of(kind: Kind) -> dict[str, Any]:
    return schema_of(kind)["properties"]["spec"]


def test_the_whole_object() -> None:
    schema = schema_of(DOOR)
    assert schema["description"] == "What closes a room."
    assert schema["required"] == ["apiVersion", "kind", "metadata", "spec"]
    assert schema[GROUP_VERSION_KIND] == [{"group": "transom.dev", "version": "v1", "kind": "Door"}]
    assert list(schema["properties"]) == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert schema["properties"]["kind"]["enum"] == ["Door"]
    assert schema["properties"]["metadata"]["properties"]["name"]["maxLength"] == 253
    assert schema["properties"]["status"]["properties"]["open"]["type"] == "boolean"


def test_a_status_that_no_class_describes_may_hold_anything_and_one_that_nobody_writes_is_none() -> None:
    properties = schema_of(Kind("Door", "doors", DoorSpec, status_owner="door-controller"))["properties"]
    assert properties["status"]["type"] == "object"
    assert properties["status"][PRESERVE] is True
    assert "status" not in schema_of(Kind("Door", "doors", DoorSpec))["properties"]


def test_a_flat_kind_has_its_fields_beside_the_metadata() -> None:
    schema = schema_of(Kind("Door", "doors", DoorSpec, flat=True, status_owner="api"))
    assert {"metadata", "colour", "hinges"} <= set(schema["properties"])
    assert not {"spec", "status"} & set(schema["properties"])
    assert schema["required"] == ["apiVersion", "kind", "metadata", "colour"]


def test_a_kind_without_spec_is_described_by_its_status() -> None:
    schema = schema_of(Kind("Door", "doors", None, status=DoorStatus, status_owner="region"))
    assert "spec" not in schema["properties"]
    assert schema["description"] == "Whether it is open."
    assert schema["required"] == ["apiVersion", "kind", "metadata"]


def test_constraints_are_said_as_openapi_says_them() -> None:
    fields = spec_of(DOOR)["properties"]
    assert fields["colour"] == {
        "type": "string",
        "pattern": "^[a-z]+$",
        "minLength": 1,
        "description": "The colour, in lower case.",
    }
    assert fields["height"] == {
        "type": "number",
        "format": "double",
        "default": 2,
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 4,
    }
    assert fields["maximum"] == {
        "type": "integer",
        "format": "int64",
        "nullable": True,
        "maximum": 9,
        "exclusiveMaximum": True,
    }
    assert fields["opens"] == {"type": "string", "enum": ["in", "out"], "default": "in"}
    assert fields["material"] == {"type": "string", "enum": ["wood"], "default": "wood"}


def test_what_is_referred_to_is_written_out_with_what_stands_beside_the_reference() -> None:
    fields = spec_of(DOOR)["properties"]
    hinge = {
        "type": "object",
        "description": "What a door turns on.\n\nThere are many.",
        "properties": {
            "name": {"type": "string", "maxLength": 63},
            "oiled": {"type": "boolean", "default": False},
        },
        "required": ["name"],
    }
    first = {"description": "The first.", "default": {"name": "a", "oiled": False}}
    assert fields["mainHinge"] == {**hinge, **first}
    assert fields["spare"] == {**hinge, "nullable": True}
    assert fields["hinges"] == {
        "type": "array",
        "items": hinge,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }


def test_what_has_no_one_type_is_said_to_hold_anything() -> None:
    fields = spec_of(DOOR)["properties"]
    assert fields["notes"]["additionalProperties"] == {"type": "string"}
    assert fields["anything"] == {"default": None, PRESERVE: True}
    assert fields["freely"] == {"type": "object", PRESERVE: True}
    assert fields["port"] == {"default": 80, "x-kubernetes-int-or-string": True}
    assert fields["what"] == {"default": 1, PRESERVE: True}


class Tree(Spec):
    branches: "list[Tree]"


class Wood(Spec):
    trees: list[Tree]


def test_a_class_that_refers_to_itself_is_refused() -> None:
    with pytest.raises(InvalidError, match="the schema of Wood is invalid: Tree: refers to itself through"):
        schema_of(Kind("Wood", "woods", Wood))


def test_metadata_has_every_field_that_resources_have() -> None:
    fields = metadata_schema()["properties"]
    assert names(Metadata) <= set(fields)
    assert names(ManagedFields) == set(fields["managedFields"]["items"]["properties"])
    assert names(OwnerReference) <= set(fields["ownerReferences"]["items"]["properties"])


def names(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def nodes(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every schema inside `schema`, with its path."""
    inside = [(f"{path}.{name}", part) for name, part in schema.get("properties", {}).items()]
    inside += [(f"{path}[]", schema[word]) for word in ("items", "additionalProperties") if word in schema]
    return [(path, schema)] + [node for where, part in inside for node in nodes(part, where)]


def check_structural(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        assert isinstance(node.get("type", "any"), str), path
        assert "type" in node or PRESERVE in node or "x-kubernetes-int-or-string" in node, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "$defs", "title", "const"} & set(node), path
        assert node.get("additionalProperties", {}) is not False, path
        if "pattern" in node:
            re.compile(node["pattern"])
        if node.get("type") == "array":
            assert "items" in node, path


@pytest.mark.parametrize("kind", list(shipped().faces), ids=lambda kind: kind.qualified)
def test_the_schema_of_every_kind_that_ships_is_structural_and_described(kind: Kind) -> None:
    schema = schema_of(kind)
    check_structural(schema)
    for path, node in nodes(schema):
        assert node.get("description") or path.endswith("[]"), f"{kind.name}{path} is not described"


_SCALARS = st.sampled_from([int, str, bool, float, Any, Literal["a", "b"], Label, int | str])


def part(fields: dict[str, Any]) -> type[Spec]:
    return create_model("Part", __base__=Spec, **{name: (of, ...) for name, of in fields.items()})


_TYPES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda of: list[of]),
        inner.map(lambda of: dict[str, of]),
        inner.map(lambda of: Optional[of]),  # noqa: UP045
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(part),
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(fields=st.dictionaries(st.sampled_from(["one", "two", "three"]), _TYPES, max_size=3))
def test_any_class_becomes_a_structural_schema(fields: dict[str, Any]) -> None:
    schema = schema_of(Kind("Thing", "things", part(fields)))
    check_structural(schema)
    assert set(schema["properties"]["spec"].get("properties", {})) == set(fields)
