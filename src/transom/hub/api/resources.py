"""The verbs on one resource: create, get, replace, patch, delete, history; the same for any kind.

Each turns a request into a `Change` of `hub.changes` or a question to the store. Who may write what, what a
spec may hold, and which version must be held is decided there, inside the transaction; a dry run goes through
the same one. Next on the data's way: `hub.store`; and back, `errors` for what is refused.
"""

import dataclasses
from collections.abc import Iterable
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from transom.hub.access.callers import actor_of
from transom.hub.api.applying import Applied, FieldManagement
from transom.hub.api.bodies import (
    Patched,
    is_applied,
    read_applied,
    read_options,
    read_patch,
    read_resource,
    resource_from,
)
from transom.hub.api.errors import JSON, OptionsError, RefusedError, Subject, answer, remember_subject
from transom.hub.api.gate import guarded
from transom.hub.api.history import told_diff, told_history
from transom.hub.api.lists import reached
from transom.hub.api.options import (
    DELETE_WORDS,
    DeleteOptions,
    WriteOptions,
    delete_options,
    revision_in,
    write_options,
)
from transom.hub.api.paths import Target
from transom.hub.api.query import number, query_of
from transom.hub.api.rendering import INCLUDE_OBJECT, Rendering, rendering_for
from transom.hub.api.wire import object_on_wire
from transom.hub.changes import Change, Held, Wanted, creating, deleting, replacing, setting_status, updating
from transom.hub.leaving import check_leaving
from transom.hub.store import Store
from transom.model.errors import ExistsError, NotFoundError, Problem
from transom.model.names import LABEL_CHARACTERS_MAX
from transom.model.resources import API_VERSION, JsonObject, Resource
from transom.runtime.clock import Clock

_HISTORY_MAX = 500
_WARNED_MAX = 20
_NAMED_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What generated names end in: no vowels, so that they spell no words."""
_NAMED_LENGTH = 5
_NAMED_TRIES = 8


class Resources:
    """The endpoints for single resources, over one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._fields = FieldManagement(store.catalog)

    async def create(self, request: Request, target: Target) -> Response:
        """POST to a list: 201 and the resource. With `generateName` alone, the hub makes the name."""
        options, shown = write_options(request, "CreateOptions"), self._shown(request, target)
        if target.kind.namespaced and not target.namespace:
            raise RefusedError(405, f"a {target.kind.name} is created in a tenant: namespaces/TENANT/…")
        body = await read_resource(request)
        prefix = "" if _said(body, "name") else _said(body, "generateName")
        for tries_left in reversed(range(_NAMED_TRIES if prefix else 1)):
            if prefix:
                body = self._named(body, prefix)
            remember_subject(request.scope, Subject(target.kind, _said(body, "name")))
            resource, warnings = resource_from(body, target, options.validation)
            new = dataclasses.replace(target, name=resource.metadata.name)
            if resource.metadata.resource_version:
                raise RefusedError(400, "resourceVersion should not be set on objects to be created")
            wanted = creating(resource.with_status({}))
            change = self._change(request, new, wanted, options)
            try:
                return _answer(shown, await self._write(request, new, change, options), warnings, 201)
            except ExistsError:
                if not tries_left:
                    raise
        raise AssertionError  # the last try returns or raises

    async def replace(self, request: Request, target: Target) -> Response:
        """PUT: the resource, or its status, made as it was sent."""
        options, shown = write_options(request, "UpdateOptions"), self._shown(request, target)
        resource, warnings = resource_from(await read_resource(request), target, options.validation)
        wanted = _restating(resource) if target.subresource else replacing(resource)
        change = self._change(request, target, wanted, options)
        return _answer(shown, await self._changed(request, target, change, options), warnings)

    async def patch(self, request: Request, target: Target) -> Response:
        """PATCH: the resource, or its status, changed by a JSON merge patch or a JSON patch, or applied."""
        options, shown = write_options(request, "PatchOptions", "force"), self._shown(request, target)
        if is_applied(request):
            applied = self._fields.applying(target, await read_applied(request), options)
            change = self._change(request, target, applied, options)
            held = await self._changed(request, target, change, options)
            return _answer(shown, held, applied.warnings, 201 if applied.created else 200)
        if options.force is not None:
            said = Problem("force", "may not be specified for non-apply patch", "Forbidden")
            raise OptionsError("PatchOptions", [said])
        patching = _Patching(target, await read_patch(request), options)
        change = self._change(request, target, patching, options)
        return _answer(shown, await self._changed(request, target, change, options), patching.warnings)

    async def delete(self, request: Request, target: Target) -> Response:
        """DELETE: the resource while it waits for its finalizers, else a Status of success."""
        query, shown = query_of(request, *DELETE_WORDS), self._shown(request, target)
        options = delete_options(query, await read_options(request))
        wanted, uids = deleting(target.shown, options.resource_version, options.uid), [""]

        def noting(held: Held) -> Held:
            uids[0] = held.metadata.uid if held else ""
            return wanted(held)

        change = Change(
            target.key,
            noting,
            actor_of(request),
            options.why,
            propagation=options.propagation,
        )
        held = await self._write(request, target, change, options)
        if held is not None:
            return _answer(shown, held)
        details = {
            "name": target.name,
            "group": target.kind.group,
            "kind": target.kind.plural,
            "uid": uids[0],
        }
        return answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    async def get(self, request: Request, target: Target) -> Response:
        """GET one resource, at least as new as `resourceVersion`."""
        query, shown = query_of(request, "resourceVersion", INCLUDE_OBJECT), self._shown(request, target)
        await reached(self._store, revision_in(query))
        return Response(shown.one_stored(await self._store.stored(target.key)), media_type=JSON)

    async def history(self, request: Request, target: Target) -> Response:
        """GET the changes of one name in all its lives, newest first, `limit` at once."""
        query = query_of(request, "limit", "continue")
        limit = min(number(query, "limit") or _HISTORY_MAX, _HISTORY_MAX)
        before = number(query, "continue") or 0
        events = await self._store.history_of(target.key, limit + 1, before)
        if not events and not before:
            raise NotFoundError(f"{target.key} does not exist")  # as where nobody may know
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

    def _shown(self, request: Request, target: Target) -> Rendering:
        return rendering_for(request, target.kind, "one", self._clock.wall)

    async def _changed(
        self, request: Request, target: Target, change: Change, options: WriteOptions
    ) -> Resource:
        """What there is after `change`, or was there last, when that took away the last finalizer."""
        last: list[Resource] = []

        def noting(held: Held) -> Held:
            after = change.wanted(held)
            last[:] = [] if after is None else [after]
            return after

        held = await self._write(request, target, dataclasses.replace(change, wanted=noting), options)
        return target.kind.shown(last[0]) if held is None else held

    async def _write(
        self, request: Request, target: Target, change: Change, options: WriteOptions | DeleteOptions
    ) -> Held:
        view = target.kind.view
        if view is not None:
            change = dataclasses.replace(change, wanted=view.through(change.wanted))
        await check_leaving(self._store, change.key, change.wanted)
        change = dataclasses.replace(change, wanted=guarded(request, change.key, change.wanted))
        held = await self._store.write(change, rehearsed=options.dry_run)
        return None if held is None else target.kind.shown(held)

    def _change(self, request: Request, target: Target, wanted: Wanted, options: WriteOptions) -> Change:
        """The change that a client asks for, and the record of who manages what after it."""
        applied = isinstance(wanted, Applied)
        tracking = wanted.tracking if applied else self._fields.updating(request, target, options)
        actor = actor_of(request)
        return Change(target.key, wanted, actor, options.why, tracking=tracking)

    def _named(self, body: JsonObject, prefix: str) -> JsonObject:
        """The body with a name that begins with `prefix`."""
        ending = self._store.randomness.word(_NAMED_CHARACTERS, _NAMED_LENGTH)
        name = prefix[: LABEL_CHARACTERS_MAX - _NAMED_LENGTH] + ending
        return {**body, "metadata": {**body["metadata"], "name": name}}


class _Patching:
    """The change that a patch means; what comes out must be as sound as what people send whole."""

    def __init__(self, target: Target, patched: Patched, options: WriteOptions) -> None:
        self._target = target
        self._patched = patched
        self._options = options
        self.warnings: list[str] = []

    def __call__(self, held: Held) -> Held:
        """See `hub.changes.Wanted`. The transaction may be done twice."""
        if held is None:
            raise NotFoundError(f"{self._target.shown} does not exist")
        whole = self._patched(object_on_wire(self._target.kind, held))
        resource, self.warnings = resource_from(whole, self._target, self._options.validation)
        return (_restating(resource) if self._target.subresource else updating(resource))(held)


def _restating(resource: Resource) -> Wanted:
    """Make its status as it was sent; all else stays."""
    meta = resource.metadata
    return setting_status(resource.key, meta.uid, resource.status, meta.resource_version)


def _answer(shown: Rendering, held: Held, warnings: Iterable[str] = (), code: int = 200) -> Response:
    """The answer that is one resource, with a Warning (RFC 7234, 5.5) for each field left out."""
    assert held is not None  # noqa: S101  # what no change leaves behind has been answered
    response = Response(shown.one(held), code, media_type=JSON)
    for warning in list(warnings)[:_WARNED_MAX]:
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        ascii_text = text.encode("ascii", "backslashreplace").decode()
        response.headers.append("Warning", f'299 - "{ascii_text}"')
    return response


def _said(body: JsonObject, field: str) -> str:
    """What the body's metadata has as `field`; empty where that is no text."""
    metadata = body.get("metadata")
    said = cast("JsonObject", metadata).get(field) if isinstance(metadata, dict) else None
    return said if isinstance(said, str) else ""
