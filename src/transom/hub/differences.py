"""What differs between two states of a resource, path by path, in all that is declared of it.

Pure. A path goes down through objects; lists are compared as a whole. Status and what the hub keeps itself
(revisions, times, field managers) are left out. Next on the data's way: `api.history` tells it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from transom.model.resources import JsonObject, Resource

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DECLARED = ("labels", "annotations", "finalizers", "ownerReferences")


def differences(before: Resource | None, after: Resource | None) -> list[JsonObject]:
    """[{path, old, new}], by path; `old` is absent where there was nothing, `new` where there is nothing."""
    return list(_below(_declared(before), _declared(after), ""))


def _declared(resource: Resource | None) -> JsonObject:
    if resource is None:
        return {"metadata": {}, "spec": {}}
    whole: JsonObject = msgspec.to_builtins(resource)
    metadata: JsonObject = whole["metadata"]
    return {
        "metadata": {name: metadata[name] for name in _DECLARED if name in metadata},
        "spec": whole.get("spec", {}),
    }


def _below(before: JsonObject, after: JsonObject, path: str) -> Iterator[JsonObject]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if name in before and name in after and old == new:
            continue
        there = _joined(path, name)
        if _are_objects(old, new):
            yield from _below(cast("JsonObject", old or {}), cast("JsonObject", new or {}), there)
            continue
        said: JsonObject = {"path": there}
        if name in before:
            said["old"] = old
        if name in after:
            said["new"] = new
        yield said


def _are_objects(old: Any, new: Any) -> bool:
    """Whether to look inside: two objects, or one that came or went with something in it."""
    parts = [part for part in (old, new) if part is not None]
    return all(isinstance(part, Mapping) for part in parts) and any(parts)


def _joined(path: str, name: str) -> str:
    if not _PLAIN.match(name):
        return f"{path}[{msgspec.json.encode(name).decode()}]"
    return f"{path}.{name}" if path else name
