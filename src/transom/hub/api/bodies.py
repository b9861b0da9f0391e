"""What was sent: a body of bounded size, read strictly as JSON or YAML, made into a resource.

Every mistake of a resource is reported at once, with its path: in the envelope (`metadata`), in the spec,
and where the two disagree with the path. Next on the data's way: `resources` turns it into a change.
"""

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from pydantic import ValidationError
from starlette.requests import Request

from transom.hub.api.errors import RefusedError
from transom.hub.api.metadata import (
    envelope_errors,
    envelope_problems,
    metadata_from,
    salvaged,
    without_nulls,
)
from transom.hub.api.options import Validation
from transom.hub.api.patches import (
    TooManyOperationsError,
    UnreadablePatchError,
    check_json_patch,
    json_patched,
)
from transom.hub.api.paths import Target
from transom.hub.api.protobuf import MEDIA_TYPE as PROTOBUF
from transom.hub.api.protobuf import read_protobuf
from transom.hub.api.wire import from_wire
from transom.hub.changes import merge
from transom.model.documents import check_plain, read_json, read_yaml
from transom.model.errors import InvalidError, Problem
from transom.model.kinds import Kind, problems_of
from transom.model.resources import JsonObject, Resource, to_json

BODY_BYTES_MAX = 512 * 1024
OBJECT_BYTES_MAX = 1024 * 1024
"""What an object may amount to after any number of patches."""
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def _read_applied(text: str) -> Any:
    """What clients apply is JSON as often as YAML, which cannot read all JSON: not a pair of surrogates."""
    try:
        return read_json(text)
    except InvalidError:
        return read_yaml(text)


_READERS = {
    "application/json": read_json,
    MERGE_PATCH: read_json,
    JSON_PATCH: read_json,
    APPLY_PATCH: _read_applied,
    "application/yaml": read_yaml,
    "application/x-yaml": read_yaml,
    "text/yaml": read_yaml,
}
_PATCHES = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)
_WHOLE = (*(name for name in _READERS if name not in _PATCHES), PROTOBUF)
_INLINE_BYTES_MAX = 16 * 1024

Patched = Callable[[JsonObject], JsonObject]
"""From an object to the object as a patch makes it. Raises `InvalidError`."""


class Read(NamedTuple):
    """A resource as it was sent, and what the client is to be warned of."""

    resource: Resource
    warnings: list[str]


async def read_resource(request: Request) -> JsonObject:
    """The object in a body of JSON, YAML or protobuf. Raises `RefusedError`: 400, 413 or 415."""
    return _object(await _value(request, _WHOLE))


def is_applied(request: Request) -> bool:
    """Whether the body is to be applied, and is no patch of any other kind."""
    return _said_media_type(request) == APPLY_PATCH


async def read_applied(request: Request) -> JsonObject:
    """The object in a body that is to be applied. Raises `RefusedError`: 400 or 413."""
    return _object(await _value(request, (APPLY_PATCH,)))


async def read_patch(request: Request) -> Patched:
    """What a JSON merge patch (RFC 7396) or a JSON patch (RFC 6902) does.

    Raises `RefusedError`: 400, 413 or 415.
    """
    said = _said_media_type(request)
    if said not in _PATCHES:
        accepted = ", ".join(_PATCHES)
        raise RefusedError(
            415,
            f"the body of the request was in an unknown format - accepted media types include: {accepted}",
        )
    value = await _value(request, _PATCHES)
    if said == MERGE_PATCH:
        return partial(_merged, patch=_object(value))
    try:
        return partial(_json_patched, operations=check_json_patch(value))
    except UnreadablePatchError as error:
        raise RefusedError(400, str(error)) from None
    except TooManyOperationsError as error:
        raise RefusedError(413, str(error)) from None


async def read_options(request: Request) -> JsonObject:
    """The options in the body of a DELETE; empty when there is no body. Raises `RefusedError`."""
    body = await _bytes(request)
    if not body.strip():
        return {}
    return _object(await _parsed(body, _media_type(request, _WHOLE)))


def resource_from(body: JsonObject, target: Target, validation: Validation = "Strict") -> Read:
    """The resource that `body` declares at `target`, its spec's defaults written out; its status as sent.

    The tenant and, when `target` has one, the name come from the path; the body may repeat them. Fields that
    the kind does not know are mistakes; but for `Strict` they are left out, and for `Warn` told.
    Raises `InvalidError` with every mistake.
    """
    body, warnings = known_part(from_wire(target.kind, without_nulls(body)), target.kind, validation)
    problems = envelope_problems(body, target.kind)
    given = body.get("metadata")
    metadata = salvaged(cast("JsonObject", given)) if isinstance(given, dict) else {}
    problems += _disagreements(metadata, target)
    metadata["name"] = target.name or metadata.get("name", "")
    metadata["namespace"] = target.namespace
    named = metadata["name"] or any(problem.path == "metadata.name" for problem in problems)
    if isinstance(given, dict) and not named:
        problems.append(Problem("metadata.name", "name or generateName is required", "Required"))
    spec, status = body.get("spec", {}), body.get("status", {})
    resource = Resource(
        kind=target.kind.name,
        metadata=metadata_from(metadata),
        spec=cast("JsonObject", spec) if isinstance(spec, dict) else {},
        status=cast("JsonObject", status) if isinstance(status, dict) else {},
    )
    try:
        resource = target.kind.validate(resource)
    except InvalidError as error:
        told = {problem.path for problem in problems}
        problems += [problem for problem in error.problems if not _is_told(problem.path, told)]
    if target.subresource and target.kind.status is not None:
        problems += _status_problems(target.kind, resource.status)
    if problems:
        raise InvalidError(f"{target.kind.name} {resource.metadata.name!r}", problems)
    return Read(resource, warnings)


def known_part(body: JsonObject, kind: Kind, validation: Validation) -> tuple[JsonObject, list[str]]:
    """The body, but for `Strict` without the fields that the kind does not know, and for `Warn` told."""
    if validation == "Strict":
        return body, []
    body, unknown = _without_unknown(body, kind)
    return body, [f'unknown field "{path}"' for path in unknown] if validation == "Warn" else []


def _merged(whole: JsonObject, patch: JsonObject) -> JsonObject:
    return _bounded(merge(whole, patch))


def _json_patched(whole: JsonObject, operations: list[JsonObject]) -> JsonObject:
    patched = json_patched(whole, operations)
    if not isinstance(patched, dict):
        raise InvalidError("the patched object", [Problem("", "is no object any more")])
    check_plain(patched, "the patched object")
    return _bounded(cast("JsonObject", patched))


def _bounded(whole: JsonObject) -> JsonObject:
    size = len(to_json(whole))
    if size > OBJECT_BYTES_MAX:
        said = f"the object would be {size} bytes; at most {OBJECT_BYTES_MAX}"
        raise InvalidError("the patched object", [Problem("", said, "TooLong")])
    return whole


def _status_problems(kind: Kind, status: JsonObject) -> list[Problem]:
    try:
        kind.status.model_validate(status)  # pyright: ignore[reportOptionalMemberAccess]
    except ValidationError as error:
        return problems_of(error, "status")
    return []


def _without_unknown(body: JsonObject, kind: Kind) -> tuple[JsonObject, list[str]]:
    """The body without the fields that the kind does not know, and their paths."""
    body = copy.deepcopy(body)
    found = [(list(item["loc"]), item["type"]) for item in _errors(envelope_errors(body))]
    if kind.spec is not None and isinstance(body.get("spec"), dict):
        try:
            kind.spec.model_validate(body["spec"])
        except ValidationError as error:
            found += [(["spec", *item["loc"]], item["type"]) for item in _errors(error)]
    unknown = [path for path, sort in found if sort == "extra_forbidden"]
    for path in unknown:
        _drop(body, path)
    told = [path[1:] if kind.flat and path[0] == "spec" else path for path in unknown]
    return body, [".".join(str(part) for part in path) for path in told]


def _errors(error: ValidationError | None) -> list[Any]:
    return [] if error is None else cast("list[Any]", error.errors())


def _drop(value: Any, path: list[Any]) -> None:
    """Remove what is at `path`; parts of it that tell which of several types was tried are not in `value`."""
    *above, last = path
    for part in above:
        if isinstance(value, dict) and part in value:
            value = cast("JsonObject", value)[part]
        elif isinstance(value, list) and isinstance(part, int):
            value = cast("list[Any]", value)[part]
    if isinstance(value, dict):
        cast("JsonObject", value).pop(last, None)


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
    said = _said_media_type(request)
    media_type = said or allowed[0]
    if media_type not in allowed:
        raise RefusedError(415, f"content type {said!r} is not supported here; use {' or '.join(allowed)}")
    return media_type


def _said_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _bytes(request: Request) -> bytes:
    """The body; what is over the limit is refused while it comes in, and never held."""
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > BODY_BYTES_MAX:
            raise RefusedError(413, f"the body is over {BODY_BYTES_MAX // 1024} KiB")
        body += part
    return bytes(body)


async def _parsed(body: bytes, media_type: str) -> Any:
    if media_type == PROTOBUF:
        return read_protobuf(body)
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
