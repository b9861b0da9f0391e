"""The tenant matrix: every route × every method × every kind × every role × own, other and no tenant.

The cells are generated from the routes; what is expected stands in tables of its own here. A route, a kind or
a subresource without a row fails. Of a tenant that a caller has nothing to do with every answer is compared
byte by byte with that of one that does not exist; neither costs a look at the store.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import event

from access_parts import made_key
from api_parts import KEY, FixedRoads, served
from hub_parts import CLOCK, deployment, put, tenant
from transom.catalog.kinds import shipped
from transom.hub.access.limits import LimitsConfig
from transom.hub.api.app import hub_api
from transom.model.errors import UnreachableError
from transom.model.kinds import Kind
from transom.model.resources import to_json
from transom.model.schemas import has_status

OWN, OTHER, NONE = "acme", "owned-by-others", "there-is-no-one"
"""The last two are of one length, so that answers can be compared to the byte."""
ORDER = ("viewer", "editor", "owner", "operator")
NOBODY, ANYONE = None, "anyone"

TENANTS_KINDS: dict[str, tuple[str | None, str | None]] = {
    # kind: who may read it and who may write it, in their tenant
    "Deployment": ("viewer", "editor"),
    "RegionalDeployment": ("viewer", NOBODY),
    "Instance": ("viewer", NOBODY),
    "KafkaCluster": ("viewer", "editor"),
    "ApiKey": ("editor", "editor"),
    "RoleBinding": ("owner", "owner"),
    "Quota": ("viewer", "operator"),
    "Lease": ("viewer", "editor"),
    "Event": ("viewer", "editor"),
}
TENANTS = ("Tenant", "Namespace")
"""Whoever has a role in one may read it by its name; only operators write it."""
HUB_KINDS = ("Region", "ContextFreeze", "ContextOverride", "HubKey", "HubRoleBinding")
"""The operators' alone."""

SUBRESOURCES = {
    "": {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "write"},
    "diff": {"GET": "read"},
    "history": {"GET": "read"},
    "purge": {"POST": "operate"},
    "restore": {"POST": "write"},
    "status": {"GET": "read", "PUT": "write", "PATCH": "write"},
}
MANY = {"GET": "read", "POST": "write", "DELETE": "write"}

PAGES = {
    "/healthz": "open",
    "/livez": "open",
    "/readyz": "open",
    "/version": ANYONE,
    "/version/": ANYONE,
    "/metrics": "operator",
    "/hub/layers": "operator",
    "/hub/regions": "operator",
    "/hub/audit": "operator",
    "/hub/audit/head": "operator",
    "/hub/contexts": "operator",
    "/hub/contexts/diff": "operator",
    "/hub/contexts/restore": "operator",
    "/hub/signing": "operator",
}
REVIEWS = {
    "selfsubjectreviews": ANYONE,
    "selfsubjectaccessreviews": ANYONE,
    "selfsubjectrulesreviews": ANYONE,
    "subjectaccessreviews": "operator",
    "localsubjectaccessreviews": "owner",
}


class Cell(NamedTuple):
    method: str
    path: str
    least: str | None
    """Who may, at least; "" is for paths at which nothing is, whoever asks."""
    of_tenant: bool
    """Whether rights in the tenant of the path count."""


def reached(role: str, cell: Cell) -> bool:
    if role == "operator":
        return True
    if cell.least in (NOBODY, ""):
        return False
    return cell.least == ANYONE or (role in ORDER and ORDER.index(role) >= ORDER.index(cell.least))


def parts_of(path: str) -> tuple[str, str]:
    """Of a path of resources: "many" or "one", and the subresource."""
    _, _, rest = path.partition("{plural}")
    if not rest:
        return "many", ""
    assert rest.startswith("/{name}"), f"{path}: a route that the tables do not know"
    return "one", rest.removeprefix("/{name}").removeprefix("/")


def cells_of(path: str, methods: Iterator[str], kind: Kind, tenant_name: str) -> Iterator[Cell]:
    """What can be asked of `kind` at a route; nothing where the route is for another group."""
    if ("{group}" in path) != bool(kind.group):
        return
    shape, subresource = parts_of(path)
    in_tenant = "{tenant}" in path
    name = tenant_name if kind.name in TENANTS else "shop"
    asked = path.format(
        group=kind.group, version=kind.version, tenant=tenant_name, plural=kind.plural, name=name
    )
    for method in methods:
        way = (MANY if shape == "many" else SUBRESOURCES[subresource])[method]
        # A part of a Namespace has the path of a list in it.
        ambiguous = kind.plural == "namespaces" and subresource
        nothing = subresource == "status" and not has_status(kind)
        if ambiguous or nothing or (in_tenant != kind.namespaced and (in_tenant or shape == "one")):
            yield Cell(method, asked, "", of_tenant=False)
        elif way == "operate":
            yield Cell(method, asked, NOBODY, of_tenant=in_tenant or kind.name in TENANTS)
        elif kind.name in TENANTS_KINDS:
            least = TENANTS_KINDS[kind.name][way == "write"]
            yield Cell(method, asked, least if in_tenant else NOBODY, of_tenant=in_tenant)
        elif kind.name in TENANTS:
            least = "viewer" if way == "read" and shape == "one" else NOBODY
            yield Cell(method, asked, least, of_tenant=shape == "one")
        else:
            assert kind.name in HUB_KINDS, f"{kind.name}: a kind that the tables do not know"
            yield Cell(method, asked, NOBODY, of_tenant=False)


def routes_of(store) -> list[Any]:
    app = hub_api(
        store,
        admin_key_hash="",
        roads=FixedRoads(),
        states=list,
        clock=CLOCK,
        contexts=object(),  # type: ignore[arg-type]
        audit=object(),  # type: ignore[arg-type]
    )
    return app._app.routes  # type: ignore[attr-defined]


def all_cells(store, tenant_name: str) -> Iterator[Cell]:
    for route in routes_of(store):
        methods = sorted(route.methods - {"HEAD"})
        if "{plural}" in route.path:
            for kind in shipped().faces:
                yield from cells_of(route.path, methods, kind, tenant_name)
        elif route.path.rpartition("/")[2].endswith("reviews"):
            least = REVIEWS[route.path.rpartition("/")[2]]
            path = route.path.format(tenant=tenant_name)
            yield Cell("POST", path, NOBODY if least == "operator" else least, "{tenant}" in route.path)
        elif route.path in PAGES:
            least = PAGES[route.path]
            if least != "open":
                for method in methods:
                    yield Cell(method, route.path, NOBODY if least == "operator" else least, of_tenant=False)
        else:
            known = route.path in ("/api", "/apis") or route.path.startswith(("/api/", "/apis/", "/openapi/"))
            assert known, f"{route.path}: a route that the tables do not know"
            yield Cell(
                "GET",
                route.path.replace("{group}", "transom.dev").replace("{version}", "v1"),
                ANYONE,
                of_tenant=False,
            )


MANY_AT_ONCE = LimitsConfig(requests_per_second=1e6, burst=1_000_000)


class Nowhere:
    """Contexts that another process has: pages about them answer 503 to whoever may ask."""

    def __getattr__(self, name: str) -> Any:
        raise UnreachableError(name)


class Asking:
    """Asks, and counts what the store is asked meanwhile."""

    def __init__(self, api) -> None:
        self.api = api
        self.queries = 0
        for side in (api.store._reader_db, api.store._writer_db):
            event.listen(side.engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.queries += 1

    async def __call__(self, cell: Cell, key: str, query: str = "") -> tuple[int, bytes, dict[str, str], int]:
        before = self.queries
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = None
        if cell.method != "GET":
            data = b"{}"
            merge = "application/merge-patch+json"
            headers["Content-Type"] = merge if cell.method == "PATCH" else "application/json"
        url = self.api.address + cell.path + query
        async with self.api.session.request(cell.method, url, data=data, headers=headers) as reply:
            body = await reply.read()
            told = {name: value for name, value in reply.headers.items() if name != "Date"}
        return reply.status, body, told, self.queries - before


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path, contexts=lambda _store: Nowhere(), limits=MANY_AT_ONCE) as api:
        await api.store.write(put(tenant(OTHER)))
        theirs = deployment("shop")
        await api.store.write(put(theirs.with_metadata(namespace=OTHER)))
        yield api


@contextlib.asynccontextmanager
async def nothing_told(cell: Cell, role: str, tenant_name: str):
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{role} in {tenant_name}: {cell}: {error}") from None


def test_the_tables_know_every_kind():
    assert {kind.name for kind in shipped().faces} == {*TENANTS_KINDS, *TENANTS, *HUB_KINDS}


async def test_every_cell_of_the_matrix(api):  # noqa: C901  # a rule each
    ask = Asking(api)
    keys = {"nobody": await made_key(api.store, "nobody")}
    for role in ("viewer", "editor", "owner"):
        keys[role] = await made_key(api.store, role, **{OWN: role})
    keys["operator"] = await made_key(api.store, "operator", hub="operator")
    for key in keys.values():  # what is held of rights is read once
        assert (await api.ask("GET", "/version", key=key)).code == 200
    seen: set[str] = set()
    for tenant_name in (OWN, OTHER, NONE):
        for cell in all_cells(api.store, tenant_name):
            # What is allowed must not change what other cells find, nor last.
            queries = ["?dryRun=All" if cell.method == "DELETE" else ""]
            queries += ["?watch=true&labelSelector=,=,"] if cell.method == "GET" else []
            code, _, _, asked = await ask(cell, "")
            assert (code, asked) == (401, 0), cell
            for role, key in keys.items():
                for query in queries:
                    async with nothing_told(cell, role, tenant_name):
                        code, body, headers, asked = await ask(cell, key, query)
                        counts = not cell.of_tenant or tenant_name == OWN or cell.least == ANYONE
                        if cell.least == "":
                            seen.add("no such path")
                            assert (code, asked) == (404, 0)
                        elif reached(role, cell) and (counts or role == "operator"):
                            seen.add("allowed")
                            assert code != 401 and b"forbidden: User" not in body, body  # noqa: PT018
                            assert code != 404 or asked or cell.path.startswith("/hub/"), body
                        elif cell.of_tenant and (tenant_name != OWN or role == "nobody"):
                            seen.add("hidden")
                            assert (code, asked) == (404, 0), body
                            if tenant_name == OTHER:
                                path = cell.path.replace(OTHER, NONE)
                                there = code, body.replace(OTHER.encode(), NONE.encode()), headers
                                *missing, _ = await ask(cell._replace(path=path), key, query)
                                assert there == tuple(missing)
                        else:
                            seen.add("forbidden")
                            assert (code, asked) == (403, 0), body
                            assert b"is forbidden: User" in body or b"forbidden: User" in body
    assert seen == {"no such path", "allowed", "hidden", "forbidden"}


async def test_what_is_missing_in_the_own_tenant_and_what_is_others_are_told_alike(api):
    key = await made_key(api.store, "boss", **{OWN: "owner"})
    path = "/apis/transom.dev/v1/namespaces/{}/deployments/shop"
    missing = await api.ask("GET", path.format(OWN), key=key)
    others = await api.ask("GET", path.format(OTHER), key=key)
    assert (missing.code, others.code) == (404, 404)
    assert to_json(others.body).replace(OTHER.encode(), OWN.encode()) == to_json(missing.body)
    assert (await api.ask("GET", path.format(OTHER), key=KEY)).code == 200, "it is there"
