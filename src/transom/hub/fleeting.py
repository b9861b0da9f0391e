"""Takes away what was not written for a while, of kinds that do not last (Events, after an hour).

It goes as if somebody had deleted it: who watches sees it go. Next on the data's way: `store`.
"""

from functools import partial

from transom.hub import store_fleeting
from transom.hub.changes import Actor, Change, Held, Wanted
from transom.hub.store import Store
from transom.runtime.clock import Clock, rfc3339

_AT_ONCE = 500


async def forget_fleeting(store: Store, clock: Clock) -> int:
    """Take away all that is due; returns how many went. Raises what the store raises."""
    gone = 0
    for kind in store.catalog:
        if kind.fleeting is None or not kind.fleeting.keep_seconds:
            continue
        before = rfc3339(clock.wall() - kind.fleeting.keep_seconds)
        actor = Actor(kind.owner, "hub")
        while True:
            due = await store.read(partial(store_fleeting.due, kind=kind.name, before=before, most=_AT_ONCE))
            changes = [Change(key, _going(revision), actor, "its time was over") for key, revision in due]
            outcomes = await store.write_all(changes) if changes else []
            taken = sum(outcome is None for outcome in outcomes)
            gone += taken
            if not taken or len(due) < _AT_ONCE:
                break
    return gone


def _going(revision: int) -> Wanted:
    """Delete it, unless it was written since."""

    def wanted(held: Held) -> Held:
        return held if held and held.metadata.resource_version != str(revision) else None

    return wanted
