"""Discovery: which groups, versions and resource types there are, so that clients need to be told nothing.

Two ways, both from `served` and built once: a document for each group and version, and everything at once for
who asks for it by `Accept` (aggregated discovery, with an ETag that changes when anything of it does).
https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
What the query says (clients send their `timeout`) changes nothing here.
Next on the data's way: `openapi` says what the resources hold.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from transom.hub.api.errors import JSON
from transom.hub.api.negotiation import AS_IT_IS, Form, form_for
from transom.hub.api.served import Served, by_group
from transom.model.resources import JsonObject, to_json

_AGGREGATED = tuple(
    Form("apidiscovery.k8s.io", version, "APIGroupDiscoveryList") for version in ("v2", "v2beta1")
)


class Document:
    """An answer that stays the same: its bytes, what they are, and the ETag by which a client has it already.

    https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
    """

    def __init__(self, data: bytes, media_type: str = JSON) -> None:
        self.data = data
        self.media_type = media_type
        self.hash = hashlib.sha256(data).hexdigest().upper()

    def answer(self, request: Request, cache: str = "no-cache, private") -> Response:
        """The document; 304 without a body for who has it."""
        headers = {"ETag": f'"{self.hash}"', "Vary": "Accept", "Cache-Control": cache}
        held = (part.strip() for part in request.headers.get("if-none-match", "").split(","))
        if any(tag.removeprefix("W/") in (headers["ETag"], "*") for tag in held):
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


class Discovery:
    """The pages of discovery for what is `served`."""

    def __init__(self, served: Iterable[Served]) -> None:
        groups = by_group(served)
        core = groups.pop("", {})
        self._plain = dict(_plain(core, groups))
        self._aggregated = {
            (root, form): Document(to_json(_aggregated(form, parts)), JSON + form.parameters)
            for root, parts in (("/api", {"": core} if core else {}), ("/apis", groups))
            for form in _AGGREGATED
        }

    def routes(self) -> list[Route]:
        """A route for every page, also with a slash at its end: the Python client asks so."""
        pages = {path: self._root if path in ("/api", "/apis") else self._page for path in self._plain}
        return [Route(path + slash, page) for path, page in pages.items() for slash in ("", "/")]

    async def _root(self, request: Request) -> Response:
        """GET /api, /apis: the groups, or all of them with all that they hold."""
        form = form_for(request.headers.get("accept", ""), (AS_IT_IS, *_AGGREGATED))
        if form == AS_IT_IS:
            return self._answer(request)
        return self._aggregated[_path(request), form].answer(request, "public")

    async def _page(self, request: Request) -> Response:
        """GET /api/VERSION, /apis/GROUP, /apis/GROUP/VERSION."""
        form_for(request.headers.get("accept", ""), (AS_IT_IS,))
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        headers = {"Cache-Control": "no-cache, private", "Vary": "Accept"}
        return Response(self._plain[_path(request)], headers=headers, media_type=JSON)


def _path(request: Request) -> str:
    return request.url.path.rstrip("/")


def _plain(
    core: dict[str, list[Served]], groups: dict[str, dict[str, list[Served]]]
) -> Iterator[tuple[str, bytes]]:
    """Every page of plain discovery, with its path."""
    versions: JsonObject = {
        "kind": "APIVersions",
        "versions": list(core),
        # Where else the API is: at the one address that the client has found it at.
        "serverAddressByClientCIDRs": [],
    }
    yield "/api", to_json(versions)
    listed = [_group(name, list(parts)) for name, parts in groups.items()]
    yield "/apis", to_json({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
    for group in listed:
        yield f"/apis/{group['name']}", to_json({"kind": "APIGroup", "apiVersion": "v1", **group})
    for parts in (core, *groups.values()):
        for served in parts.values():
            yield f"/{served[0].root}", to_json(_resource_list(served))


def _group(name: str, versions: list[str]) -> JsonObject:
    told = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def _resource_list(served: list[Served]) -> JsonObject:
    resources: list[JsonObject] = []
    for one in served:
        both: JsonObject = {"namespaced": one.namespaced, "kind": one.kind}
        names = {"name": one.plural, "singularName": one.kind.lower(), "verbs": list(one.verbs)}
        resources.append({**both, **names, **_called(one)})
        if one.status_verbs:
            name = f"{one.plural}/status"
            resources.append({**both, "name": name, "singularName": "", "verbs": list(one.status_verbs)})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": served[0].api_version,
        "resources": resources,
    }


def _called(one: Served) -> dict[str, Any]:
    words = {"shortNames": one.short_names, "categories": one.categories}
    return {word: list(names) for word, names in words.items() if names}


def _aggregated(form: Form, groups: dict[str, dict[str, list[Served]]]) -> JsonObject:
    items: list[JsonObject] = []
    for name, parts in groups.items():
        versions = [
            {
                "version": version,
                "resources": [_discovered(one) for one in served],
                "freshness": "Current",
            }
            for version, served in parts.items()
        ]
        items.append({"metadata": {"name": name} if name else {}, "versions": versions})
    return {"kind": form.kind, "apiVersion": f"{form.group}/{form.version}", "metadata": {}, "items": items}


def _discovered(one: Served) -> JsonObject:
    response_kind = {"group": one.group, "version": one.version, "kind": one.kind}
    told: JsonObject = {
        "resource": one.plural,
        "responseKind": response_kind,
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.kind.lower(),
        "verbs": list(one.verbs),
        **_called(one),
    }
    if one.status_verbs:
        status = {"subresource": "status", "responseKind": response_kind, "verbs": list(one.status_verbs)}
        told["subresources"] = [status]
    return told
