"""The verbs on many resources: list, watch, and delete a collection; the same for any kind.

All pages of one list show exactly one revision, the one at which the first was read, whatever is written
meanwhile; a long list without a limit, too. Where nothing must be looked at, the bytes that are stored go out
as they are. Next on the data's way: `hub.store_snapshots`, and `watch` for what changes.
https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from transom.hub.access.callers import actor_of
from transom.hub.api.bodies import read_options
from transom.hub.api.errors import JSON, ContinueExpiredError, RefusedError
from transom.hub.api.gate import check_again
from transom.hub.api.options import DeleteOptions, ListOptions, deletion_of_many, listed
from transom.hub.api.paths import Target
from transom.hub.api.rendering import Rendering, rendering_for
from transom.hub.api.selectors import Selector
from transom.hub.api.watch import Feed, Watch, shown_as, watching
from transom.hub.changes import Actor, Change, deleting
from transom.hub.leaving import check_leaving
from transom.hub.store import Store
from transom.hub.store_snapshots import Chosen, Row, Snapshot
from transom.model.errors import UNREADABLE, ExpiredError, NotFoundError, NotReachedError, TransomError
from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import from_json, to_json
from transom.runtime.clock import Clock

LIST_MAX = 1000
"""A larger `limit` is as good as this one; the answer says how to go on."""
_PAGE = 500
_CHUNK_BYTES = 64 * 1024
_DELETED_AT_ONCE = 100
_REACHED_SECONDS = 3.0
_INCONSISTENT = -1
"""In the place of a revision: whatever there is now."""


class Continue(NamedTuple):
    """Where a list goes on: behind this key, at the revision at which it began; how many are left there
    (-1 when that is not known).
    """

    revision: int
    namespace: str
    name: str
    remaining: int = -1

    def token(self) -> str:
        """As clients carry it, without knowing what it holds."""
        return base64.urlsafe_b64encode(to_json(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> "Continue":
        """Read what `token` wrote. Raises `RefusedError`."""
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            found = msgspec.json.decode(data, type=cls)
        except (binascii.Error, ValueError, *UNREADABLE):
            found = None
        if found is None or found.revision == 0 or found.revision < _INCONSISTENT:
            raise RefusedError(400, "continue key is not valid: it is none that a list gave; list without it")
        return found


class Lists:
    """The endpoints for many resources, over one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._feed = Feed(store)

    async def list_or_watch(self, request: Request, target: Target) -> Response:
        """GET a list; with `watch=true`, what changes."""
        options = listed(request, target.kind)
        if options.watch:
            return await self._watch(request, target, options)
        shown = rendering_for(request, target.kind, "list", self._clock.wall)
        await reached(self._store, options.revision)
        at = _exactly(options)
        if options.limit or options.token:
            return await self._page(target, shown, options, at)
        first = await self._store.snapshot(chosen(target, options.selector), at, None, _PAGE)
        if not first.more:
            rows = _seen(target, first).rows
            bodies = [row.body for row in rows if _selects(options.selector, row)]
            return _list(shown, bodies, {"resourceVersion": str(first.revision)})
        return StreamingResponse(self._whole(target, shown, options.selector, first), media_type=JSON)

    async def delete_all(self, request: Request, target: Target) -> Response:
        """DELETE a list: each that is selected, as it would be alone; answers them as they were.

        What others delete meanwhile is none of its business; of what is refused the first is told, when all
        else is done.
        """
        if target.kind.namespaced and not target.namespace:
            raise RefusedError(405, f"a {target.kind.name} is deleted in a tenant: namespaces/TENANT/…")
        options, how = deletion_of_many(request, target.kind, await read_options(request))
        shown = rendering_for(request, target.kind, "list", self._clock.wall)
        await reached(self._store, options.revision)
        first = await self._store.snapshot(chosen(target, options.selector), _exactly(options), None, _PAGE)
        actor, bodies = actor_of(request), list[bytes]()
        refused: TransomError | None = None
        async for rows in _pages(self._store, target, options.selector, first):
            selected = [row for row in rows if _selects(options.selector, row)]
            if options.limit:
                selected = selected[: options.limit - len(bodies)]
            bodies += [row.body for row in selected]
            refused = refused or await self._delete(target.kind, selected, how, actor)
            if options.limit and len(bodies) >= options.limit:
                break
        if refused is not None:
            raise refused
        return _list(shown, bodies, {"resourceVersion": str(self._store.changed.value)})

    async def _delete(
        self, kind: Kind, rows: list[Row], how: DeleteOptions, actor: Actor
    ) -> TransomError | None:
        """Delete `rows` if they are still the same; the first refusal, if there is one."""
        refused: TransomError | None = None
        for at in range(0, len(rows), _DELETED_AT_ONCE):
            changes = [_deletion(kind, row, how, actor) for row in rows[at : at + _DELETED_AT_ONCE]]
            for change in changes:
                await check_leaving(self._store, change.key, change.wanted)
            outcomes = await self._store.write_all(changes, rehearsed=how.dry_run)
            errors = [each for each in outcomes if isinstance(each, TransomError)]
            refused = refused or next((each for each in errors if not isinstance(each, NotFoundError)), None)
        return refused

    async def _page(self, target: Target, shown: Rendering, options: ListOptions, at: int | None) -> Response:
        begun = Continue.parse(options.token) if options.token else None
        after, left = None, -1
        if begun is not None:
            after, left = Key(target.kind.name, begun.namespace, begun.name), begun.remaining
            at = begun.revision if begun.revision != _INCONSISTENT else None
        most = min(options.limit or LIST_MAX, LIST_MAX)
        try:
            found = await self._selected(target, options.selector, at, after, most)
        except ExpiredError:
            if begun is None:
                raise
            raise ContinueExpiredError(begun._replace(revision=_INCONSISTENT, remaining=-1).token()) from None
        metadata: dict[str, str | int] = {"resourceVersion": str(found.revision)}
        if found.more:
            remaining = left - len(found.rows) if left > len(found.rows) else found.remaining
            going_on = Continue(
                found.revision, *found.rows[-1].key[1:], -1 if remaining is None else remaining
            )
            metadata["continue"] = going_on.token()
            if remaining is not None:
                metadata["remainingItemCount"] = remaining
        return _list(shown, [row.body for row in found.rows], metadata)

    async def _selected(
        self, target: Target, selector: Selector, at: int | None, after: Key | None, most: int
    ) -> Snapshot:
        """Up to `most` of what is selected, however many must be looked at for it."""
        those = chosen(target, selector)
        if not selector:
            count = after is None
            return _seen(target, await self._store.snapshot(those, at, after, most, count=count))
        rows: list[Row] = []
        while True:
            page = _seen(target, await self._store.snapshot(those, at, after, max(most, _PAGE)))
            for number, row in enumerate(page.rows):
                if _selects(selector, row):
                    rows.append(row)
                if len(rows) == most:
                    more = page.more or number + 1 < len(page.rows)
                    return Snapshot(rows, page.revision, more, None)
            if not page.more:
                return Snapshot(rows, page.revision, more=False, remaining=None)
            at, after = page.revision, page.rows[-1].key

    async def _whole(
        self, target: Target, shown: Rendering, selector: Selector, first: Snapshot
    ) -> AsyncIterator[bytes]:
        """A long list as it is read, so that it need not fit in memory."""
        chunk = bytearray(shown.opening({"resourceVersion": str(first.revision)}))
        comma = b""
        async for rows in _pages(self._store, target, selector, first):
            for row in rows:
                if _selects(selector, row):
                    chunk += comma + shown.item(row.body)
                    comma = b","
            if len(chunk) > _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk) + shown.closing

    async def _watch(self, request: Request, target: Target, options: ListOptions) -> Response:
        """What changes, from `resourceVersion` on; first what there is, where that is asked for.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch
        """
        shown = rendering_for(request, target.kind, "watch", self._clock.wall)
        await reached(self._store, options.revision, expired=True)
        initial = not options.revision if options.initial is None else options.initial
        since = None
        if not initial:
            # Without a revision from now on: the store says what that is, other processes write to it, too.
            since = options.revision or (await self._store.standing())[1]
            # A proper answer, before a stream begins, when what it needs is forgotten.
            await self._store.changes(since, 1)
        watch = Watch(
            kind=target.kind,
            shown=shown,
            chosen=chosen(target, options.selector),
            selector=options.selector,
            since=since,
            seconds=options.seconds,
            bookmarks=options.bookmarks,
            tells_end=bool(options.initial),
            check=partial(check_again, request),
        )
        return StreamingResponse(watching(self._store, self._feed, self._clock, watch), media_type=JSON)


async def reached(store: Store, revision: int | None, *, expired: bool = False) -> None:
    """Wait a little until the store, as far as this process knows, is at `revision`.

    Raises `NotReachedError` when it is not then; with `expired` an `ExpiredError` says that the client must
    list again: it has seen a store that is no more.
    """
    if not revision or revision <= store.changed.value:
        return
    newest = await store.changed.above(revision - 1, _REACHED_SECONDS)
    if newest >= revision:
        return
    if expired:
        raise ExpiredError(f"the store is at revision {newest}, not yet at {revision}; list again")
    raise NotReachedError(revision, newest)


def chosen(target: Target, selector: Selector) -> Chosen:
    """What the store must look at for `selector`: one name or one namespace it finds by itself."""
    return Chosen(target.kind.stored, target.namespace or selector.namespace or "", selector.name or "")


def _exactly(options: ListOptions) -> int | None:
    """The revision to show; None for the newest. A limit has always meant exactly the revision given."""
    if not options.revision or options.match == "NotOlderThan":
        return None
    return options.revision if options.match == "Exact" or options.limit else None


def _deletion(kind: Kind, row: Row, how: DeleteOptions, actor: Actor) -> Change:
    """The deletion of one of many, if it is still the same."""
    uid = how.uid or from_json(row.body).metadata.uid
    wanted = deleting(row.key._replace(kind=kind.name), how.resource_version, uid)
    if kind.view is not None:
        wanted = kind.view.through(wanted)
    return Change(row.key, wanted, actor, how.why, propagation=how.propagation)


def _seen(target: Target, page: Snapshot) -> Snapshot:
    """A page as clients of this kind see it."""
    if target.kind.view is None:
        return page
    return page._replace(rows=[Row(row.key, shown_as(target.kind, row.body)) for row in page.rows])


def _selects(selector: Selector, row: Row) -> bool:
    return not selector or selector(from_json(row.body))


async def _pages(
    store: Store, target: Target, selector: Selector, first: Snapshot
) -> AsyncGenerator[list[Row]]:
    """The rows that `first` begins, page by page, all as of its revision."""
    page = _seen(target, first)
    yield page.rows
    while page.more:
        after = page.rows[-1].key
        page = await store.snapshot(chosen(target, selector), first.revision, after, _PAGE)
        page = _seen(target, page)
        yield page.rows


def _list(shown: Rendering, bodies: list[bytes], metadata: dict[str, Any]) -> Response:
    items = b",".join(map(shown.item, bodies))
    return Response(shown.opening(metadata) + items + shown.closing, media_type=JSON)
