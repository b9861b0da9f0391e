"""Speaking to the hub's API: one method a verb, errors as exceptions, watches as iterators."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import aiohttp
import msgspec

from transom.client.tables import Row, Table, read_table
from transom.client.wire import lines_of, path_of, read_items, read_resource
from transom.model.audit import SignedHead
from transom.model.errors import UNREADABLE, TransomError, UnreachableError
from transom.model.kinds import Kind
from transom.model.resources import JsonObject, Resource, to_json
from transom.runtime.connecting import cause_of

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_LATE_SECONDS = 2.0
_QUIET_SECONDS = 45.0
"""A watch that says nothing for so long is dead: the hub sends bookmarks three times as often."""
_LINE_BYTES_MAX = 4 * 1024 * 1024
_PAGE = 500
_JSON = "application/json"
_TABLE = f"{_JSON};as=Table;v=v1;g=meta.k8s.io"
_DISCOVERY = f"{_JSON};as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io"


class ApiError(TransomError):
    """The hub refused; `status` is its answer, a Status object of the Kubernetes API."""

    def __init__(self, status: JsonObject) -> None:
        self.status = status
        self.code = int(status.get("code", 0))
        self.reason = str(status.get("reason", ""))
        super().__init__(str(status.get("message", "")) or f"the hub answered {self.code}")

    @property
    def causes(self) -> list[tuple[str, str]]:
        """Every mistake it names: the path and what is wrong there."""
        causes: list[JsonObject] = self.status.get("details", {}).get("causes", [])
        return [(str(cause.get("field", "")), str(cause.get("message", ""))) for cause in causes]


class ResourceList(NamedTuple):
    """Resources, and the revision to watch from."""

    items: list[Resource]
    revision: str


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch: "ADDED", "MODIFIED" or "DELETED" and the resource."""

    type: str
    object: Resource


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class HubClient:
    """A connection to the hub at `address`; used as `async with HubClient(address, key) as hub`.

    `tls` says whom to trust, by default what the system trusts. Every method raises `ApiError` when the hub
    refuses and `UnreachableError` when it does not answer. `late` is called, once, when an answer takes more
    than 2 s: whoever waits can say so.
    """

    def __init__(
        self,
        address: str,
        key: str,
        tls: ssl.SSLContext | None = None,
        late: Callable[[], None] | None = None,
    ) -> None:
        self.address = address.rstrip("/")
        self._key = key
        self._tls = tls
        self._late = late

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS),
            connector=aiohttp.TCPConnector(ssl=self._tls or True),
            read_bufsize=_LINE_BYTES_MAX,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        await self._session.close()

    # --- resources ---

    async def apply(
        self, kind: Kind, manifest: JsonObject, tenant: str = "", why: str = ""
    ) -> tuple[Resource, Literal["created", "configured", "unchanged"]]:
        """Create what `manifest` declares, or replace it when it is there."""
        name = str(manifest["metadata"]["name"])
        held = await self.find(kind, name, tenant)
        if held is None:
            try:
                return await self.create(kind, manifest, tenant, why), "created"
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                held = await self.get(kind, name, tenant)  # someone else was quicker
        path = path_of(kind, tenant, name)
        after = read_resource(await self._ask("PUT", path, {"why": why}, to_json(manifest)))
        same = after.metadata.resource_version == held.metadata.resource_version
        return after, "unchanged" if same else "configured"

    async def create(self, kind: Kind, manifest: JsonObject, tenant: str = "", why: str = "") -> Resource:
        """Create what `manifest` declares."""
        return read_resource(await self._ask("POST", path_of(kind, tenant), {"why": why}, to_json(manifest)))

    async def get(self, kind: Kind, name: str, tenant: str = "") -> Resource:
        """One resource."""
        return msgspec.convert(await self.get_object(kind, name, tenant), Resource)

    async def get_object(self, kind: Kind, name: str, tenant: str = "") -> JsonObject:
        """One resource as the hub has written it: of a flat kind (an Event), a `Resource` has not all."""
        return msgspec.json.decode(await self._ask("GET", path_of(kind, tenant, name)))

    async def find(self, kind: Kind, name: str, tenant: str = "") -> Resource | None:
        """One resource, or None when it does not exist."""
        try:
            return await self.get(kind, name, tenant)
        except ApiError as error:
            if error.code == 404:  # noqa: PLR2004
                return None
            raise

    async def list_all(self, kind: Kind, tenant: str = "", selector: str = "") -> ResourceList:
        """Every resource of a kind, of `tenant` or of all; `selector` is `label=value,…`."""
        items, revision = await self.list_objects(kind, tenant, selector)
        return ResourceList(msgspec.convert(items, list[Resource]), revision)

    async def list_objects(
        self, kind: Kind, tenant: str = "", selector: str = ""
    ) -> tuple[list[JsonObject], str]:
        """The same, each as the hub has written it."""
        items: list[JsonObject] = []
        query = {"limit": str(_PAGE), "labelSelector": selector}
        while True:
            found: JsonObject = msgspec.json.decode(await self._ask("GET", path_of(kind, tenant), query))
            items += found["items"]
            query["continue"] = found["metadata"].get("continue", "")
            if not query["continue"]:
                return items, found["metadata"]["resourceVersion"]

    async def patch(
        self, kind: Kind, name: str, patch: JsonObject, tenant: str = "", why: str = ""
    ) -> Resource:
        """Change a resource by a JSON merge patch (RFC 7396)."""
        media = "application/merge-patch+json"
        body = await self._ask("PATCH", path_of(kind, tenant, name), {"why": why}, to_json(patch), media)
        return read_resource(body)

    async def delete(self, kind: Kind, name: str, tenant: str = "", why: str = "") -> Resource | None:
        """Delete a resource: None when it is gone, else it waits for its finalizers."""
        body = await self._ask("DELETE", path_of(kind, tenant, name), {"why": why})
        return None if msgspec.json.decode(body)["kind"] == "Status" else read_resource(body)

    async def table(self, kind: Kind, tenant: str = "", name: str = "", selector: str = "") -> Table:
        """Resources of a kind as a table, of `tenant` or of all; or the one called `name`."""
        if name:
            return read_table(await self._ask("GET", path_of(kind, tenant, name), accept=_TABLE))
        query = {"limit": str(_PAGE), "labelSelector": selector}
        rows: list[Row] = []
        while True:
            found = read_table(await self._ask("GET", path_of(kind, tenant), query, accept=_TABLE))
            rows += found.rows
            query["continue"] = found.metadata.get("continue", "")
            if not query["continue"]:
                return msgspec.structs.replace(found, rows=rows)

    async def watch(
        self, kind: Kind, tenant: str = "", revision: str = "", selector: str = ""
    ) -> AsyncGenerator[WatchEvent]:
        """What changes after `revision`, as it happens; without one, everything there is first.

        Ends never: raises `UnreachableError` when the hub goes away, `ApiError` 410 when `revision` is
        forgotten (then list again).
        """
        changes = self.watch_objects(kind, tenant, revision, selector)
        async with contextlib.aclosing(changes):
            async for event, written in changes:
                yield WatchEvent(event, msgspec.convert(written, Resource))

    async def watch_objects(
        self, kind: Kind, tenant: str = "", revision: str = "", selector: str = ""
    ) -> AsyncGenerator[tuple[str, JsonObject]]:
        """The same with each resource as the hub has written it."""
        async with contextlib.aclosing(self._watch(kind, tenant, revision, selector, _JSON)) as lines:
            async for line in lines:
                yield line.type, msgspec.json.decode(line.object)

    async def watch_table(
        self, kind: Kind, tenant: str, revision: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, Table]]:
        """The same with each resource as a table of one row."""
        async with contextlib.aclosing(self._watch(kind, tenant, revision, selector, _TABLE)) as lines:
            async for line in lines:
                yield line.type, read_table(bytes(line.object))

    async def _watch(
        self, kind: Kind, tenant: str, revision: str, selector: str, accept: str
    ) -> AsyncGenerator[_Line]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": revision,
            "labelSelector": selector,
        }
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_QUIET_SECONDS)
        path = path_of(kind, tenant)
        async with self._request("GET", path, query, accept=accept, timeout=timeout) as response:
            async for text in lines_of(response):
                line = msgspec.json.decode(text, type=_Line)
                if line.type == "ERROR":
                    raise ApiError(msgspec.json.decode(line.object))
                if line.type != "BOOKMARK":
                    yield line
        raise UnreachableError(f"the hub at {self.address} ended the watch")

    async def history(self, kind: Kind, name: str, tenant: str = "", most: int = 500) -> list[JsonObject]:
        """Up to `most` changes of a name, newest first; see `hub.api.history.told_history`."""
        items: list[JsonObject] = []
        query: dict[str, str] = {}
        while len(items) < most:
            query["limit"] = str(min(most - len(items), _PAGE))
            asked = await self._ask("GET", path_of(kind, tenant, name) + "/history", query)
            found: JsonObject = msgspec.json.decode(asked)
            items += found["items"]
            query["continue"] = found["metadata"].get("continue", "")
            if not query["continue"]:
                break
        return items

    async def diff(
        self, kind: Kind, name: str, first: int, last: int | None = None, tenant: str = ""
    ) -> JsonObject:
        """How generation `last` (None: what is declared now) differs from `first`; `told_diff`."""
        query = {"from": str(first), "to": str(last or "")}
        return msgspec.json.decode(await self._ask("GET", path_of(kind, tenant, name) + "/diff", query))

    async def restore(
        self, kind: Kind, name: str, tenant: str = "", why: str = "", *, dry_run: bool = False
    ) -> JsonObject:
        """Bring back what was deleted and what went with it; see `hub.api.undo`."""
        return await self._undo("restore", kind, name, tenant, why, dry_run=dry_run)

    async def purge(
        self, kind: Kind, name: str, tenant: str = "", why: str = "", *, dry_run: bool = False
    ) -> JsonObject:
        """Keep nothing of what was deleted, so that it cannot be brought back; see `hub.api.undo`."""
        return await self._undo("purge", kind, name, tenant, why, dry_run=dry_run)

    async def _undo(
        self, verb: str, kind: Kind, name: str, tenant: str, why: str, *, dry_run: bool
    ) -> JsonObject:
        query = {"why": why, "dryRun": "All" if dry_run else ""}
        return msgspec.json.decode(await self._ask("POST", f"{path_of(kind, tenant, name)}/{verb}", query))

    # --- the hub itself ---

    async def audit(self, since: str = "", tenant: str = "") -> AsyncGenerator[bytes]:
        """Every change of what was declared after `since` (a revision, or a time), as `model.audit` says."""
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_QUIET_SECONDS)
        query = {"since": since, "tenant": tenant}
        async with self._request("GET", "/hub/audit", query, timeout=timeout) as response:
            async for line in response.content:
                yield line

    async def audit_head(self, revision: int) -> SignedHead:
        """Where the audit was at this revision, signed. Raises `ApiError` 410 when that is forgotten."""
        body = await self._ask("GET", "/hub/audit/head", {"revision": str(revision)})
        return msgspec.json.decode(body, type=SignedHead)

    async def discovery(self, root: str) -> list[JsonObject]:
        """Every group and all that is served in it, below `root`, "/api" or "/apis": `APIGroupDiscovery`."""
        return read_items(await self._ask("GET", root, accept=_DISCOVERY))

    async def layers(self) -> list[JsonObject]:
        """Every kind with its floor: {kind, plural, layer, owner, statusOwner, reads}."""
        return read_items(await self._ask("GET", "/hub/layers"))

    async def processes(self) -> list[JsonObject]:
        """The hub's processes, as the one that answers sees them: whether each is alive, and what it does."""
        return read_items(await self._ask("GET", "/hub/processes"))

    async def regions(self) -> list[JsonObject]:
        """The roads to every region, as `hub.roads.RoadsReport` describes them."""
        return read_items(await self._ask("GET", "/hub/regions"))

    async def contexts(self) -> JsonObject:
        """What the hub can say of its contexts: {items: one a region, holds: what guards hold back, refused:
        subjects without a good context}; see `hub.contexts`.
        """
        return msgspec.json.decode(await self._ask("GET", "/hub/contexts"))

    async def contexts_diff(self, region: str) -> JsonObject:
        """What would go out to a region now and has not: {items: [{key, change, lane, revision, tenant}],
        more: whether there is more than that, held: how many rows guards hold back}.
        """
        return msgspec.json.decode(await self._ask("GET", "/hub/contexts/diff", {"region": region}))

    async def contexts_restore(
        self, kind: Kind, revision: int, tenant: str = "", name: str = "", why: str = ""
    ) -> JsonObject:
        """Write what resources of `kind` were at `revision` again, as new changes: {items: [{key, change}],
        skipped: [{key, why}]}. What restricts (a revocation, a suspension) stays as it is.
        """
        wanted = {"kind": kind.name, "tenant": tenant, "name": name, "revision": revision, "why": why}
        return msgspec.json.decode(await self._ask("POST", "/hub/contexts/restore", body=to_json(wanted)))

    async def review(self, group: str, kind: str, spec: JsonObject) -> JsonObject:
        """Ask about rights: the review, with the answer as its status."""
        asked = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        path = f"/apis/{group}/v1/{kind.lower()}s"
        return msgspec.json.decode(await self._ask("POST", path, {}, to_json(asked)))

    async def version(self) -> JsonObject:
        """Which release the hub is."""
        return msgspec.json.decode(await self._ask("GET", "/version"))

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media: str = _JSON,
        *,
        accept: str = _JSON,
    ) -> bytes:
        asked = self._request(method, path, query or {}, body=body, media=media, accept=accept)
        async with asked as response:
            return await response.read()

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: bytes | None = None,
        media: str = _JSON,
        accept: str = _JSON,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109  # as the library takes it
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        late = asyncio.get_running_loop().call_later(_LATE_SECONDS, self._tell_late)
        try:
            async with self._session.request(
                method,
                self.address + path,
                params={word: value for word, value in query.items() if value},
                data=body,
                headers={"Accept": accept} | ({"Content-Type": media} if body is not None else {}),
                timeout=timeout or self._session.timeout,
            ) as response:
                late.cancel()
                if not response.ok:
                    raise _refused(response.status, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = cause_of(error) or "it did not answer in time; does its process run, and has it room to?"
            raise UnreachableError(f"cannot reach the hub at {self.address}: {why}") from None
        finally:
            late.cancel()

    def _tell_late(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            late()


def _refused(code: int, body: bytes) -> ApiError:
    try:
        return ApiError(msgspec.json.decode(body, type=dict[str, Any]))
    except UNREADABLE:
        return ApiError({"code": code, "message": f"the hub answered {code}, and not as transom's hub does"})
