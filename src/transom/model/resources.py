"""A resource is what someone declared (`spec`) and what is true of it (`status`).

The conventions are those of the Kubernetes API, so that people and tools already know them:
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
`metadata.namespace` is the tenant. Next on the data's way: `kinds` says what a spec may hold.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from transom.model.names import Key

API_GROUP = "transom.dev"
API_VERSION = f"{API_GROUP}/v1"

JsonObject = dict[str, Any]


class OwnerReference(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Points from a resource to the one it was made for; always of the same namespace.

    `block_owner_deletion`: an owner deleted in the foreground waits until this one is gone.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/
    """

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ManagedFields(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Which fields one manager set, and how ("Apply" or "Update"), of the resource or a `subresource` of it.

    An empty one stands alone in what somebody writes who wants all of them removed.
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """

    manager: str = ""
    operation: str = ""
    api_version: str = ""
    time: str = ""
    fields_type: str = ""
    fields_v1: JsonObject = {}
    subresource: str = ""


class Metadata(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What every resource has. `generation` rises with the spec only, `resource_version` with every write."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    managed_fields: list[ManagedFields] = []
    generate_name: str = ""
    deletion_grace_period_seconds: int | None = None


class Condition(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One statement about a resource: `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int | None = None


class Resource(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A declared thing. `spec` and `status` are JSON objects; a kind's schema gives them types."""

    kind: str
    metadata: Metadata
    api_version: str = msgspec.field(default="", name="apiVersion")
    spec: JsonObject = {}
    status: JsonObject = {}

    @property
    def key(self) -> Key:
        """Which resource this is."""
        return Key(self.kind, self.metadata.namespace, self.metadata.name)

    @property
    def owner(self) -> OwnerReference | None:
        """The resource this one was made for, if one was."""
        return next((ref for ref in self.metadata.owner_references if ref.controller), None)

    @property
    def deleting(self) -> bool:
        """Whether its deletion was asked for and waits for finalizers."""
        return self.metadata.deletion_timestamp is not None

    def with_metadata(self, **changes: Any) -> "Resource":
        """The same with some metadata replaced."""
        return msgspec.structs.replace(self, metadata=msgspec.structs.replace(self.metadata, **changes))

    def with_status(self, status: JsonObject) -> "Resource":
        """The same with its status replaced."""
        return msgspec.structs.replace(self, status=status)

    def desired(self) -> "Resource":
        """What a region is told: everything but the status, the revision of the last status write, and who
        manages which field.
        """
        return self.with_metadata(resource_version="", managed_fields=[]).with_status({})

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type in the status, if it is there."""
        return next((found for found in conditions_of(self.status) if found.type == kind), None)


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Resource)


def to_json(value: Any) -> bytes:
    """Canonical JSON: equal values give equal bytes, whatever order their keys were given in."""
    return _encoder.encode(value)


def from_json(data: bytes) -> Resource:
    """Read a resource that `to_json` wrote. Raises what `errors.UNREADABLE` says."""
    return _decoder.decode(data)


def conditions_of(status: Mapping[str, Any]) -> list[Condition]:
    """The conditions of a status."""
    return msgspec.convert(status.get("conditions", []), list[Condition])


def with_conditions(old: Mapping[str, Any], conditions: Iterable[Condition], now: str) -> list[JsonObject]:
    """Conditions for a new status; the time of one whose `status` did not change is kept from `old`."""
    before = {condition.type: condition for condition in conditions_of(old)}
    result: list[JsonObject] = []
    for condition in conditions:
        held = before.get(condition.type)
        since = held.last_transition_time if held and held.status == condition.status else now
        result.append(msgspec.to_builtins(msgspec.structs.replace(condition, last_transition_time=since)))
    return result
