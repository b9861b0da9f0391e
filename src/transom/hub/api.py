"""The hub's HTTP API: Kubernetes-style paths and objects for every kind of the catalog, and the hub's pages.

Nothing here names a kind. Only the administrator's key opens it; without it every path gives the same 401,
so that nothing can be found out. Only `/healthz` is open, and says nothing but whether the hub works.
Next on the data's way: `api_resources` handles resources, `api_paths` and `api_bodies` read requests.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from transom import __version__
from transom.hub.api_contexts import ContextPages, Contexts
from transom.hub.api_elsewhere import Elsewhere, Endpoint
from transom.hub.api_errors import RefusedError, answer, failure, refuse
from transom.hub.api_paths import PREFIX
from transom.hub.api_resources import ADMINISTRATOR, Resources
from transom.hub.store import Store
from transom.model.errors import TransomError
from transom.model.kinds import Catalog
from transom.model.resources import JsonObject
from transom.runtime import tracing
from transom.runtime.clock import Clock
from transom.runtime.http import AsgiApp, Receive, Scope, Send
from transom.runtime.secret_files import matches
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
) -> AsgiApp:
    """The API over `store`, as an ASGI application.

    `admin_key_hash` is `hash_secret` of the administrator's key; `states` says what the hub's workers do.
    Without `contexts` it has no pages for them. `elsewhere` is for a hub of several processes.
    """
    resources = Resources(store, clock)
    pages = _Pages(store.catalog, roads, states)
    there = elsewhere.or_there if elsewhere else _here
    about_contexts = (
        [] if contexts is None else _context_routes(ContextPages(store, contexts, ADMINISTRATOR), there)
    )
    about_processes = [] if elsewhere is None else [Route("/hub/processes", elsewhere.processes)]
    app = Starlette(
        routes=[
            Route("/healthz", pages.healthz),
            Route("/version", pages.version),
            Route("/metrics", pages.metrics),
            Route("/hub/layers", pages.layers),
            Route("/hub/regions", there(pages.regions)),
            *about_processes,
            *about_contexts,
            *_routes(f"{PREFIX}/namespaces/{{tenant}}/{{plural}}", resources),
            *_routes(f"{PREFIX}/{{plural}}", resources),
        ],
        # The last is for faults of ours: the server logs them, with their trace, once they are answered.
        exception_handlers=dict.fromkeys((HTTPException, RefusedError, TransomError, Exception), refuse),
    )
    # A path with a slash too many is no path, and not a way to learn which there are.
    app.router.redirect_slashes = False
    return Guarded(app, admin_key_hash)


def _here(endpoint: Endpoint) -> Endpoint:
    return endpoint


def _context_routes(pages: ContextPages, there: Callable[[Endpoint], Endpoint]) -> list[Route]:
    return [
        Route("/hub/contexts", there(pages.describe)),
        Route("/hub/contexts/diff", there(pages.diff)),
        Route("/hub/contexts/restore", pages.restore, methods=["POST"]),
        Route("/hub/signing", pages.signing),
    ]


def _routes(path: str, resources: Resources) -> list[Route]:
    """A kind's routes; each method at its own, so that the wrong one gets 405."""
    many: tuple[tuple[str, Endpoint], ...] = (("GET", resources.list_or_watch), ("POST", resources.create))
    one: tuple[tuple[str, Endpoint], ...] = (
        ("GET", resources.get),
        ("PUT", resources.replace),
        ("PATCH", resources.patch),
        ("DELETE", resources.delete),
    )
    return [
        _by_method(path, many),
        _by_method(f"{path}/{{name}}", one),
        Route(f"{path}/{{name}}/history", resources.history),
    ]


def _by_method(path: str, endpoints: Sequence[tuple[str, Endpoint]]) -> Route:
    by_method = dict(endpoints)

    async def endpoint(request: Request) -> Response:
        # HEAD is answered as GET; the server leaves the body out.
        method = "GET" if request.method == "HEAD" else request.method
        return await by_method[method](request)

    return Route(path, endpoint, methods=list(by_method))


class Guarded:
    """`app` for those who bear the administrator's key (RFC 6750); one and the same 401 for all others."""

    def __init__(self, app: AsgiApp, admin_key_hash: str) -> None:
        self._app = app
        self._admin_key_hash = admin_key_hash

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        keys = _keys(scope)
        if scope["path"] == "/healthz" or (len(keys) == 1 and matches(keys[0], self._admin_key_hash)):
            # For this request's task alone.
            tracing.current.set(tracing.valid(_header(scope, tracing.TRACEPARENT)))
            await self._app(scope, receive, send)
            return
        message = "the administrator's key is missing or wrong; send it as 'Authorization: Bearer KEY'"
        challenge = 'Bearer realm="transom"' + (', error="invalid_token"' if keys else "")
        response = answer(failure(401, "Unauthorized", message), 401, {"WWW-Authenticate": challenge})
        await response(scope, receive, send)


def _header(scope: Scope, wanted: str) -> str:
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for name, value in headers if name == wanted.encode()), "")


def _keys(scope: Scope) -> list[str]:
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    given = [value.decode("latin-1").partition(" ") for name, value in headers if name == b"authorization"]
    return [key.strip() for scheme, _, key in given if scheme.lower() == "bearer"]


class _Pages:
    """What the hub says of itself."""

    def __init__(
        self,
        catalog: Catalog,
        roads: Roads,
        states: Callable[[], Iterable[WorkerState]],
    ) -> None:
        self._catalog = catalog
        self._roads = roads
        self._states = states

    async def healthz(self, _request: Request) -> Response:
        """That the hub answers, and what its workers do; why one failed is for those with the key."""
        return answer({"workers": {state.name: state.state for state in self._states()}})

    async def version(self, _request: Request) -> Response:
        """Which release this is."""
        major, minor, _ = __version__.split(".", 2)
        return answer({"major": major, "minor": minor, "gitVersion": f"v{__version__}"})

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
