"""What was sent: a body of bounded size, read strictly as JSON or YAML, made into a resource.

Every mistake of a resource is reported at once, with its path: in the envelope (`metadata`), in the spec,
and where the two disagree with the path. Next on the data's way: `resources` turns it into a change.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request

from transom.hub.api.errors import RefusedError
from transom.hub.api.paths import Target
from transom.model.documents import read_json, read_yaml
from transom.model.errors import InvalidError, Problem
from transom.model.kinds import Kind, problems_of
from transom.model.resources import JsonObject, Metadata, Resource

BODY_BYTES_MAX = 512 * 1024
MERGE_PATCH = "application/merge-patch+json"

_READERS = {
    "application/json": read_json,
    MERGE_PATCH: read_json,
    "application/yaml": read_yaml,
    "application/x-yaml": read_yaml,
    "text/yaml": read_yaml,
}
_WHOLE = tuple(name for name in _READERS if name != MERGE_PATCH)
_INLINE_BYTES_MAX = 16 * 1024


async def read_resource(request: Request) -> JsonObject:
    """The object in a body of JSON or YAML. Raises `RefusedError`: 400, 413 or 415."""
    return _object(await _value(request, _WHOLE))


async def read_patch(request: Request) -> JsonObject:
    """The object in a JSON merge patch (RFC 7396). Raises `RefusedError`: 400, 413 or 415."""
    return _object(await _value(request, (MERGE_PATCH,)))


async def read_preconditions(request: Request) -> tuple[str, str]:
    """The resourceVersion and uid that a DELETE asks for, each "" for any. Raises `RefusedError`."""
    body = await _bytes(request)
    if not body.strip():
        return "", ""
    options = _object(await _parsed(body, _media_type(request, _WHOLE)))
    # What kubectl and the clients made from the Kubernetes API's description send along.
    unknown = set(options) - {"kind", "apiVersion", "preconditions"}
    if unknown:
        raise RefusedError(400, "the body of a delete may hold preconditions {uid, resourceVersion} alone")
    wanted = _object(options.get("preconditions", {}))
    strange = set(wanted) - {"uid", "resourceVersion"}
    if strange or not all(isinstance(value, str) for value in wanted.values()):
        raise RefusedError(400, "preconditions are uid and resourceVersion, both text")
    return wanted.get("resourceVersion", ""), wanted.get("uid", "")


def resource_from(body: JsonObject, target: Target) -> Resource:
    """The resource that `body` declares at `target`, its spec's defaults written out.

    The tenant and, when `target` has one, the name come from the path; the body may repeat them.
    Raises `InvalidError` with every mistake.
    """
    problems = envelope_problems(body, target.kind)
    metadata = _salvaged(body.get("metadata"))
    problems += _disagreements(metadata, target)
    metadata.setdefault("name", target.name)
    metadata["namespace"] = target.namespace
    spec = body.get("spec", {})
    resource = Resource(
        kind=target.kind.name,
        metadata=msgspec.convert(metadata, Metadata),
        spec=cast("JsonObject", spec) if isinstance(spec, dict) else {},
    )
    try:
        resource = target.kind.validate(resource)
    except InvalidError as error:
        told = {problem.path for problem in problems}
        problems += [problem for problem in error.problems if not _is_told(problem.path, told)]
    if problems:
        raise InvalidError(f"{target.kind.name} {resource.metadata.name!r}", problems)
    return resource


def envelope_problems(body: JsonObject, kind: Kind) -> list[Problem]:
    """What is wrong with everything but the spec: unknown fields and wrong types."""
    problems: list[Problem] = []
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.name)):
        if body.get(field) != expected:
            said = "is missing" if field not in body else f"expected {expected!r}, not {body[field]!r}"
            problems.append(Problem(field, said))
    try:
        _Envelope.model_validate(body)
    except ValidationError as error:
        problems += problems_of(error)
    return problems


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _OwnerReference(_Part):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class _Metadata(_Part):
    """As `model.resources.Metadata`; what the hub sets itself may stand in it, as it came from a GET."""

    name: str = ""
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


class _Envelope(_Part):
    api_version: Any = None
    kind: Any = None
    metadata: _Metadata
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


def _salvaged(metadata: Any) -> JsonObject:
    """Those fields of the metadata that are as they should be, so that the rest can be checked too."""
    if not isinstance(metadata, dict):
        return {}
    given = cast("JsonObject", metadata)
    try:
        _Metadata.model_validate(given)
    except ValidationError as error:
        wrong = {item["loc"][0] for item in error.errors()}
        given = {name: value for name, value in given.items() if name not in wrong}
    return dict(given)


def _disagreements(metadata: Mapping[str, Any], target: Target) -> Iterator[Problem]:
    for field, expected in (("name", target.name), ("namespace", target.namespace)):
        said = metadata.get(field, "")
        if said and said != expected and (expected or field == "namespace"):
            there = repr(expected) if expected else "none"
            yield Problem(f"metadata.{field}", f"{said!r} is not what the path says ({there})")


def _is_told(path: str, told: set[str]) -> bool:
    """Whether `path`, or what it is a part of, was reported already."""
    return any(path == known or path.startswith((f"{known}.", f"{known}[")) for known in told)


def _object(value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise RefusedError(400, "the body must be an object: { … } in JSON, name: value in YAML")
    return cast("JsonObject", value)


async def _value(request: Request, media_types: tuple[str, ...]) -> Any:
    media_type = _media_type(request, media_types)
    return await _parsed(await _bytes(request), media_type)


def _media_type(request: Request, allowed: tuple[str, ...]) -> str:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    media_type = said or allowed[0]
    if media_type not in allowed:
        raise RefusedError(415, f"content type {said!r} is not supported here; use {' or '.join(allowed)}")
    return media_type


async def _bytes(request: Request) -> bytes:
    """The body; what is over the limit is refused while it comes in, and never held."""
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > BODY_BYTES_MAX:
            raise RefusedError(413, f"the body is over {BODY_BYTES_MAX // 1024} KiB")
        body += part
    return bytes(body)


async def _parsed(body: bytes, media_type: str) -> Any:
    try:
        text = body.decode()
        if len(body) <= _INLINE_BYTES_MAX:
            return _READERS[media_type](text)
        # Half a megabyte of YAML takes long enough for everyone else to notice.
        return await asyncio.to_thread(_READERS[media_type], text)
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8 (byte {error.start})") from None
    except InvalidError as error:
        raise RefusedError(400, f"{error.what} {error.problems[0].message}") from None
