"""Watching: what changed since a revision, told as it happens, one JSON object a line.

All watchers share one bounded memory of recent changes (`Feed`), so that a change is read from the store and
put into a line once however many watch; who has fallen behind it reads from the store again. A watcher that
does not read its lines holds up nobody: nothing is queued for it, it goes on from the revision it was last
told.

A watch with a selector tells of what comes to be selected as ADDED and of what ceases to be as DELETED: each
change knows what it replaced. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes

Who has lost the right to watch is told nothing from there on: keys and bindings change in the same order as
all else, so the feed knows whether one did, and a watch asks its gate again before it goes on.
"""

import asyncio
import contextlib
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property

from transom.hub.access.table import ACCESS_KINDS
from transom.hub.api.errors import status_of
from transom.hub.api.rendering import Rendering, line
from transom.hub.api.selectors import Selector
from transom.hub.store import Store
from transom.hub.store_snapshots import Chosen, Snapshot, StoredChange
from transom.model.errors import ExpiredError, TransomError, UnreachableError
from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import JsonObject, Resource, from_json, to_json
from transom.runtime.clock import Clock
from transom.runtime.signals import Level
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

BOOKMARK_SECONDS = 15.0
_CHECK_SECONDS = 15.0
"""So often is looked whether a key or token has expired; that is no change."""

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_FEED_CHANGES_MAX = 4096
_FEED_BYTES_MAX = 16 * 1024 * 1024
_READ_MAX = 500
_PAGE = 500


class Told:
    """A change, and the lines that tell it; what only some watchers need is made when the first one does."""

    def __init__(self, change: StoredChange) -> None:
        self.revision = change.revision
        self.key = change.key
        self.bytes = len(change.body) + len(change.before or b"")
        self._change = change

    @cached_property
    def line(self) -> bytes:
        """What everybody is told who has no selector."""
        return line(self._change.event, self._change.body)

    @cached_property
    def now(self) -> Resource:
        """What there is, or was last."""
        return from_json(self._change.body)

    @cached_property
    def before(self) -> Resource | None:
        """What there was before; None before it was made."""
        return None if self._change.before is None else from_json(self._change.before)

    def seen_as(self, kind: Kind) -> "Told":
        """The same for clients who see what is stored as another kind."""
        if kind.view is None:
            return self
        was = None if self._change.before is None else shown_as(kind, self._change.before)
        return Told(self._change._replace(body=shown_as(kind, self._change.body), before=was))

    def shown(self, shown: Rendering) -> bytes:
        """The line for a watch; made once for all who are shown what is stored as it is."""
        return self.line if shown.as_stored else shown.line(self._change.event, self._change.body)

    def selected(self, selector: Selector) -> "Told | None":
        """The change for a watch with a selector; None when it is none of its business."""
        was = self.before is not None and selector(self.before)
        if self._change.event != "DELETED" and selector(self.now):
            if self._change.event == "ADDED" or was:
                return self
            return Told(self._change._replace(event="ADDED"))
        return self._gone if was else None

    @cached_property
    def _gone(self) -> "Told":
        """That it is gone, for who saw what was before: as it was, at the revision of this change."""
        assert self.before is not None  # noqa: S101  # asked for by those who selected it
        last = self.before.with_metadata(resource_version=str(self.revision))
        return Told(self._change._replace(event="DELETED", body=to_json(last)))


def shown_as(kind: Kind, stored: bytes) -> bytes:
    """What is stored, as clients of `kind` see it."""
    return stored if kind.view is None else to_json(kind.shown(from_json(stored)))


class Feed:
    """The newest changes of the store, in revision order, read once for all who watch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Told] = deque()
        self._bytes = 0
        # `_recent` holds every change after the first of these revisions, up to the second.
        self._complete_after = self._upto = store.changed.value
        self._is_read = False
        self._turns = Level()
        self.access = self._upto
        """The last revision, among those read, that may have changed who may watch."""

    async def above(self, seen: int, seconds: float) -> None:
        """Wait until there are changes after revision `seen`, or the time is up.

        One who waits reads for all, so that a commit wakes one, and a reading everybody once. It may be
        cancelled, or its time be up: somebody else goes on then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._upto <= seen:
                    if self._is_read:
                        await self._turns.above(self._turns.value)
                    else:
                        await self._read()

    async def _read(self) -> None:
        self._is_read = True
        try:
            await self._store.changed.above(self._upto)
            await self._catch_up()
        finally:
            self._is_read = False
            self._turns.rise()

    async def after(self, seen: int, chosen: Chosen) -> tuple[list[Told], int]:
        """Changes of what was chosen after revision `seen`, and the revision up to which that is all.

        Raises `ExpiredError` when they are forgotten.
        """
        remembered = self._complete_after
        if seen < remembered:
            changes = await self._store.changes(seen, _READ_MAX, chosen)
            upto = changes[-1].revision if len(changes) == _READ_MAX else remembered
            return [Told(change) for change in changes if change.revision <= upto], upto
        # From the end, where most go on.
        newer = itertools.takewhile(lambda told: told.revision > seen, reversed(self._recent))
        found = [told for told in newer if _concerns(told.key, chosen)]
        return found[::-1], max(seen, self._upto)

    async def _catch_up(self) -> None:
        newest = self._store.changed.value
        if newest - self._upto > _FEED_CHANGES_MAX:
            self._begin_again(newest)
        while self._upto < newest:
            try:
                changes = await self._store.changes(self._upto, _READ_MAX)
            except ExpiredError:
                self._begin_again(newest)
                return
            for change in changes:
                self._remember(Told(change))
            # A last page may hold what was committed since `newest` was read; the filtered out count, too.
            last = changes[-1].revision if changes else 0
            self._upto = last if len(changes) == _READ_MAX else max(newest, last)

    def _begin_again(self, revision: int) -> None:
        """Nobody watched for a while: remember from here on; who wants older changes reads the store."""
        self._recent.clear()
        self._bytes = 0
        self._complete_after = self._upto = self.access = revision

    def _remember(self, told: Told) -> None:
        self._recent.append(told)
        self._bytes += told.bytes
        if told.key.kind in ACCESS_KINDS:
            self.access = told.revision
        while len(self._recent) > _FEED_CHANGES_MAX or self._bytes > _FEED_BYTES_MAX:
            oldest = self._recent.popleft()
            self._bytes -= oldest.bytes
            self._complete_after = oldest.revision


def _concerns(key: Key, chosen: Chosen) -> bool:
    return (
        key.kind == chosen.kind and chosen.namespace in ("", key.namespace) and chosen.name in ("", key.name)
    )


@dataclass(frozen=True)
class Watch:
    """What one client watches.

    `since` None: everything there is first, as ADDED; `tells_end`: a bookmark says when that was all.
    `seconds` None: for as long as the client likes. `check` raises when the client may not watch any more.
    """

    kind: Kind
    shown: Rendering
    chosen: Chosen
    selector: Selector
    check: Callable[[], Awaitable[None]]
    since: int | None = None
    seconds: int | None = None
    bookmarks: bool = False
    tells_end: bool = False


async def watching(store: Store, feed: Feed, clock: Clock, watch: Watch) -> AsyncIterator[bytes]:
    """The lines of a watch, for ever or for its time; an ERROR line ends it when changes are forgotten."""
    try:
        async for text in _lines(store, feed, clock, watch):
            yield text
    except Exception as error:
        # The answer has begun, so it must be told in it.
        status = status_of(error)
        if not isinstance(error, TransomError):
            log.exception("watch failed", kind=watch.kind.name)
        yield line("ERROR", to_json(status))


async def _lines(store: Store, feed: Feed, clock: Clock, watch: Watch) -> AsyncIterator[bytes]:
    ends = clock.monotonic() + (math.inf if watch.seconds is None else watch.seconds)
    seen, checked = watch.since, -1
    if seen is None:
        checked = feed.access
        # The store is asked where it is: another process may have written what is not heard of here yet.
        first = await store.snapshot(watch.chosen, None, None, _PAGE)
        seen = first.revision
        await watch.check()
        async for text in _initial(store, watch, first):
            yield text
    told_at = checked_at = clock.monotonic()
    while (now := clock.monotonic()) < ends:
        changes, seen = await feed.after(seen, watch.chosen)
        if feed.access > checked:
            # `changes` end before whatever the feed has not read yet, a revocation too; and what it has read
            # is known to the gate once it is announced.
            checked, checked_at = feed.access, now
            if not store.database.is_shared:  # where it is, the gate asks the store itself
                await store.changed.above(checked - 1)
            await watch.check()
        elif now - checked_at >= _CHECK_SECONDS:
            checked_at = now
            with contextlib.suppress(UnreachableError):
                await watch.check()
        text = _told(watch, changes)
        if text:
            yield text
            told_at = now
        if watch.bookmarks and now - told_at >= BOOKMARK_SECONDS:
            yield _bookmark(watch, seen)
            told_at = now
        await feed.above(seen, min(BOOKMARK_SECONDS, ends - now))
    if watch.bookmarks:
        # Who watches on from here misses nothing and hears nothing twice.
        yield _bookmark(watch, seen)


async def _initial(store: Store, watch: Watch, page: Snapshot) -> AsyncIterator[bytes]:
    """Everything there is at the revision of its first page, and where that is asked for, that it was all."""
    while True:
        selector = watch.selector
        bodies = [shown_as(watch.kind, row.body) for row in page.rows]
        lines = (
            watch.shown.line("ADDED", body) for body in bodies if not selector or selector(from_json(body))
        )
        yield b"".join(lines)
        if not page.more:
            break
        page = await store.snapshot(watch.chosen, page.revision, page.rows[-1].key, _PAGE)
    if watch.tells_end and watch.bookmarks:
        yield _bookmark(watch, page.revision, {_INITIAL_EVENTS_END: "true"})


def _told(watch: Watch, changes: list[Told]) -> bytes:
    """What is to be sent for some changes, all at once."""
    seen = (told.seen_as(watch.kind) for told in changes)
    events = (told.selected(watch.selector) if watch.selector else told for told in seen)
    return b"".join(event.shown(watch.shown) for event in events if event is not None)


def _bookmark(watch: Watch, revision: int, annotations: dict[str, str] | None = None) -> bytes:
    metadata: JsonObject = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    return watch.shown.bookmark(metadata)
