"""The subresources that undo a deletion, or make it final: restore and purge.

Next on the data's way: `hub.undeletion`.
"""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from transom.hub.access.callers import actor_of
from transom.hub.api.errors import RefusedError, answer
from transom.hub.api.gate import guarded, require_creating
from transom.hub.api.paths import Target
from transom.hub.api.query import query_of
from transom.hub.changes import Wanted
from transom.hub.store import Store
from transom.hub.undeletion import purge, restore
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import API_VERSION, JsonObject
from transom.runtime.clock import Clock

_WHY_CHARACTERS_MAX = 1000


class Undo:
    """The endpoints that look at what was deleted, over one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def restore(self, request: Request, target: Target) -> Response:
        """POST: what was deleted comes back, and what was made for it: {items, left: what not, and why}."""
        why, rehearsed = _options(request)

        def guard(key: Key, wanted: Wanted) -> Wanted:
            kind = self._store.catalog[key.kind]
            if kind.owner == PEOPLE:
                require_creating(request, kind, key)
            return guarded(request, key, wanted)

        found = await restore(
            self._store, target.key, actor_of(request), why, guard=guard, rehearsed=rehearsed
        )
        items = [
            {**_named(each.key), "uid": each.metadata.uid, "generation": each.metadata.generation}
            for each in found.back
        ]
        left = [{**_named(key), "why": reason} for key, reason in found.left]
        return answer({"kind": "Restoration", "apiVersion": API_VERSION, "items": items, "left": left})

    async def purge(self, request: Request, target: Target) -> Response:
        """POST: nothing of what was deleted is kept any more, for a reason that is: {items: what}."""
        why, rehearsed = _options(request)
        if not why:
            raise RefusedError(400, "query parameter 'why' is missing: a purge cannot be undone, say why")
        actor = actor_of(request)
        keys = await purge(self._store, target.key, actor, why, self._clock, rehearsed=rehearsed)
        return answer({"kind": "Purge", "apiVersion": API_VERSION, "items": _all_named(keys)})


def _options(request: Request) -> tuple[str, bool]:
    """Why, and whether it is only to be said what would happen."""
    query = query_of(request, "why", "dryRun")
    why, dry_run = query.get("why", ""), query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise RefusedError(400, f"query parameter 'dryRun' must be All, not {dry_run!r}")
    if len(why) > _WHY_CHARACTERS_MAX:
        raise RefusedError(400, f"the reason ('why') is over {_WHY_CHARACTERS_MAX} characters")
    return why, dry_run == "All"


def _all_named(keys: Iterable[Key]) -> list[JsonObject]:
    return [_named(key) for key in keys]


def _named(key: Key) -> JsonObject:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}
