"""What may be asked at each path of the API: methods, parameters, bodies and answers, for OpenAPI v3.

Pure, made of `served`. Every answer that a verb may give is told, refusals too, so that who tests the API by
this description alone finds nothing that it does not say. Next on the data's way: `openapi` puts it together.
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
"""

from collections.abc import Iterator, Sequence
from typing import Any

from transom.hub.api.served import Served
from transom.model.resources import JsonObject
from transom.model.schemas import GROUP_VERSION_KIND

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
SCHEMAS = "#/components/schemas/"

_JSON = "application/json"
_YAML = "application/yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"

_ANY = ("400", "401", "403", "404", "406", "429", "500", "503", "504")
"""What any verb may answer besides what was asked for."""
_BODY = ("413", "415", "422")
_WRITE = (*_BODY, "409", "507")
_REFUSALS = {
    "400": "The request is wrong: its query, its body, or how they are written.",
    "401": "The key or token is missing, or not good.",
    "403": "The caller may not do this, or nobody may through the API.",
    "404": "There is no such resource.",
    "405": "Not this method at this path.",
    "406": "There is no representation that the client accepts.",
    "409": "It exists already, or is another version than the one that was meant.",
    "410": "What was asked for is no longer kept; begin again from a list.",
    "413": "The body is too large.",
    "415": "The body is of a type that is not supported here.",
    "422": "What was sent is wrong; the causes say where.",
    "429": "Too many requests; Retry-After says when to ask again.",
    "500": "A fault of the hub; its log says why.",
    "503": "The hub cannot answer just now; Retry-After says when to ask again.",
    "504": "It took longer than the timeout that the request gave itself.",
    "507": "The disk is full.",
}
_TEXT: JsonObject = {"type": "string"}
_TRUTH: JsonObject = {"type": "boolean"}
_COUNT: JsonObject = {"type": "integer", "minimum": 0}


def _in_query(name: str, schema: JsonObject, description: str) -> JsonObject:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_ALWAYS = (
    _in_query("pretty", _TRUTH, "Whether the answer is indented."),
    _in_query("timeout", _TEXT, "How long it may take, as 30s."),
)
_INCLUDE = _in_query(
    "includeObject",
    _TEXT | {"enum": ["None", "Metadata", "Object"]},
    "What of each resource goes with the rows of a Table.",
)
_REVISION = _in_query("resourceVersion", _TEXT, "The revision to list at, to watch from, or to wait for.")
_DRY_RUN = _in_query("dryRun", _TEXT | {"enum": ["All"]}, "All: do everything but keep it.")
_WHY = _in_query("why", _TEXT | {"maxLength": 1000}, "The reason for the change, kept in the history.")
_WRITING = (
    *_ALWAYS,
    _DRY_RUN,
    _WHY,
    _in_query("fieldManager", _TEXT | {"maxLength": 128}, "Who sets the fields, by the name it goes by."),
    _in_query(
        "fieldValidation",
        _TEXT | {"enum": ["Ignore", "Warn", "Strict"]},
        "What becomes of unknown and of repeated fields: dropped, dropped with a warning, refused.",
    ),
)
_FORCE = _in_query("force", _TRUTH, "Whether an apply takes fields from other managers. Only for apply.")
_SELECTING = (
    _in_query("labelSelector", _TEXT, "Only resources whose labels match."),
    _in_query("fieldSelector", _TEXT, "Only resources whose fields match."),
    _in_query("limit", _COUNT, "At most so many; `continue` in the answer says how to go on."),
    _in_query("continue", _TEXT, "Where to go on: from the answer before."),
    _REVISION,
    _in_query(
        "resourceVersionMatch",
        _TEXT | {"enum": ["Exact", "NotOlderThan"]},
        "How resourceVersion is meant in a list.",
    ),
    _in_query("timeoutSeconds", _COUNT, "How long a watch lasts."),
)
_LISTING = (
    *_ALWAYS,
    *_SELECTING,
    _INCLUDE,
    _in_query("watch", _TRUTH, "Tell what changes, one event a line, instead of a list."),
    _in_query("allowWatchBookmarks", _TRUTH, "Whether a watch tells how far it has come."),
    _in_query("sendInitialEvents", _TRUTH, "Whether a watch begins with everything there is."),
)
_DELETING = (
    *_ALWAYS,
    _DRY_RUN,
    _WHY,
    _in_query("gracePeriodSeconds", _COUNT, "Taken, and of no effect."),
    _in_query(
        "propagationPolicy",
        _TEXT | {"enum": ["Background", "Foreground", "Orphan"]},
        "What becomes of the resources that were made for this one.",
    ),
)


def definition_name(group: str, version: str, kind: str) -> str:
    """What the schema of a kind is called: "dev.transom.v1.Deployment"."""
    return ".".join([*reversed(group.split(".") if group else ["core"]), version, kind])


def paths_of(served: Served) -> Iterator[tuple[str, JsonObject]]:
    """Every path of a resource type, with what may be asked there."""
    describe = _Operations(served)
    everywhere = f"/{served.root}/{served.plural}"
    many = f"/{served.root}/namespaces/{{namespace}}/{served.plural}" if served.namespaced else everywhere
    yield many, describe.many(within=served.namespaced)
    if served.namespaced and "list" in served.verbs:
        yield everywhere, describe.everywhere()
    if {"get", "update", "patch", "delete"} & set(served.verbs):
        yield f"{many}/{{name}}", describe.one(served.verbs, "")
    if served.status_verbs:
        yield f"{many}/{{name}}/status", describe.one(served.status_verbs, "status")


class _Operations:
    """The operations of one resource type."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._kind = _ref(definition_name(served.group, served.version, served.kind))
        self._list = _ref(definition_name(served.group, served.version, f"{served.kind}List"))

    def many(self, *, within: bool) -> JsonObject:
        """At the list of a tenant, or of a kind that belongs to none."""
        verbs, path = self._served.verbs, list[JsonObject]()
        if within:
            path.append(_in_path("namespace", "The tenant."))
        item: JsonObject = {"parameters": path} if path else {}
        if "list" in verbs:
            item["get"] = self._listing("list", "")
        if "create" in verbs:
            answers = {"201": self._kind}
            body = _body({_JSON: self._kind, _YAML: self._kind})
            refusals = (*_ANY, *_WRITE)
            item["post"] = self._operation("create", "post", _WRITING, answers, refusals, body)
        if "deletecollection" in verbs:
            answers, refusals = {"200": self._list}, (*_ANY, *_WRITE, "410")
            parameters = (*_DELETING, *_SELECTING)
            body = _body({_JSON: _ref(f"{META}.DeleteOptions")}, required=False)
            item["delete"] = self._operation(
                "deleteCollection", "deletecollection", parameters, answers, refusals, body
            )
        return item

    def everywhere(self) -> JsonObject:
        """At the list over all tenants."""
        return {"get": self._listing("list", "ForAllNamespaces")}

    def one(self, verbs: Sequence[str], subresource: str) -> JsonObject:
        """At one resource, or at its status."""
        path = [_in_path("name", f"The name of the {self._served.kind}.")]
        if self._served.namespaced:
            path.append(_in_path("namespace", "The tenant."))
        item: JsonObject = {"parameters": path}
        whole, suffix = {"200": self._kind}, subresource.capitalize()
        writing = (*_ANY, *_WRITE)
        if "get" in verbs:
            item["get"] = self._operation(
                "read", "get", (*_ALWAYS, _REVISION, _INCLUDE), whole, _ANY, suffix=suffix
            )
        if "update" in verbs:
            body = _body({_JSON: self._kind, _YAML: self._kind})
            both = {**whole, "201": self._kind}
            item["put"] = self._operation("replace", "put", _WRITING, both, writing, body, suffix)
        if "patch" in verbs:
            patch = _ref(f"{META}.Patch")
            body = _body({_MERGE: patch, _JSON_PATCH: _ref(f"{META}.JSONPatch"), _APPLY: patch})
            both, words = {**whole, "201": self._kind}, (*_WRITING, _FORCE)
            item["patch"] = self._operation("patch", "patch", words, both, writing, body, suffix)
        if "delete" in verbs:
            body = _body({_JSON: _ref(f"{META}.DeleteOptions")}, required=False)
            gone = {"200": {"oneOf": [_ref(f"{META}.Status"), self._kind]}}
            gone["202"] = gone["200"]
            item["delete"] = self._operation("delete", "delete", _DELETING, gone, writing, body)
        return item

    def _listing(self, verb: str, suffix: str) -> JsonObject:
        operation = self._operation(
            verb, "list", _LISTING, {"200": self._list}, (*_ANY, "410", "422"), suffix=suffix
        )
        watched = {"schema": _ref(f"{META}.WatchEvent")}
        operation["responses"]["200"]["content"][f"{_JSON};stream=watch"] = watched
        return operation

    def _operation(
        self,
        verb: str,
        action: str,
        parameters: Sequence[JsonObject],
        answers: dict[str, JsonObject],
        refusals: Sequence[str],
        body: JsonObject | None = None,
        suffix: str = "",
    ) -> JsonObject:
        served = self._served
        group = "".join(part.capitalize() for part in (served.group or "core").split("."))
        namespaced = "Namespaced" if served.namespaced and suffix != "ForAllNamespaces" else ""
        done = {code: _response(_DONE[code], schema) for code, schema in answers.items()}
        refused = {code: _response(_REFUSALS[code], _ref(f"{META}.Status")) for code in sorted(refusals)}
        operation: JsonObject = {
            "operationId": f"{verb}{group}{served.version.capitalize()}{namespaced}{served.kind}{suffix}",
            "description": f"{_SAID[action]} {served.kind}{' (its status)' if suffix == 'Status' else ''}.",
            "tags": [f"{group[0].lower()}{group[1:]}_{served.version}"],
            "parameters": list(parameters),
            "responses": done | refused,
            "x-kubernetes-action": action,
            GROUP_VERSION_KIND: {
                "group": served.group,
                "version": served.version,
                "kind": served.kind,
            },
        }
        if body is not None:
            operation["requestBody"] = body
        return operation


_DONE = {"200": "OK", "201": "Created", "202": "Accepted"}
_SAID = {
    "get": "Read the specified",
    "list": "List or watch objects of kind",
    "post": "Create a",
    "put": "Replace the specified",
    "patch": "Partially update the specified",
    "delete": "Delete a",
    "deletecollection": "Delete a collection of",
}


def _ref(name: str) -> JsonObject:
    return {"$ref": SCHEMAS + name}


def _in_path(name: str, description: str) -> JsonObject:
    schema = _TEXT | {"minLength": 1, "maxLength": 253}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _body(content: dict[str, JsonObject], *, required: bool = True) -> JsonObject:
    told: dict[str, Any] = {media_type: {"schema": schema} for media_type, schema in content.items()}
    return {"required": required, "content": told}


def _response(description: str, schema: JsonObject) -> JsonObject:
    return {"description": description, "content": {_JSON: {"schema": schema}}}
