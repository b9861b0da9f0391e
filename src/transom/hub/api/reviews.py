"""Questions about rights, as resources that are created and never stored: who am I, may I, may they.

What `kubectl auth can-i` and `kubectl auth whoami` ask. The answers are of `access.rights`, the same that
every request is decided by. `discovery` names these kinds beside those of the catalog.
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from transom.hub.access.callers import AUTHENTICATED, Caller, caller_of
from transom.hub.access.rights import HUB, Decision
from transom.hub.access.roles import REVIEWS
from transom.hub.access.rules import Asked
from transom.hub.api.bodies import read_resource
from transom.hub.api.errors import RefusedError, answer
from transom.hub.api.gate import Gate
from transom.hub.api.query import query_of
from transom.hub.api.served import Served
from transom.model.errors import InvalidError, Problem
from transom.model.resources import JsonObject
from transom.model.schemas import GROUP_VERSION_KIND, PRESERVE, metadata_schema

_AUTHENTICATION = "authentication.k8s.io"
_VERSION = "v1"
_KNOWN = ("dryRun", "fieldManager", "fieldValidation", "pretty")
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

S = TypeVar("S")


def _served(group: str, kind: str, *, namespaced: bool = False) -> Served:
    anything = {"type": "object", PRESERVE: True}
    schema: JsonObject = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": metadata_schema(),
            "spec": anything,
            "status": anything,
        },
        GROUP_VERSION_KIND: [{"group": group, "version": _VERSION, "kind": kind}],
    }
    return Served(group, _VERSION, f"{kind.lower()}s", kind, namespaced, ("create",), schema)


_SELF = _served(_AUTHENTICATION, "SelfSubjectReview")
_MAY_I = _served(REVIEWS, "SelfSubjectAccessReview")
_WHAT_MAY_I = _served(REVIEWS, "SelfSubjectRulesReview")
_MAY_THEY = _served(REVIEWS, "SubjectAccessReview")
_MAY_THEY_HERE = _served(REVIEWS, "LocalSubjectAccessReview", namespaced=True)

VIRTUAL = (_SELF, _MAY_I, _WHAT_MAY_I, _MAY_THEY, _MAY_THEY_HERE)
"""For discovery: each can be created, and nothing else."""


class _Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class _Resource(_Part, frozen=True):
    namespace: str = ""
    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    field_selector: JsonObject | None = None
    label_selector: JsonObject | None = None


class _Path(_Part, frozen=True):
    path: str = ""
    verb: str = ""


class _MayI(_Part, frozen=True):
    resource_attributes: _Resource | None = None
    non_resource_attributes: _Path | None = None


class _MayThey(_MayI, frozen=True):
    user: str = ""
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = {}


class _Rules(_Part, frozen=True):
    namespace: str = ""


class Reviews:
    """The endpoints for `VIRTUAL`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def routes(self) -> Iterator[Route]:
        """One for each, before those for the catalog's kinds."""
        answers = (self._self, self._may_i, self._what_may_i, self._may_they, self._may_they)
        for kind, answered in zip(VIRTUAL, answers, strict=True):
            tenant = "/namespaces/{tenant}" if kind.namespaced else ""
            path = f"/{kind.root}{tenant}/{kind.plural}"
            yield Route(path, self._endpoint(kind, answered), methods=_METHODS)

    def _endpoint(
        self, kind: Served, answered: Callable[[Request, JsonObject], JsonObject]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            tenant = request.path_params.get("tenant", HUB)
            self._gate.check_wish(request, Asked("create", kind.group, kind.plural, tenant=tenant))
            if request.method != "POST":
                raise RefusedError(405, f"a {kind.kind} can be created, and nothing else: POST it")
            query_of(request, *_KNOWN)
            body = await read_resource(request)
            await self._gate.catch_up()
            _check_envelope(body, kind)
            status = answered(request, body.get("spec", {}))
            told = {"kind": kind.kind, "apiVersion": kind.api_version}
            metadata = {"creationTimestamp": None}
            spec = {"spec": body["spec"]} if "spec" in body else {}
            return answer({**told, "metadata": metadata, **spec, "status": status}, 201)

        return endpoint

    def _self(self, request: Request, _spec: JsonObject) -> JsonObject:
        caller = caller_of(request)
        return {"userInfo": {"username": caller.name, "groups": list(caller.groups)}}

    def _may_i(self, request: Request, spec: JsonObject) -> JsonObject:
        return self._decided(caller_of(request), _asked(_read(spec, _MayI)))

    def _what_may_i(self, request: Request, spec: JsonObject) -> JsonObject:
        wanted = _read(spec, _Rules)
        if not wanted.namespace:
            raise InvalidError("the review", [Problem("spec.namespace", "says no tenant")])
        rules = list(self._gate.rights.held(caller_of(request), wanted.namespace))
        return {
            "resourceRules": [msgspec.to_builtins(rule) for rule in rules if rule.resources],
            "nonResourceRules": [msgspec.to_builtins(rule) for rule in rules if rule.non_resource_urls],
            "incomplete": False,
        }

    def _may_they(self, request: Request, spec: JsonObject) -> JsonObject:
        asked_about = _read(spec, _MayThey)
        if not asked_about.user and not asked_about.groups:
            raise InvalidError("the review", [Problem("spec.user", "says no user and no group")])
        asked = _asked(asked_about)
        tenant = request.path_params.get("tenant")
        if tenant is not None and asked.tenant != tenant:
            wrong = Problem("spec.resourceAttributes.namespace", f"must be {tenant!r}, as in the path")
            raise InvalidError("the review", [wrong])
        # Whoever was let in is in that group; a review is about somebody who would have been.
        caller = Caller(asked_about.user, (*asked_about.groups, AUTHENTICATED))
        return self._decided(caller, asked)

    def _decided(self, caller: Caller, asked: Asked) -> JsonObject:
        return {"allowed": self._gate.rights.decide(caller, asked) is Decision.ALLOWED}


def _check_envelope(body: JsonObject, kind: Served) -> None:
    expected = {"kind": kind.kind, "apiVersion": kind.api_version}
    problems = [
        Problem(field, f"expected {value!r}, not {body[field]!r}")
        for field, value in expected.items()
        if body.get(field, value) != value
    ]
    problems += [
        Problem(field, "unknown field") for field in set(body) - {*expected, "metadata", "spec", "status"}
    ]
    if problems:
        raise InvalidError(f"the {kind.kind}", problems)


def _read(spec: Any, shape: type[S]) -> S:
    try:
        return msgspec.convert(spec, shape)
    except msgspec.ValidationError as error:
        raise InvalidError("the review", [Problem("spec", str(error))]) from None


def _asked(spec: _MayI) -> Asked:
    """The wish that a review is about."""
    resource, path = spec.resource_attributes, spec.non_resource_attributes
    if resource is not None and path is None:
        part = resource.subresource
        return Asked(
            resource.verb, resource.group, resource.resource, part, resource.namespace, resource.name
        )
    if path is not None and resource is None:
        return Asked(path.verb, path=path.path or "/")
    what = "has one of resourceAttributes and nonResourceAttributes"
    raise InvalidError("the review", [Problem("spec", what)])
