"""Resources as a Table: what `kubectl get` prints, with columns that the hub makes.

The columns are the resource's name, those of its kind, and its age, in Kubernetes' words for how long ago
something was (`5m30s`, `3d4h`).
https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
Next on the data's way: `rendering`, which chooses between this and others.
"""

from collections.abc import Callable
from typing import Any, Literal

from transom.hub.api.wire import on_wire
from transom.model.kinds import Kind
from transom.model.resources import JsonObject, Resource
from transom.model.times import read_time

Include = Literal["None", "Metadata", "Object"]

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 31_536_000


def human_duration(seconds: float) -> str:
    """How long something took, in at most two units and about three digits, as kubectl says it.

    (`HumanDuration` of k8s.io/apimachinery/pkg/util/duration.) A clock that is behind gives a time that is
    not over yet: up to a second of it is 0s, more is `<invalid>`.
    """
    whole = int(seconds)
    if seconds < 0:
        return "0s" if whole >= -1 else "<invalid>"
    # Below each bound: the unit to say it in, and a smaller one for what is left over.
    for below, unit, name, rest, rest_name in (
        (2 * _MINUTE, 1, "s", 0, ""),
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    ):
        if whole < below:
            left = whole % unit // rest if rest else 0
            return f"{whole // unit}{name}" + (f"{left}{rest_name}" if left else "")
    return f"{whole // _YEAR}y"


class Tables:
    """Tables of one kind, as `api_version` of them says; `now` gives the seconds since 1970.

    `include` says what of a resource goes with its row.
    """

    def __init__(self, kind: Kind, api_version: str, include: Include, now: Callable[[], float]) -> None:
        self._kind = kind
        self._api_version = api_version
        self._include: Include = include
        self._now = now

    def head(self) -> JsonObject:
        """Everything of a table but its metadata and its rows."""
        return self.headless() | {"columnDefinitions": self._columns()}

    def headless(self) -> JsonObject:
        """The same without columns: for all but the first table of a watch."""
        return {"kind": "Table", "apiVersion": self._api_version}

    def row(self, resource: Resource) -> JsonObject:
        """The row of a resource."""
        resource = self._kind.shown(resource)
        cells = [resource.metadata.name, *(column.show(resource) for column in self._kind.columns)]
        return {"cells": [*cells, self._age(resource)], "object": self._object(resource)}

    def bookmark(self, metadata: JsonObject) -> JsonObject:
        """The row that carries a bookmark: a resource that has nothing but this metadata."""
        cells = ["" for _ in self._kind.columns]
        shown = {"kind": self._kind.name, "apiVersion": self._kind.api_version, "metadata": metadata}
        return {
            "cells": ["", *cells, "<unknown>"],
            # Its metadata are all there is to a bookmark: without them it would say nothing.
            "object": shown if self._include == "Object" else self._partial(metadata),
        }

    def _columns(self) -> list[JsonObject]:
        texts = [
            {"name": column.title.capitalize(), "type": "string", "format": "", "description": ""}
            for column in self._kind.columns
        ]
        name = {"name": "Name", "type": "string", "format": "name"}
        name["description"] = f"The name of the {self._kind.name}, unique in its tenant."
        age = {"name": "Age", "type": "date", "format": "", "description": "How long ago it was created."}
        return [{**column, "priority": 0} for column in (name, *texts, age)]

    def _age(self, resource: Resource) -> str:
        created = resource.metadata.creation_timestamp
        return human_duration(self._now() - read_time(created)) if created else "<unknown>"

    def _object(self, resource: Resource) -> Any:
        if self._include == "None":
            return None
        if self._include == "Object":
            return on_wire(self._kind, resource)
        return self._partial(resource.metadata)

    def _partial(self, metadata: Any) -> JsonObject:
        return {"kind": "PartialObjectMetadata", "apiVersion": self._api_version, "metadata": metadata}
