"""Server-side apply for tests: a schema with every way to own, and an object with those who manage it."""

from typing import Any

from transom.hub.fields.managers import APPLY, UPDATE, Manager, apply, update
from transom.hub.fields.sets import FieldSet, spoken
from transom.hub.fields.shapes import shape_from

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
PORT = {
    "type": "object",
    "properties": {"port": NUMBER, "protocol": {**TEXT, "default": "TCP"}, "name": TEXT, "weight": NUMBER},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "size": NUMBER,
        "title": TEXT,
        "labels": {"type": "object", "additionalProperties": TEXT},
        "limits": {"type": "object", "properties": {"cpu": NUMBER, "disk": NUMBER}},
        "whole": {"type": "object", "additionalProperties": TEXT, "x-kubernetes-map-type": "atomic"},
        "command": {"type": "array", "items": TEXT},
        "regions": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        "ports": {
            "type": "array",
            "items": PORT,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
        },
        "zones": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "driver": TEXT,
                    "tags": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
                },
            },
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    },
}
SHAPE = shape_from(SCHEMA)


def applier(name: str) -> Manager:
    return Manager(name, APPLY)


def updater(name: str) -> Manager:
    return Manager(name, UPDATE, "v1")


def told(fields: FieldSet) -> set[str]:
    return {spoken(path) for path in fields}


class World:
    """One object, and those who manage it."""

    def __init__(self) -> None:
        self.live: Any = {}
        self.managers: dict[Manager, FieldSet] = {}

    def apply(self, name: str, value: Any, *, force: bool = False) -> None:
        self.live, self.managers = apply(SHAPE, self.live, self.managers, value, applier(name), force=force)

    def update(self, name: str, value: Any) -> None:
        self.managers = update(SHAPE, self.live, value, self.managers, updater(name)).managers
        self.live = value

    def applied_by(self, name: str) -> set[str]:
        return told(self.managers.get(applier(name), frozenset()))

    def updated_by(self, name: str) -> set[str]:
        return told(self.managers.get(updater(name), frozenset()))
