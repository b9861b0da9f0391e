"""The structural OpenAPI v3 schema of a kind, made of the classes that check its resources.

One source for all that is said of a kind's fields: what `/openapi/v3` and `kubectl explain` show, and what a
merge by field managers knows of lists (`x-kubernetes-list-type`, given by `Field(json_schema_extra=…)`).
Structural means: every node has a type, no references, nothing that only some values of a field would have.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema

Next on the data's way: `hub.api.openapi` publishes it, `hub.fields` merges by it.
"""

import functools
import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter

from transom.model.errors import InvalidError, Problem
from transom.model.kinds import Kind
from transom.model.names import LABEL_CHARACTERS_MAX, SUBDOMAIN_CHARACTERS_MAX
from transom.model.resources import JsonObject

PRESERVE = "x-kubernetes-preserve-unknown-fields"
GROUP_VERSION_KIND = "x-kubernetes-group-version-kind"

_KEPT = (
    "type",
    "description",
    "format",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
)
"""What means the same in JSON schema 2020-12 and in OpenAPI v3.0."""
_FORMATS = {"integer": "int64", "number": "double"}
_ONE_LINE = re.compile(r"(?<!\n)\n(?!\n)")


def schema_of(kind: Kind) -> JsonObject:
    """The schema of whole resources of `kind`: apiVersion, kind, metadata, spec and status.

    A status that no class describes may hold anything. A flat kind has its spec's fields beside `metadata`.
    Raises `InvalidError` when a class refers to itself: a structural schema ends somewhere.
    """
    spec = _schema_of_class(kind.spec, kind) if kind.spec is not None else None
    status = _schema_of_class(kind.status, kind) if kind.status is not None else None
    schema: JsonObject = {"type": "object"}
    described = next((part["description"] for part in (spec, status) if part and "description" in part), "")
    if described:
        schema["description"] = described
    properties: JsonObject = {
        "apiVersion": {"type": "string", "description": _API_VERSION, "enum": [kind.api_version]},
        "kind": {"type": "string", "description": _KIND, "enum": [kind.name]},
        "metadata": metadata_schema(kind),
    }
    required = ["apiVersion", "kind", "metadata"]
    if spec is not None and kind.flat:
        properties |= spec.get("properties", {})
        required += spec.get("required", [])
    elif spec is not None:
        properties["spec"] = spec
        required += ["spec"] if spec.get("required") else []
    if has_status(kind):
        properties["status"] = status or {"type": "object", "description": _STATUS, PRESERVE: True}
    schema |= {"properties": properties, "required": required}
    schema[GROUP_VERSION_KIND] = [{"group": kind.group, "version": kind.version, "kind": kind.name}]
    return schema


def has_status(kind: Kind) -> bool:
    """Whether resources of `kind` have a status, and with it the subresource `status`."""
    return not kind.flat and (kind.status is not None or bool(kind.status_owner))


def metadata_schema(kind: Kind | None = None) -> JsonObject:
    """The schema of `metadata`; with the rule for names, when it is that of one kind."""
    metadata: JsonObject = {"type": "object", "description": _METADATA}
    properties = {name: {**schema} for name, schema in _METADATA_PROPERTIES.items()}
    if kind is not None:
        most = SUBDOMAIN_CHARACTERS_MAX if kind.dotted_names else LABEL_CHARACTERS_MAX
        properties["name"]["maxLength"] = most
    return metadata | {"properties": properties}


@functools.lru_cache(maxsize=128)
def _schema_of_class(model: type[BaseModel], kind: Kind) -> JsonObject:
    """Of one class; asked for by all that is said of a kind, and slow to make. Nobody changes it."""
    raw = TypeAdapter(model).json_schema(by_alias=True, mode="validation")
    return _Inlining(cast("JsonObject", raw.get("$defs", {})), kind).structural(raw, ())


class _Inlining:
    """From pydantic's JSON schema of one class to a structural one."""

    def __init__(self, definitions: Mapping[str, JsonObject], kind: Kind) -> None:
        self._definitions = definitions
        self._kind = kind

    def structural(self, raw: Mapping[str, Any], within: tuple[str, ...]) -> JsonObject:
        """The schema `raw`, as it stands inside the definitions `within`."""
        raw, within = self._resolved(raw, within)
        choices = cast("list[JsonObject]", raw.get("anyOf") or raw.get("oneOf") or ())
        if choices:
            return self._one_of(raw, choices, within)
        schema: JsonObject = {word: raw[word] for word in _KEPT if word in raw}
        schema |= {word: value for word, value in raw.items() if word.startswith("x-")}
        if "description" in schema:
            schema["description"] = _flowing(schema["description"])
        if "const" in raw:
            schema["enum"] = [raw["const"]]
        if "pattern" in raw:
            # Pydantic's own word for the end of a text; ECMA 262, which OpenAPI means, has only this one.
            schema["pattern"] = raw["pattern"].replace(r"\z", "$")
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if exclusive in raw:  # a number here, a flag beside the bound in OpenAPI v3.0
                schema |= {bound: raw[exclusive], exclusive: True}
        self._parts(schema, raw, within)
        return schema

    def _parts(self, schema: JsonObject, raw: Mapping[str, Any], within: tuple[str, ...]) -> None:
        """What is inside an object or a list; and what is neither typed nor known any closer."""
        kind = schema.get("type")
        if not isinstance(kind, str):
            schema.pop("type", None)
            schema[PRESERVE] = True
        elif kind in _FORMATS:
            schema.setdefault("format", _FORMATS[kind])
        elif kind == "array":
            schema["items"] = self.structural(raw.get("items", {}), within)
        elif kind == "object" and "properties" in raw:
            schema["properties"] = {
                name: self.structural(part, within) for name, part in raw["properties"].items()
            }
        elif kind == "object":
            values = raw.get("additionalProperties", True)
            if isinstance(values, Mapping) and values:
                schema["additionalProperties"] = self.structural(cast("JsonObject", values), within)
            elif values:
                schema[PRESERVE] = True

    def _one_of(
        self, raw: Mapping[str, Any], choices: list[JsonObject], within: tuple[str, ...]
    ) -> JsonObject:
        """A value of several types: one that may be null, a number or text, or else anything."""
        around = {word: value for word, value in raw.items() if word not in ("anyOf", "oneOf")}
        some = [choice for choice in choices if choice.get("type") != "null"]
        nullable = len(some) < len(choices)
        if nullable and around.get("default", 0) is None:
            del around["default"]
        if len(some) == 1:
            schema = self.structural({**some[0], **around}, within)
        else:
            schema = self.structural(around, within)
            if {choice.get("type") for choice in some} == {"integer", "string"}:
                del schema[PRESERVE]
                schema["x-kubernetes-int-or-string"] = True
        if nullable:
            schema["nullable"] = True
        return schema

    def _resolved(
        self, raw: Mapping[str, Any], within: tuple[str, ...]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """`raw` with what it refers to written out; what stands beside the reference wins."""
        while "$ref" in raw:
            name = str(raw["$ref"]).rpartition("/")[2]
            if name in within:
                circle = " -> ".join((*within[within.index(name) :], name))
                wrong = f"refers to itself through {circle}; write a depth out, or use dict[str, Any]"
                raise InvalidError(f"the schema of {self._kind.name}", [Problem(name, wrong)])
            within = (*within, name)
            beside = {word: value for word, value in raw.items() if word != "$ref"}
            raw = {**self._definitions[name], **beside}
        return raw, within


def _flowing(text: str) -> str:
    """A docstring as text that flows: what is only a new line of the source is none."""
    return _ONE_LINE.sub(" ", cleandoc(text))


def _text(description: str, **more: Any) -> JsonObject:
    return {"type": "string", "description": description, **more}


def _count(description: str) -> JsonObject:
    return {"type": "integer", "format": "int64", "description": description}


def _texts(description: str) -> JsonObject:
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


_API_VERSION = "Group and version of the API that the resource is written in."
_KIND = "What type of resource this is."
_STATUS = "What is true of the resource, as far as is known. Written by who observes it, never by its author."
_METADATA = "What every resource has: its name, its tenant, its labels, and what the hub notes about it."
_OWNER_PROPERTIES: dict[str, JsonObject] = {
    "apiVersion": _text("Group and version of the owner."),
    "kind": _text("Kind of the owner."),
    "name": _text("Name of the owner."),
    "uid": _text("The owner's uid; another resource of its name is no owner."),
    "controller": {"type": "boolean", "description": "Whether the owner manages the resource."},
    "blockOwnerDeletion": {
        "type": "boolean",
        "description": "Whether the owner, deleted in the foreground, waits until the resource is gone.",
    },
}
_MANAGED_PROPERTIES: dict[str, JsonObject] = {
    "manager": _text("Who set the fields."),
    "operation": _text("How: Apply, or Update for every other way."),
    "apiVersion": _text("Group and version in which the fields are named."),
    "time": _text("When the entry last changed.", format="date-time"),
    "fieldsType": _text("Format of fieldsV1: FieldsV1."),
    "fieldsV1": {"type": "object", "description": "The fields, as a tree of names.", PRESERVE: True},
    "subresource": _text("The subresource through which they were set, if it was one."),
}
_METADATA_PROPERTIES: dict[str, JsonObject] = {
    "name": _text("The resource's name, unique among its kind in its tenant. Cannot be changed."),
    "generateName": _text("A beginning for a name that the hub completes, when no name is given."),
    "namespace": _text("The tenant that the resource belongs to. Cannot be changed."),
    "labels": _texts("Names and values to select resources by."),
    "annotations": _texts("Names and values that people and programs note about the resource."),
    "finalizers": {
        "type": "array",
        "description": "Who must still clean up before the resource, once deleted, is gone.",
        "items": {"type": "string"},
        "x-kubernetes-list-type": "set",
    },
    "ownerReferences": {
        "type": "array",
        "description": "The resources that this one was made for; it is deleted when all of them are gone.",
        "items": {
            "type": "object",
            "properties": _OWNER_PROPERTIES,
            "required": ["apiVersion", "kind", "name", "uid"],
            "x-kubernetes-map-type": "atomic",
        },
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["uid"],
    },
    "uid": _text("Tells the resource from every other, also of its name. Set by the hub."),
    "resourceVersion": _text("Revision of the hub's store at which the resource last changed."),
    "generation": _count("How often the spec was written. Set by the hub."),
    "creationTimestamp": _text("When it was created. Set by the hub.", format="date-time"),
    "deletionTimestamp": _text(
        "When its deletion was asked for; it is gone once its finalizers are.", format="date-time"
    ),
    "deletionGracePeriodSeconds": _count("Not used: what is deleted is gone once its finalizers are."),
    "managedFields": {
        "type": "array",
        "description": "Which manager set which fields. Kept by the hub.",
        "items": {"type": "object", "properties": _MANAGED_PROPERTIES},
        "x-kubernetes-list-type": "atomic",
    },
}
