"""Watching: what changed since a revision, told as it happens, one JSON object a line.

All watchers share one bounded memory of recent changes (`Feed`), so that a change is read from the store and
encoded once however many watch; who has fallen behind it reads from the store again. A watcher that does not
read its lines holds up nobody: nothing is queued for it, it goes on from the revision it was last told.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import bisect
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from itertools import islice

import msgspec

from transom.hub.api.errors import status_of
from transom.hub.api.paths import Matches, Target
from transom.hub.store import Page, Store
from transom.hub.store_history import Event
from transom.model.errors import ExpiredError, TransomError
from transom.model.resources import Resource, to_json
from transom.runtime.clock import Clock
from transom.runtime.telemetry import get_logger

log = get_logger(__name__)

BOOKMARK_SECONDS = 15.0

_FEED_CHANGES_MAX = 4096
_FEED_BYTES_MAX = 16 * 1024 * 1024
_READ_MAX = 500
_PAGE = 500


class Told(msgspec.Struct, frozen=True):
    """A change, and the line that tells it."""

    revision: int
    event: str
    resource: Resource
    line: bytes


def _told(event: Event) -> Told:
    return Told(event.revision, event.event, event.resource, line(event.event, event.resource))


def line(event: str, resource: Resource) -> bytes:
    """One line of a watch."""
    return b'{"type":"%b","object":%b}\n' % (event.encode(), to_json(resource))


class Feed:
    """The newest changes of the store, in revision order, read once for all who watch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Told] = deque()
        self._bytes = 0
        # `_recent` holds every change after the first of these revisions, up to the second.
        self._complete_after = self._upto = store.changed.value
        self._reading = asyncio.Lock()

    async def after(self, seen: int, target: Target) -> tuple[list[Told], int]:
        """Changes of what `target` names after revision `seen`, and the revision up to which that is all.

        Raises `ExpiredError` when they are forgotten.
        """
        async with self._reading:
            await self._catch_up()
        kind, namespace = target.kind.stored, target.namespace
        remembered = self._complete_after
        if seen < remembered:
            events = await self._store.events(seen, _READ_MAX, kind, namespace)
            upto = events[-1].revision if len(events) == _READ_MAX else remembered
            return [_told(event) for event in events if event.revision <= upto], upto
        start = bisect.bisect_right(self._recent, seen, key=lambda told: told.revision)
        found = [
            told
            for told in islice(self._recent, start, None)
            if told.resource.kind == kind and namespace in ("", told.resource.metadata.namespace)
        ]
        return found, max(seen, self._upto)

    async def _catch_up(self) -> None:
        newest = self._store.changed.value
        if newest - self._upto > _FEED_CHANGES_MAX:
            self._begin_again(newest)
        while self._upto < newest:
            try:
                events = await self._store.events(self._upto, _READ_MAX)
            except ExpiredError:
                self._begin_again(newest)
                return
            for event in events:
                self._remember(_told(event))
            self._upto = events[-1].revision if events else newest

    def _begin_again(self, revision: int) -> None:
        """Nobody watched for a while: remember from here on; who wants older changes reads the store."""
        self._recent.clear()
        self._bytes = 0
        self._complete_after = self._upto = revision

    def _remember(self, told: Told) -> None:
        self._recent.append(told)
        self._bytes += len(told.line)
        while len(self._recent) > _FEED_CHANGES_MAX or self._bytes > _FEED_BYTES_MAX:
            oldest = self._recent.popleft()
            self._bytes -= len(oldest.line)
            self._complete_after = oldest.revision


@dataclass(frozen=True)
class Watch:
    """What one client watches. `since` None: everything there is first, as ADDED."""

    target: Target
    matches: Matches | None
    since: int | None
    timeout_seconds: int | None


async def watching(store: Store, feed: Feed, clock: Clock, watch: Watch) -> AsyncIterator[bytes]:
    """The lines of a watch, for ever or for its time; an ERROR line ends it when changes are forgotten."""
    try:
        async for text in _lines(store, feed, clock, watch):
            yield text
    except Exception as error:
        # The answer has begun, so it must be told in it.
        status = status_of(error)
        if not isinstance(error, TransomError):
            log.exception("watch failed", kind=watch.target.kind.name)
        yield to_json({"type": "ERROR", "object": status}) + b"\n"


async def _lines(store: Store, feed: Feed, clock: Clock, watch: Watch) -> AsyncIterator[bytes]:
    ends = clock.monotonic() + (math.inf if watch.timeout_seconds is None else watch.timeout_seconds)
    seen = watch.since
    shown: dict[str, int] = {}
    if seen is None:
        first = await first_page(store, watch.target)
        seen = first.revision
        async for resource in every(store, watch.target, first):
            if int(resource.metadata.resource_version) > seen:
                shown[resource.metadata.uid] = int(resource.metadata.resource_version)
            seen_so = watch.target.kind.shown(resource)
            if watch.matches is None or watch.matches(seen_so):
                yield line("ADDED", seen_so)
    told_at = clock.monotonic()
    while (now := clock.monotonic()) < ends:
        changes, seen = await feed.after(seen, watch.target)
        for change in changes:
            # A resource that changed while the first ones were shown was shown as it is since then.
            if change.revision > shown.get(change.resource.metadata.uid, 0):
                yield _line_for(watch, change)
                told_at = now
        if now - told_at >= BOOKMARK_SECONDS:
            yield _bookmark(watch.target, seen)
            told_at = now
        await store.changed.above(seen, min(BOOKMARK_SECONDS, ends - now))


def _line_for(watch: Watch, change: Told) -> bytes:
    """The line for a watch: with a selector, what is not selected now is, for this client, deleted.

    It may never have been selected; a client that does not have it has nothing to do.
    """
    shown = watch.target.kind.shown(change.resource)
    if watch.matches is not None and not watch.matches(shown):
        return line("DELETED", shown)
    return change.line if shown is change.resource else line(change.event, shown)


def _bookmark(target: Target, revision: int) -> bytes:
    bookmark = {
        "kind": target.kind.name,
        "apiVersion": target.kind.api_version,
        "metadata": {"resourceVersion": str(revision)},
    }
    return to_json({"type": "BOOKMARK", "object": bookmark}) + b"\n"


async def first_page(store: Store, target: Target) -> Page:
    """The first resources of a kind (of a tenant); the revision of all that `every` gives."""
    return await store.page(target.kind.stored, target.namespace, most=_PAGE)


async def every(store: Store, target: Target, first: Page) -> AsyncGenerator[Resource]:
    """Every resource of a kind (of a tenant), page by page; what changes meanwhile may be in it already."""
    page = first
    while True:
        for resource in page.items:
            yield resource
        if page.more_after is None:
            return
        page = await store.page(target.kind.stored, target.namespace, most=_PAGE, after=page.more_after)
