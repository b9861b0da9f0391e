"""Resources as clients write and read them: the same as stored, but for flat kinds.

The fields of a flat kind stand beside its `metadata`, as in kinds that Kubernetes made before there were
specs (`Event`); stored they are a spec like any other. Pure. Next on the data's way: `bodies` reads with
this, `rendering` shows with it.
"""

from typing import Any

import msgspec

from transom.model.kinds import Kind
from transom.model.resources import JsonObject, Resource

_ENVELOPE = ("apiVersion", "kind", "metadata")


def on_wire(kind: Kind, resource: Resource) -> Any:
    """What to encode as JSON for clients of `kind`, which may show another one (`Kind.view`)."""
    resource = kind.shown(resource)
    if not kind.flat:
        return resource
    envelope = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": resource.metadata}
    return {**resource.spec, **envelope}


def from_wire(kind: Kind, body: JsonObject) -> JsonObject:
    """What a client wrote, with a spec."""
    if not kind.flat:
        return body
    spec = {name: value for name, value in body.items() if name not in _ENVELOPE}
    return {**{name: body[name] for name in _ENVELOPE if name in body}, "spec": spec}


def object_on_wire(kind: Kind, resource: Resource) -> JsonObject:
    """The same as `on_wire`, in plain values: what a patch is applied to."""
    return msgspec.to_builtins(on_wire(kind, resource))
