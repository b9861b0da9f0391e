"""OpenAPI: what the API takes and gives, for programs; made of what is `served`, once, when first asked for.

`/openapi/v3` names a document for each group and version, each under a hash, so that clients keep it for as
long as nothing changes. `/openapi/v2` is everything in one, for older clients, in JSON or in the protobuf of
`openapi_proto`. `kubectl explain`, its validation and its check for dry runs live on these.
https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-interface-definition
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from transom import __version__
from transom.hub.api.discovery import Document
from transom.hub.api.errors import JSON
from transom.hub.api.negotiation import AS_IT_IS, form_for, media_type_for
from transom.hub.api.openapi_proto import MEDIA_TYPE, encoded
from transom.hub.api.operations import META, SCHEMAS, definition_name, paths_of
from transom.hub.api.served import Served, by_group
from transom.model.resources import JsonObject, to_json
from transom.model.schemas import PRESERVE

_PROTOBUF_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""How clients ask for it. It is no valid media type, so it is answered under another name (`MEDIA_TYPE`)."""
_DEFINITIONS = "#/definitions/"
_INFO = {"title": "transom", "version": __version__}
_FOR_A_YEAR = "public, immutable, max-age=31536000"


class OpenApi:
    """The pages of OpenAPI for what is `served`."""

    def __init__(self, served: Iterable[Served]) -> None:
        groups = by_group(served)
        parts = [parts for versions in groups.values() for parts in versions.values()]
        self._parts = {part[0].root: part for part in parts}

    # A hub's start does not wait for these: hubs start more often than anybody explains a kind to them.

    @cached_property
    def _v3(self) -> dict[str, Document]:
        return {root: Document(to_json(document_v3(part))) for root, part in self._parts.items()}

    @cached_property
    def _index(self) -> Document:
        return Document(to_json({"paths": {root: self._told(root) for root in self._v3}}))

    @cached_property
    def _v2(self) -> dict[str, Document]:
        v2 = document_v2([one for part in self._parts.values() for one in part])
        return {JSON: Document(to_json(v2)), MEDIA_TYPE: Document(encoded(v2), MEDIA_TYPE)}

    def routes(self) -> list[Route]:
        """A route for every page."""
        return [
            Route("/openapi/v2", self.v2),
            Route("/openapi/v3", self.index),
            *(Route(f"/openapi/v3/{root}", self.v3) for root in self._parts),
        ]

    async def v2(self, request: Request) -> Response:
        """GET everything, as OpenAPI v2 (Swagger)."""
        accept = request.headers.get("accept", "").replace(_PROTOBUF_ASKED, MEDIA_TYPE)
        return self._v2[media_type_for(accept, tuple(self._v2))].answer(request)

    async def index(self, request: Request) -> Response:
        """GET {paths: {ROOT: {serverRelativeURL}}}."""
        form_for(request.headers.get("accept", ""), (AS_IT_IS,))
        return self._index.answer(request)

    async def v3(self, request: Request) -> Response:
        """GET one group and version; for good under the hash that it has now."""
        form_for(request.headers.get("accept", ""), (AS_IT_IS,))
        root = request.url.path.removeprefix("/openapi/v3/")
        document, known = self._v3[root], request.query_params.get("hash", "")
        if known and known != document.hash:
            return RedirectResponse(self._told(root)["serverRelativeURL"], 301)
        return document.answer(request, _FOR_A_YEAR if known else "no-cache, private")

    def _told(self, root: str) -> JsonObject:
        return {"serverRelativeURL": f"/openapi/v3/{root}?hash={self._v3[root].hash}"}


def document_v3(served: Sequence[Served]) -> JsonObject:
    """The OpenAPI v3.0 document of one group and version."""
    bearer = {"type": "http", "scheme": "bearer", "description": "A key or token."}
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": {path: item for one in served for path, item in paths_of(one)},
        "components": {
            "schemas": _definitions(served),
            "securitySchemes": {"BearerToken": bearer},
        },
        "security": [{"BearerToken": []}],
    }


def document_v2(served: Sequence[Served]) -> JsonObject:
    """The OpenAPI v2 document of everything; what v2 cannot say is left out."""
    bearer = {"type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer KEY"}
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": {path: _item_v2(item) for one in served for path, item in paths_of(one)},
        "definitions": {name: _schema_v2(schema) for name, schema in _definitions(served).items()},
        "securityDefinitions": {"BearerToken": bearer},
        "security": [{"BearerToken": []}],
    }


def _definitions(served: Sequence[Served]) -> dict[str, JsonObject]:
    found: dict[str, JsonObject] = {f"{META}.{name}": schema for name, schema in _SHARED.items()}
    for one in served:
        name = definition_name(one.group, one.version, one.kind)
        found[name] = one.schema
        if "list" in one.verbs:
            found[f"{name}List"] = _list_schema(one, name)
    return found


def _list_schema(one: Served, item: str) -> JsonObject:
    kind = f"{one.kind}List"
    return {
        "type": "object",
        "description": f"A list of {one.kind}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "enum": [one.api_version]},
            "kind": {"type": "string", "enum": [kind]},
            "metadata": {"$ref": f"{SCHEMAS}{META}.ListMeta"},
            "items": {"type": "array", "items": {"$ref": SCHEMAS + item}},
        },
        "x-kubernetes-group-version-kind": [{"group": one.group, "version": one.version, "kind": kind}],
    }


def _item_v2(item: Mapping[str, Any]) -> JsonObject:
    return {
        word: [_parameter_v2(one) for one in value] if word == "parameters" else _operation_v2(value)
        for word, value in item.items()
    }


def _operation_v2(operation: Mapping[str, Any]) -> JsonObject:
    told: JsonObject = {word: value for word, value in operation.items() if word != "requestBody"}
    told["parameters"] = [_parameter_v2(one) for one in operation["parameters"]]
    told["produces"] = [JSON]
    body = operation.get("requestBody")
    if body:
        told["consumes"] = list(body["content"])
        schema = next(iter(body["content"].values()))["schema"]
        told["parameters"].append(
            {"name": "body", "in": "body", "required": body["required"], "schema": _schema_v2(schema)}
        )
    told["responses"] = {
        code: {
            "description": answer["description"],
            "schema": _schema_v2(answer["content"][JSON]["schema"]),
        }
        for code, answer in operation["responses"].items()
    }
    return told


def _parameter_v2(parameter: Mapping[str, Any]) -> JsonObject:
    told = {word: value for word, value in parameter.items() if word != "schema"}
    return told | parameter["schema"]


def _schema_v2(schema: Mapping[str, Any]) -> JsonObject:
    """`schema` without what v2 has no words for.

    As Kubernetes does it: what may be null or anything has no type, because a client of v2 would refuse what
    is none of it; defaults are left to the hub.
    """
    if "oneOf" in schema:
        return {"type": "object"}
    loose = schema.get("nullable") or schema.get(PRESERVE)
    left_out = {"nullable", "default"}
    if loose:
        left_out |= {"type", "format", "items", "properties", "additionalProperties", "required", "enum"}
    told: JsonObject = {}
    for word, value in schema.items():
        if word in left_out:
            continue
        if word == "$ref":
            told[word] = value.replace(SCHEMAS, _DEFINITIONS)
        elif word == "properties":
            told[word] = {name: _schema_v2(part) for name, part in value.items()}
        elif word in ("items", "additionalProperties"):
            told[word] = _schema_v2(cast("JsonObject", value))
        else:
            told[word] = value
    return told


def _object(description: str, properties: JsonObject, **more: Any) -> JsonObject:
    return {"type": "object", "description": description, "properties": properties, **more}


_TEXT: JsonObject = {"type": "string"}
_NUMBER: JsonObject = {"type": "integer", "format": "int64"}
_LIST_META = _object(
    "What every list has.",
    {"resourceVersion": _TEXT, "continue": _TEXT, "remainingItemCount": _NUMBER},
)
_STATUS = _object(
    "The answer to what was refused, or done and left nothing to show.",
    {
        "apiVersion": _TEXT,
        "kind": _TEXT | {"enum": ["Status"]},
        "metadata": {"type": "object"},
        "status": _TEXT | {"enum": ["Success", "Failure"]},
        "message": _TEXT,
        "reason": _TEXT,
        "details": {"type": "object", PRESERVE: True},
        "code": _NUMBER,
    },
    required=["apiVersion", "kind", "status"],
)
_PRECONDITIONS = _object("What must be so for it to be done.", {"uid": _TEXT, "resourceVersion": _TEXT})
_SHARED: dict[str, JsonObject] = {
    "ListMeta": _LIST_META,
    "Status": _STATUS,
    "DeleteOptions": _object(
        "How to delete.",
        {
            "apiVersion": _TEXT,
            "kind": _TEXT | {"enum": ["DeleteOptions"]},
            "preconditions": _PRECONDITIONS,
            "propagationPolicy": _TEXT | {"enum": ["Background", "Foreground", "Orphan"]},
            "gracePeriodSeconds": _NUMBER,
            "dryRun": {"type": "array", "items": _TEXT | {"enum": ["All"]}},
        },
    ),
    "Patch": {"type": "object", "description": "What to change.", PRESERVE: True},
    "JSONPatch": {
        "type": "array",
        "description": "What to change, step by step (RFC 6902).",
        "items": _object(
            "A step.",
            {
                "op": _TEXT | {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
                "path": _TEXT,
                "from": _TEXT,
                "value": {PRESERVE: True},
            },
            required=["op", "path"],
        ),
    },
    "WatchEvent": _object(
        "What happened to a resource.",
        {
            "type": _TEXT | {"enum": ["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]},
            "object": {"type": "object", PRESERVE: True},
        },
        required=["type", "object"],
    ),
}
"""What the documents of all groups have: Kubernetes' own, under Kubernetes' names."""
