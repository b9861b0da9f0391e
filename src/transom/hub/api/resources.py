"""The verbs on resources: create, replace, patch, delete, get, list, watch, history; the same for any kind.

Each turns a request into a `Change` of `hub.changes` or a question to the store. Who may write what, what a
spec may hold, and which version must be held is decided there, inside the transaction.
Next on the data's way: `hub.store`; and back, `errors` for what is refused.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from transom.hub.access.callers import actor_of
from transom.hub.api.bodies import (
    envelope_problems,
    read_patch,
    read_preconditions,
    read_resource,
    resource_from,
)
from transom.hub.api.errors import JSON, RefusedError, answer
from transom.hub.api.gate import guarded
from transom.hub.api.history import told_diff, told_history
from transom.hub.api.paths import Continue, Matches, Target, number, query_of, selector, truth
from transom.hub.api.watch import Feed, Watch, every, first_page, watching
from transom.hub.changes import (
    CHANGE_CAUSE,
    Change,
    Held,
    Wanted,
    creating,
    deleting,
    merge,
    merge_patching,
    replacing,
)
from transom.hub.leaving import check_leaving
from transom.hub.store import Page, Store
from transom.model.errors import ExpiredError, InvalidError, NotFoundError
from transom.model.names import Key
from transom.model.resources import API_VERSION, JsonObject, Resource, to_json
from transom.runtime.clock import Clock

_WHY_CHARACTERS_MAX = 1000
_LIST_MAX = 1000
_HISTORY_MAX = 500
_CHUNK_BYTES = 64 * 1024


class Resources:
    """The endpoints for resources, over one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._feed = Feed(store)

    async def create(self, request: Request, target: Target) -> Response:
        """POST to a list: 201 and the resource."""
        query = query_of(request, "why")
        if target.kind.namespaced and not target.namespace:
            raise RefusedError(405, f"a {target.kind.name} is created in a tenant: namespaces/TENANT/…")
        resource = resource_from(await read_resource(request), target)
        held = await self._write(request, _of(target, resource), creating(resource), _why(query, resource))
        return answer(held, 201)

    async def replace(self, request: Request, target: Target) -> Response:
        """PUT: the resource with its spec, labels, annotations and finalizers replaced."""
        query = query_of(request, "why")
        resource = resource_from(await read_resource(request), target)
        return answer(await self._write(request, target, replacing(resource), _why(query, resource)))

    async def patch(self, request: Request, target: Target) -> Response:
        """PATCH: the resource changed by a JSON merge patch (RFC 7396)."""
        query = query_of(request, "why")
        patch = await read_patch(request)
        return answer(await self._write(request, target, _patching(target, patch), _why(query, None)))

    async def delete(self, request: Request, target: Target) -> Response:
        """DELETE: the resource while it waits for its finalizers, else a Status of success."""
        query = query_of(request, "why")
        resource_version, uid = await read_preconditions(request)
        wanted = deleting(target.shown, resource_version, uid)
        held = await self._write(request, target, wanted, _why(query, None))
        if held is not None:
            return answer(held)
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural}
        return answer({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details})

    async def get(self, request: Request, target: Target) -> Response:
        """GET one resource."""
        query_of(request)
        return answer(target.kind.shown(await self._store.get(target.key)))

    async def list_or_watch(self, request: Request, target: Target) -> Response:
        """GET a list; with `watch=true`, what changes."""
        if "watch" in request.query_params and truth(dict(request.query_params), "watch"):
            return await self._watch(request, target)
        query = query_of(request, "watch", "limit", "continue", "labelSelector")
        matches, limit = selector(query), number(query, "limit")
        if query.get("continue") and not limit:
            raise RefusedError(400, "query parameter 'continue' needs the 'limit' it was given with")
        if limit:
            return await self._page(target, matches, min(limit, _LIST_MAX), query.get("continue", ""))
        first = await first_page(self._store, target)
        if first.more_after is None:
            return _list(target, matches, first.items, {"resourceVersion": str(first.revision)})
        return StreamingResponse(self._whole(target, matches, first), media_type=JSON)

    async def history(self, request: Request, target: Target) -> Response:
        """GET the changes of one name in all its lives, newest first, `limit` at once."""
        query = query_of(request, "limit", "continue")
        limit = min(number(query, "limit") or _HISTORY_MAX, _HISTORY_MAX)
        before = number(query, "continue") or 0
        events = await self._store.history_of(target.key, limit + 1, before)
        if not events and not before:
            raise NotFoundError(f"{target.key} does not exist and never did, as far as is remembered")
        items = told_history(events)[:limit]
        metadata = {"continue": str(items[-1]["revision"])} if len(events) > limit else {}
        return answer({"kind": "History", "apiVersion": API_VERSION, "metadata": metadata, "items": items})

    async def diff(self, request: Request, target: Target) -> Response:
        """GET how one generation differs from another, or from what is declared now (or was last)."""
        query = query_of(request, "from", "to")
        first = number(query, "from")
        if not first:
            raise RefusedError(400, "query parameter 'from' is missing: the generation to begin with")
        before = await self._store.at_generation(target.key, first)
        after = await self._store.at_generation(target.key, number(query, "to") or 0)
        return answer({"kind": "Diff", "apiVersion": API_VERSION, **told_diff(before, after)})

    async def _write(self, request: Request, target: Target, wanted: Wanted, why: str) -> Held:
        view = target.kind.view
        if view is not None:
            wanted = view.through(wanted)
        await check_leaving(self._store, target.key, wanted)
        wanted = guarded(request, target.key, wanted)
        held = await self._store.write(Change(target.key, wanted, actor_of(request), why))
        return None if held is None else target.kind.shown(held)

    async def _page(self, target: Target, matches: Matches | None, limit: int, token: str) -> Response:
        begun = Continue.parse(token) if token else None
        after = Key(target.kind.name, begun.namespace, begun.name) if begun else None
        page = await self._store.page(target.kind.stored, target.namespace, most=limit, after=after)
        revision = begun.revision if begun else page.revision
        metadata = {"resourceVersion": str(revision)}
        if page.more_after is not None:
            going_on = Continue(revision, page.more_after.namespace, page.more_after.name)
            metadata["continue"] = going_on.token()
        return _list(target, matches, page.items, metadata)

    async def _whole(self, target: Target, matches: Matches | None, first: Page) -> AsyncIterator[bytes]:
        """A long list as it is read, so that it need not fit in memory."""
        yield b'{"kind":"%bList","apiVersion":"%b","metadata":{"resourceVersion":"%d"},"items":[' % (
            target.kind.name.encode(),
            target.kind.api_version.encode(),
            first.revision,
        )
        chunk, comma = bytearray(), b""
        async for resource in every(self._store, target, first):
            shown = target.kind.shown(resource)
            if matches is not None and not matches(shown):
                continue
            chunk += comma + to_json(shown)
            comma = b","
            if len(chunk) > _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk) + b"]}"

    async def _watch(self, request: Request, target: Target) -> Response:
        known = ("watch", "resourceVersion", "labelSelector", "timeoutSeconds", "allowWatchBookmarks")
        query = query_of(request, *known)
        truth(query, "allowWatchBookmarks")
        watch = Watch(
            target=target,
            matches=selector(query),
            since=number(query, "resourceVersion") or None,
            timeout_seconds=number(query, "timeoutSeconds"),
        )
        if watch.since is not None:
            await self._check_remembered(watch.since)
        return StreamingResponse(watching(self._store, self._feed, self._clock, watch), media_type=JSON)

    async def _check_remembered(self, since: int) -> None:
        """Refuse a watch from where nothing is known: with a proper answer, before a stream begins."""
        newest = self._store.changed.value
        if since > newest:
            raise ExpiredError(f"the store is at revision {newest}, not yet at {since}; list again")
        await self._store.events(since, 1)


def _of(target: Target, resource: Resource) -> Target:
    """A new resource, at what its list is."""
    return replace(target, name=resource.metadata.name)


def _list(
    target: Target, matches: Matches | None, items: list[Resource], metadata: dict[str, str]
) -> Response:
    shown = map(target.kind.shown, items)
    selected = [item for item in shown if matches is None or matches(item)]
    kind = f"{target.kind.name}List"
    return answer(
        {"kind": kind, "apiVersion": target.kind.api_version, "metadata": metadata, "items": selected}
    )


def _why(query: dict[str, str], resource: Resource | None) -> str:
    """The reason for a change, as its author gave it."""
    why = query.get("why", "")
    if not why and resource is not None:
        why = resource.metadata.annotations.get(CHANGE_CAUSE, "")
    if len(why) > _WHY_CHARACTERS_MAX:
        raise RefusedError(400, f"the reason ('why') is over {_WHY_CHARACTERS_MAX} characters")
    return why


def _patching(target: Target, patch: JsonObject) -> Wanted:
    """The change that `patch` means; what comes out must be as sound as what people send whole."""
    change = merge_patching(target.shown, patch)

    def wanted(held: Held) -> Held:
        if held is not None:
            merged = merge(msgspec.to_builtins(held), patch)
            problems = envelope_problems(merged, target.kind)
            if problems:
                raise InvalidError(str(target.shown), problems)
        return change(held)

    return wanted
