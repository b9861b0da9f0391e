"""The garbage collector: what people made for something goes when that goes, as Kubernetes has it.

Level-based: woken by a change or by the clock, it looks at owners and dependents as they are, plans purely,
and writes; killed anywhere, the next look plans what is left. It writes what people own, as one of them; what
a controller owns, that controller deletes (invariant 7). Each deletion is refused, where it is stored, when
what it follows from is not so any more: an owner that was brought back keeps what was made for it.
https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents
Next on the data's way: `store`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from transom.hub.changes import Actor, Change, Held, deleting
from transom.hub.ownership import (
    BACKGROUND,
    FOREGROUND,
    ORPHAN,
    ORPHANS_DEPENDENTS,
    WAITS_FOR_DEPENDENTS,
    owner_key,
)
from transom.hub.store import Store
from transom.hub.store_owned import Owned, owned
from transom.model.errors import ConflictError, TransomError
from transom.model.kinds import PEOPLE, Catalog
from transom.model.resources import OwnerReference, Resource
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

RESYNC_SECONDS = 600.0
_AT_ONCE = 500
_GATHER_SECONDS = 0.1
"""Nobody waits for what is collected; whoever changes much at once would wait for the looking."""
_ACTOR = Actor(PEOPLE, "garbage-collector")


def planned(found: Owned, catalog: Catalog) -> list[Change]:
    """What must be written now. Pure."""
    changes = [change for each in found.dependents for change in _for_dependent(each, found, catalog)]
    blocked, orphaning = set[str](), set[str]()
    for each in found.dependents:
        for reference in each.metadata.owner_references:
            orphaning.add(reference.uid)
            if reference.block_owner_deletion:
                blocked.add(reference.uid)
    for uid, owner in found.owners.items():
        if owner is None or not owner.deleting or catalog[owner.kind].owner != PEOPLE:
            continue
        finalizers = owner.metadata.finalizers
        if WAITS_FOR_DEPENDENTS in finalizers and uid not in blocked:
            changes.append(_release(owner, WAITS_FOR_DEPENDENTS))
        if ORPHANS_DEPENDENTS in finalizers and uid not in orphaning:
            changes.append(_release(owner, ORPHANS_DEPENDENTS))
    return changes


def _for_dependent(dependent: Resource, found: Owned, catalog: Catalog) -> Iterator[Change]:
    solid, waiting, absent, orphaned = _sorted(dependent, found)
    if orphaned:
        yield _disowned(dependent, {each.uid for each in orphaned})
    elif solid and (waiting or absent):
        # It stays, and is of those that are left.
        yield _disowned(dependent, {each.uid for each in (*waiting, *absent)})
    elif not solid and (waiting or absent) and not dependent.deleting:
        named = (
            (owner_key(catalog, each, dependent.key.namespace), each.uid) for each in (*waiting, *absent)
        )
        gone = tuple((key, uid) for key, uid in named if key is not None)
        wanted = deleting(dependent.key, dependent.metadata.resource_version, dependent.metadata.uid)
        policy = _policy(dependent, found) if waiting else _own_policy(dependent)
        first, state = (absent[0], "gone") if absent else (waiting[0], "being deleted")
        why = f"{first.kind} {first.name!r}, for which it was made, is {state}"
        yield Change(dependent.key, wanted, _ACTOR, why, propagation=policy, gone=gone)


def _sorted(
    dependent: Resource, found: Owned
) -> tuple[list[OwnerReference], list[OwnerReference], list[OwnerReference], list[OwnerReference]]:
    """Its references: to owners that stay, that wait for it, that are gone, and that let it go."""
    solid: list[OwnerReference] = []
    waiting: list[OwnerReference] = []
    absent: list[OwnerReference] = []
    orphaned: list[OwnerReference] = []
    for reference in dependent.metadata.owner_references:
        owner = found.owners.get(reference.uid)
        if reference.uid not in found.owners:
            solid.append(reference)  # of a kind that is not known here: nobody can say that it is gone
        elif owner is None:
            absent.append(reference)
        elif not owner.deleting:
            solid.append(reference)
        elif ORPHANS_DEPENDENTS in owner.metadata.finalizers:
            orphaned.append(reference)
        elif WAITS_FOR_DEPENDENTS in owner.metadata.finalizers:
            waiting.append(reference)
        else:
            solid.append(reference)  # not gone yet
    return solid, waiting, absent, orphaned


def _policy(dependent: Resource, found: Owned) -> str:
    """How to delete what its owner waits for: with what waits for it in turn."""
    blocks = any(
        reference.uid == dependent.metadata.uid and reference.block_owner_deletion
        for each in found.dependents
        for reference in each.metadata.owner_references
    )
    return FOREGROUND if blocks else _own_policy(dependent)


def _own_policy(dependent: Resource) -> str:
    """As its own finalizers ask for it, else in the background."""
    if ORPHANS_DEPENDENTS in dependent.metadata.finalizers:
        return ORPHAN
    return FOREGROUND if WAITS_FOR_DEPENDENTS in dependent.metadata.finalizers else BACKGROUND


def _disowned(dependent: Resource, uids: set[str]) -> Change:
    def wanted(held: Held) -> Held:
        held = _as_planned(held, dependent)
        left = [each for each in held.metadata.owner_references if each.uid not in uids]
        return held.with_metadata(owner_references=left)

    return Change(dependent.key, wanted, _ACTOR, "for whom it was made is gone, or lets it go")


def _release(owner: Resource, finalizer: str) -> Change:
    def wanted(held: Held) -> Held:
        held = _as_planned(held, owner)
        return held.with_metadata(finalizers=[name for name in held.metadata.finalizers if name != finalizer])

    return Change(owner.key, wanted, _ACTOR, "nothing waits for it any more")


def _as_planned(held: Held, seen: Resource) -> Resource:
    if held is None or held.metadata.resource_version != seen.metadata.resource_version:
        raise ConflictError(f"{seen.key} has changed since it was looked at")
    return held


@dataclass
class GarbageCollector:
    """Collects in one store, for as long as its leases hold."""

    store: Store
    clock: Clock
    randomness: Randomness
    resync_seconds: float = RESYNC_SECONDS

    async def run(self) -> None:
        """Collect for ever. Raises what the store raises."""
        while True:
            # All there is: what was left undone, by whomever.
            after, ends = 0, self.clock.monotonic() + self.randomness.jitter(self.resync_seconds)
            while (left := ends - self.clock.monotonic()) > 0:
                seen = self.store.changed.value
                after = await self.collect(after)
                await self.store.changed.above(seen, left)
                await self.clock.sleep(_GATHER_SECONDS)

    async def collect(self, after: int) -> int:
        """Collect what follows from changes after revision `after`; returns up to where that is done."""
        while True:
            look = partial(owned, after=after, most=_AT_ONCE, catalog=self.store.catalog)
            found = await self.store.read(look)
            changes = planned(found, self.store.catalog)
            outcomes = await self.store.write_all(changes) if changes else []
            for change, outcome in zip(changes, outcomes, strict=True):
                if isinstance(outcome, TransomError):
                    log_event.info("not collected", key=str(change.key), error=str(outcome))
            if any(not isinstance(outcome, TransomError) for outcome in outcomes):
                continue  # what was written may let go of more: look at the same once more
            # What was refused is looked at again when something changes, and with everything.
            after = found.upto
            if not found.more:
                return after
