"""The hub's HTTP API: Kubernetes-style paths and objects for every kind of the catalog, and the hub's pages.

Nothing here names a kind. Next on the data's way: `resources` handles resources, `paths` and `bodies` read
requests.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from transom.hub.access.identity import Identity, Issuer
from transom.hub.access.limits import Limits, LimitsConfig
from transom.hub.access.table import AccessTable
from transom.hub.api.audit import AuditPages
from transom.hub.api.contexts import ContextPages, Contexts
from transom.hub.api.discovery import Discovery
from transom.hub.api.door import Door
from transom.hub.api.elsewhere import Elsewhere, Endpoint
from transom.hub.api.errors import REFUSALS, answer, refuse
from transom.hub.api.gate import Gate
from transom.hub.api.health import Health
from transom.hub.api.lists import Lists
from transom.hub.api.openapi import OpenApi
from transom.hub.api.paths import Target, target_of
from transom.hub.api.query import in_time
from transom.hub.api.resources import Resources
from transom.hub.api.reviews import VIRTUAL, Reviews
from transom.hub.api.served import served_of
from transom.hub.api.undo import Undo
from transom.hub.audit import Audit
from transom.hub.store import Store
from transom.model.errors import TransomError
from transom.model.kinds import Catalog
from transom.model.resources import JsonObject
from transom.runtime.clock import Clock
from transom.runtime.http import AsgiApp
from transom.runtime.tasks import WorkerState
from transom.runtime.telemetry import exposition


class Roads(Protocol):
    """What the API asks of the hub's roads."""

    async def describe(self) -> list[JsonObject]:
        """What can be said of every region's roads, by name (`hub.roads.RoadsReport`)."""
        ...


def hub_api(
    store: Store,
    *,
    admin_key_hash: str,
    roads: Roads,
    states: Callable[[], Iterable[WorkerState]],
    clock: Clock,
    contexts: Contexts | None = None,
    elsewhere: Elsewhere | None = None,
    issuers: Sequence[Issuer] = (),
    limits: LimitsConfig | None = None,
    audit: Audit | None = None,
) -> AsgiApp:
    """The API over `store`, as an ASGI application.

    `admin_key_hash` is `hash_secret` of the administrator's key; `states` says what the hub's workers do.
    Without `contexts` or `audit` it has no pages for them. `elsewhere` is for a hub of several processes.
    Tokens of `issuers` are believed.
    """
    table = AccessTable(store)
    gate = Gate(table)
    resources, lists, undo = Resources(store, clock), Lists(store, clock), Undo(store, clock)
    pages = _Pages(store.catalog, roads)
    served = [*VIRTUAL, *(served_of(kind) for kind in store.catalog.faces)]
    there = elsewhere.or_there if elsewhere else _here
    about_contexts = [] if contexts is None else _context_routes(ContextPages(store, contexts), there)
    about_processes = [] if elsewhere is None else [Route("/hub/processes", elsewhere.processes)]
    app = Starlette(
        routes=[
            *Health(states).routes(),
            *Discovery(served).routes(),
            *OpenApi(served).routes(),
            Route("/metrics", pages.metrics),
            Route("/hub/layers", pages.layers),
            Route("/hub/regions", there(pages.regions)),
            *about_processes,
            *about_contexts,
            *([] if audit is None else AuditPages(audit).routes()),
            *Reviews(gate).routes(),
            *(
                route
                for root in _ROOTS
                for route in _routes(root, resources, lists, undo, store.catalog, gate)
            ),
        ],
        # The last is for faults of ours: the server logs them, with their trace, once they are answered.
        exception_handlers=dict.fromkeys((*REFUSALS, HTTPException, TransomError, Exception), refuse),
    )
    # A path with a slash too many is no path, and not a way to learn which there are.
    app.router.redirect_slashes = False
    identity = Identity(table, admin_key_hash, issuers, clock)
    return Door(app, identity, gate, Limits(limits or LimitsConfig(), clock))


def _here(endpoint: Endpoint) -> Endpoint:
    return endpoint


def _context_routes(pages: ContextPages, there: Callable[[Endpoint], Endpoint]) -> list[Route]:
    return [
        Route("/hub/contexts", there(pages.describe)),
        Route("/hub/contexts/diff", there(pages.diff)),
        Route("/hub/contexts/restore", pages.restore, methods=["POST"]),
        Route("/hub/signing", pages.signing),
    ]


_ROOTS = ("/apis/{group}/{version}", "/api/{version}")
"""Where kinds are: those of a group, and those of the core group."""

Verb = Callable[[Request, Target], Awaitable[Response]]


def _routes(
    root: str, resources: Resources, lists: Lists, undo: Undo, catalog: Catalog, gate: Gate
) -> Iterator[Route]:
    """A kind's routes; each method at its own, so that the wrong one gets 405."""
    many: dict[str, Verb] = {
        "GET": lists.list_or_watch,
        "POST": resources.create,
        "DELETE": lists.delete_all,
    }
    one: dict[str, Verb] = {
        "GET": resources.get,
        "PUT": resources.replace,
        "PATCH": resources.patch,
        "DELETE": resources.delete,
    }
    for path in (f"{root}/namespaces/{{tenant}}/{{plural}}", f"{root}/{{plural}}"):
        yield _by_method(path, many, catalog, gate)
        yield _by_method(f"{path}/{{name}}", one, catalog, gate)
        status = {method: verb for method, verb in one.items() if method != "DELETE"}
        yield _by_method(f"{path}/{{name}}/status", status, catalog, gate, "status")
        yield _by_method(f"{path}/{{name}}/history", {"GET": resources.history}, catalog, gate, "history")
        yield _by_method(f"{path}/{{name}}/diff", {"GET": resources.diff}, catalog, gate, "diff")
        yield _by_method(f"{path}/{{name}}/restore", {"POST": undo.restore}, catalog, gate, "restore")
        yield _by_method(f"{path}/{{name}}/purge", {"POST": undo.purge}, catalog, gate, "purge")


def _by_method(
    path: str, verbs: Mapping[str, Verb], catalog: Catalog, gate: Gate, subresource: str = ""
) -> Route:
    async def endpoint(request: Request) -> Response:
        target = target_of(request, catalog, subresource)
        gate.check(request, target, subresource)
        # HEAD is answered as GET; the server leaves the body out.
        method = "GET" if request.method == "HEAD" else request.method
        return await in_time(request, lambda: verbs[method](request, target))

    return Route(path, endpoint, methods=list(verbs))


class _Pages:
    """What the hub says of itself."""

    def __init__(self, catalog: Catalog, roads: Roads) -> None:
        self._catalog = catalog
        self._roads = roads

    async def metrics(self, _request: Request) -> Response:
        """Prometheus' text format."""
        return Response(exposition(), media_type="text/plain; version=0.0.4")

    async def layers(self, _request: Request) -> Response:
        """Every kind with its floor, lowest first."""
        items = [
            {
                "kind": kind.name,
                "plural": kind.plural,
                "layer": self._catalog.layers[kind.name],
                "owner": kind.owner,
                "statusOwner": kind.status_owner,
                "reads": list(kind.reads),
            }
            for kind in sorted(self._catalog, key=lambda kind: (self._catalog.layers[kind.name], kind.name))
        ]
        return answer({"items": items})

    async def regions(self, _request: Request) -> Response:
        """Every region: whether it can be reached, how far its roads lag, how old what it knows is."""
        return answer({"items": await self._roads.describe()})
