"""Bringing back what was deleted with all that went with it, and taking it away for good.

Both look first at what there is, and are refused where it is written when that is not so any more. Whoever
asks names what people declared; what controllers made of it comes and goes along.
Next on the data's way: `store_write`, `store_deleted`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from transom.hub import store_deleted
from transom.hub.changes import Actor
from transom.hub.contexts.restore import GONE_FOR_GOOD
from transom.hub.restoring import Guard, restoring
from transom.hub.store import Store
from transom.hub.store_deleted import Deleted
from transom.hub.store_engine import News
from transom.model.errors import ForbiddenError, TransomError
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import Resource
from transom.runtime.clock import Clock, timestamp

_RETENTION = Actor("hub", "retention")
_PURGED_AT_ONCE = 200


class Restored(NamedTuple):
    """What came back, the one that was asked for first; and what stays deleted, each with why."""

    back: list[Resource]
    left: list[tuple[Key, str]]


async def restore(
    store: Store,
    key: Key,
    actor: Actor,
    why: str,
    *,
    guard: Guard = lambda _, wanted: wanted,
    rehearsed: bool = False,
) -> Restored:
    """Bring back `key` and what was deleted because of it, all or nothing; only say so when `rehearsed`.

    Raises what `store_deleted.family` raises; `ForbiddenError`; what a creation is refused for, and `guard`.
    """
    _require_declared(store, key, "bring back")
    if key.kind in GONE_FOR_GOOD:
        raise ForbiddenError(f"{key} was taken away by deleting it, and stays away; make a new one")
    found = await store.read(partial(store_deleted.family, key=key))
    left = [
        (each.asked.key, "what is taken away by deleting it stays away")
        for each in found
        if each.asked.kind in GONE_FOR_GOOD
    ]
    changes = [
        restoring(each.asked, each.tombstone, actor, why, guard)
        for each in found
        if each.asked.kind not in GONE_FOR_GOOD
    ]
    outcomes = await store.write_all(changes, together=True, rehearsed=rehearsed)
    for outcome in outcomes:
        if isinstance(outcome, TransomError):
            raise outcome
    return Restored([each for each in outcomes if isinstance(each, Resource)], left)


async def purge(
    store: Store, key: Key, actor: Actor, why: str, clock: Clock, *, rehearsed: bool = False
) -> list[Key]:
    """Take away for good what was deleted under `key`, and what went with it; returns what.

    Raises what `store_deleted.family` raises; `ForbiddenError`.
    """
    _require_declared(store, key, "purge")
    found: Sequence[Deleted] = await store.read(partial(store_deleted.family, key=key))
    keys = [each.asked.key for each in found]
    return keys if rehearsed else await _purge(store, keys, actor, why, clock)


async def purge_expired(store: Store, before: str, days: float, clock: Clock) -> None:
    """Take away for good all that was deleted before a time: its retention of so many days is over."""
    why = f"its retention of {days:g} days is over"
    while keys := await store.read(partial(store_deleted.expired, before=before, most=_PURGED_AT_ONCE)):
        await _purge(store, keys, _RETENTION, why, clock)


async def _purge(store: Store, keys: Sequence[Key], actor: Actor, why: str, clock: Clock) -> list[Key]:
    work = partial(
        store_deleted.purge,
        keys=keys,
        actor=actor,
        why=why,
        now=timestamp(clock),
        randomness=store.randomness,
        known=store.changed.value,
    )
    purged = await store.within(work)
    news = News(store.epoch, purged.since, purged.revision, purged.kinds, purged.regions)
    store.levels.committed(news)
    return purged.keys


def _require_declared(store: Store, key: Key, verb: str) -> None:
    kind = store.catalog[key.kind]
    if kind.owner != PEOPLE:
        raise ForbiddenError(f"a {kind.name} is made by {kind.owner!r}; {verb} what it was made for")
