"""What is held back and refused, as the builder remembers it: pure steps from one state to the next.

Next on the data's way: `builder` writes the state together with the rows.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from transom.hub.contexts.guards import DUPLICATE, allowances, guarded, hold_id, spent_of, weighs
from transom.hub.contexts.planning import Cause, Draft, Made, Refusal, Subject
from transom.hub.contexts.row import joined
from transom.hub.contexts.state import HOLDS_MAX, REFUSED_MAX, Builder, Hold, Job, Scope
from transom.model.contexts import ContextKind
from transom.model.resources import Resource
from transom.model.times import read_time
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)


def not_on_hold(state: Builder, drafts: Sequence[Draft]) -> list[Draft]:
    """Drafts without those of held scopes, unless their own resource was changed.

    A change of the tenant, or a raised schema, must not carry along what a guard holds.
    """
    held = {hold.scope for hold in state.holds if hold.guard != DUPLICATE}
    if not held:
        return list(drafts)
    return [
        draft
        for draft in drafts
        if draft.cause.what == "subject"
        or not weighs(draft)
        or held.isdisjoint((Scope(draft.row.kind), Scope(draft.row.kind, draft.row.tenant)))
    ]


def taking_over(state: Builder, overrides: Sequence[Resource], wall: float) -> Callable[[Made], bool]:
    """Which subjects may take a key over: those that were refused it before somebody allowed that."""
    since = {hold.id: hold.since for hold in state.holds if hold.guard == DUPLICATE}
    allowed = allowances(overrides, wall, state.spent)
    ids = {
        name
        for override in overrides
        if (name := override.metadata.name) in since
        and name in allowed
        # One that was spent before and given again is as good as a new one.
        and (name in state.spent or read_time(override.metadata.creation_timestamp or "") >= since[name])
    }
    refused = {(each.kind, each.subject) for each in state.refused if each.guard == DUPLICATE}

    def may(made: Made) -> bool:
        mine = hold_id(DUPLICATE, made.kind.name, made.subject.tenant)
        return mine in ids and (made.kind.name, str(made.subject.key)) in refused

    return may


def with_hold(state: Builder, hold: Hold) -> Builder:
    """With what is held; it is counted as a whole once there is nothing new to look at."""
    before = next((held for held in state.holds if held.id == hold.id), None)
    if before is None and len(state.holds) >= HOLDS_MAX and hold.scope.tenant:
        whole = Scope(hold.scope.kind)
        return with_hold(
            state, msgspec.structs.replace(hold, id=hold_id(hold.guard, whole.kind), scope=whole)
        )
    guarded.labels(hold.guard).inc(hold.changes + hold.deletes)
    if before is not None:
        changes, deletes = before.changes + hold.changes, before.deletes + hold.deletes
        regions = joined(before.regions, hold.regions)
        mark = before.mark ^ hold.mark
        return state.with_hold(
            msgspec.structs.replace(before, changes=changes, deletes=deletes, regions=regions, mark=mark)
        )
    log_event.warning(
        "a guard holds contexts back",
        hold=hold.id,
        changes=hold.changes,
        deletes=hold.deletes,
        of=hold.of,
        hint=f"look at them with 'transom contexts holds'; let them go with 'allow {hold.id}'",
    )
    return state.with_hold(hold).with_job(Job(hold.scope, Cause("again", hold.id)))


def with_spent(
    state: Builder, overrides: Sequence[Resource], name: str, rows: int, *, over: bool = False
) -> Builder:
    """With so many more rows spent of an override; those that are gone are remembered no more."""
    by_name = {override.metadata.name: override for override in overrides}
    if name not in by_name:
        return state
    used = spent_of(by_name[name], state.spent)
    used = msgspec.structs.replace(used, rows=used.rows + rows, over=used.over or over)
    kept = {each: spent for each, spent in state.spent.items() if each in by_name}
    return msgspec.structs.replace(state, spent={**kept, name: used})


def affordable(drafts: Sequence[Draft], left: int) -> tuple[list[Draft], int]:
    """What may be written of what was held when `left` more rows are allowed, and how many of them it takes:
    more may have come since it was counted.
    """
    passing: list[Draft] = []
    spent = 0
    for draft in drafts:
        if not weighs(draft) or spent < left:
            passing.append(draft)
            spent += weighs(draft)
    return passing, spent


def eased(
    state: Builder, kinds: Iterable[ContextKind[Any]], subjects: Sequence[Subject], drafts: Sequence[Draft]
) -> set[str]:
    """The holds that may be about other rows than before: subjects of theirs were looked at. Not those that
    only add or restrict something, which is never held, unless they were refused and may be so no more.
    """
    if not state.holds:
        return set()
    of_subject = {(kind.subject, kind.name) for kind in kinds}
    # What restricts hides what is held, and does not end it: it is to wait when the tenant is resumed.
    free = {draft.row.subject for draft in drafts if draft.adds or draft.row.restricts}
    free -= {each.subject for each in state.refused}
    scopes = {(each.key.kind, each.tenant) for each in subjects if str(each.key) not in free}
    return {
        hold.id
        for hold in state.holds
        if any(
            (subject, hold.scope.kind) in of_subject and hold.scope.tenant in ("", tenant)
            for subject, tenant in scopes
        )
    }


def with_refusals(
    state: Builder,
    kinds: Collection[str],
    subjects: Sequence[Subject],
    refusals: Sequence[Refusal],
    wall: float,
) -> Builder:
    """With the subjects that give no good context of `kinds` now, the newest ones; without those that do."""
    looked_at = {str(each.key) for each in subjects}
    kept = [each for each in state.refused if each.subject not in looked_at or each.kind not in kinds]
    refused = tuple([*kept, *refusals][-REFUSED_MAX:])
    known = set(state.refused)
    for refusal in refusals:
        if refusal not in known:
            guarded.labels(refusal.guard).inc()
            log_event.error("no good context; the last good one stays", **refusal._asdict())
        hold = _duplicate(refusal, wall)
        held = any(each.id == hold.id for each in state.holds)
        if refusal.guard == DUPLICATE and (refusal not in known or not held):
            state = with_hold(state, hold)
    return state if refused == state.refused else msgspec.structs.replace(state, refused=refused)


def looked_at_again(state: Builder, which: Callable[[Hold], bool] = lambda _hold: True) -> Builder:
    """With jobs that look again at what is held."""
    for hold in filter(which, state.holds):
        state = state.with_job(Job(hold.scope, Cause("again", hold.id)))
    return state


def _duplicate(refusal: Refusal, wall: float) -> Hold:
    return Hold(
        id=hold_id(DUPLICATE, refusal.kind, refusal.tenant),
        guard=DUPLICATE,
        scope=Scope(refusal.kind, refusal.tenant),
        changes=1,
        deletes=0,
        of=0,
        examples=(refusal.subject,),
        since=wall,
        regions=refusal.regions,
    )


def without_strangers(state: Builder, kinds: Collection[str]) -> Builder:
    """Without what was refused of kinds that are there no more: nobody would look at it again."""
    refused = tuple(each for each in state.refused if each.kind in kinds)
    return msgspec.structs.replace(state, refused=refused)
