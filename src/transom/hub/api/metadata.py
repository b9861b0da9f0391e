"""What the envelope of a resource may hold: everything around its spec, as clients of Kubernetes send it.

What the hub sets itself may stand in it, as it came from a GET; null is as good as nothing. Every mistake is
told with its path. Next on the data's way: `bodies` makes a resource of it.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from transom.model.errors import Problem
from transom.model.kinds import Kind, problems_of
from transom.model.names import LABEL_KEY_RULE, LABEL_VALUE_RULE, is_label_key, is_label_value
from transom.model.resources import JsonObject, ManagedFields, Metadata

ANNOTATIONS_BYTES_MAX = 256 * 1024
_STANDARD_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _OwnerReference(_Part):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class _Metadata(_Part):
    """As `model.resources.Metadata`, and what older servers of Kubernetes said."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[_OwnerReference] = []
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    managed_fields: list[dict[str, Any]] = []
    self_link: str = ""


class _Envelope(_Part):
    api_version: Any = None
    kind: Any = None
    metadata: _Metadata
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


def without_nulls(body: JsonObject) -> JsonObject:
    """The body without what is null in the envelope, where null means nothing."""
    kept = {name: value for name, value in body.items() if value is not None or name != "status"}
    metadata = kept.get("metadata")
    if isinstance(metadata, dict):
        given = cast("JsonObject", metadata)
        kept["metadata"] = {name: value for name, value in given.items() if value is not None}
    return kept


def envelope_errors(body: JsonObject) -> ValidationError | None:
    """What pydantic finds wrong with the envelope's shape: unknown fields and wrong types."""
    try:
        _Envelope.model_validate(body)
    except ValidationError as error:
        return error
    return None


def envelope_problems(body: JsonObject, kind: Kind) -> list[Problem]:
    """What is wrong with everything but the spec."""
    problems: list[Problem] = []
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.name)):
        if field not in body and kind.is_of_kubernetes:
            continue  # typed clients leave it to the path, and Kubernetes takes it from there
        if body.get(field) != expected:
            absent = field not in body
            said = "is missing" if absent else f"expected {expected!r}, not {body[field]!r}"
            problems.append(Problem(field, said, "Required" if absent else "Invalid"))
    error = envelope_errors(body)
    if error is not None:
        problems += problems_of(error)
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        told = {problem.path for problem in problems}
        sound = salvaged(cast("JsonObject", metadata))
        problems += (problem for problem in _content_problems(sound) if problem.path not in told)
    return problems


def salvaged(metadata: JsonObject) -> JsonObject:
    """Those fields of the metadata that are as they should be, so that the rest can be checked too."""
    try:
        _Metadata.model_validate(metadata)
    except ValidationError as error:
        wrong = {item["loc"][0] for item in error.errors()}
        metadata = {name: value for name, value in metadata.items() if name not in wrong}
    return dict(metadata)


def metadata_from(given: JsonObject) -> Metadata:
    """The metadata that sound fields mean. What cannot be read of who managed what counts for nothing."""
    managed: list[ManagedFields] = []
    sent: list[JsonObject] | None = given.get("managedFields")
    # An empty list is more than none: it clears them, as one empty entry alone does.
    for entry in [{}] if sent == [] else sent or []:
        try:
            managed.append(msgspec.convert(entry, ManagedFields))
        except msgspec.ValidationError:
            continue
    owners = [
        {name: value for name, value in owner.items() if value is not None}
        for owner in given.get("ownerReferences", [])
    ]
    return msgspec.convert({**given, "managedFields": managed, "ownerReferences": owners}, Metadata)


def _content_problems(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    labels: dict[str, str] = metadata.get("labels", {})
    for key, value in labels.items():
        if not is_label_key(key):
            yield Problem("metadata.labels", f'"{key}": {LABEL_KEY_RULE}')
        if not is_label_value(value):
            yield Problem(f"metadata.labels.{key}", f'"{value}": {LABEL_VALUE_RULE}')
    annotations: dict[str, str] = metadata.get("annotations", {})
    for key in annotations:
        if not is_label_key(key):
            yield Problem("metadata.annotations", f'"{key}": {LABEL_KEY_RULE}')
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        > ANNOTATIONS_BYTES_MAX
    ):
        yield Problem(
            "metadata.annotations", f"may not be more than {ANNOTATIONS_BYTES_MAX} bytes", "TooLong"
        )
    for number, name in enumerate(metadata.get("finalizers", [])):
        if not is_label_key(name) or ("/" not in name and name not in _STANDARD_FINALIZERS):
            said = f'"{name}": must be a name after a DNS name and a slash, as example.com/name'
            yield Problem(f"metadata.finalizers[{number}]", said)
    yield from _owner_problems(metadata.get("ownerReferences", []))


def _owner_problems(owners: list[JsonObject]) -> Iterator[Problem]:
    for number, owner in enumerate(owners):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner[field]:
                yield Problem(f"metadata.ownerReferences[{number}].{field}", "must not be empty")
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        said = "Only one reference can have Controller set to true"
        yield Problem("metadata.ownerReferences", said)
