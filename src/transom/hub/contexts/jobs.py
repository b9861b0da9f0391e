"""Looking at very many contexts page by page: first everything is counted, then it is written.

Counting comes first so that the guards judge the whole. Pure; `builder` reads pages and writes what comes
out. Next on the data's way: `builder`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from transom.hub.contexts.guards import (
    DUPLICATE,
    SHARE,
    Own,
    ShareGuard,
    allowing,
    hold_id,
    narrowed,
    weighs,
)
from transom.hub.contexts.planning import TENANT, Cause, Draft, Plan
from transom.hub.contexts.row import all_regions, joined, mark_of
from transom.hub.contexts.state import Builder, Hold, Job, Scope
from transom.model.contexts import ContextKind
from transom.model.names import Key

EXAMPLES = 10


@dataclass
class Tally:
    """What counting has found of one kind: rows that would change or go."""

    changes: int = 0
    deletes: int = 0
    examples: list[str] = field(default_factory=list[str])
    regions: str = ""
    mark: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.changes + self.deletes

    def add(self, key: str, regions: str, mark: int = 0, *, deleted: bool = False) -> None:
        """Count one more, which is for some regions."""
        self.mark ^= mark
        self.regions = joined(self.regions, regions)
        self.deletes += deleted
        self.changes += not deleted
        if len(self.examples) < EXAMPLES:
            self.examples.append(key)


@dataclass
class Run:
    """How far a job has come: the subject kinds left to go through, the last one's last key, and counts.

    `drafts` are what counting has found, `bulk` the rows that writing has put into the bulk lane.
    """

    job: Job
    subjects: list[str]
    after: Key | None = None
    drafts: int = 0
    bulk: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])
    duplicates: Tally = field(default_factory=Tally)

    @property
    def causes(self) -> set[Cause]:
        """The causes whose rows go in bulk."""
        return {self.job.cause} if self.job.bulk else set()

    @property
    def takes_over(self) -> bool:
        """Whether the job is about keys that pass from one subject to another, and nothing else."""
        return self.job.cause.what == "again" and self.job.cause.name.startswith(f"{DUPLICATE}.")

    def count(self, plan: Plan) -> None:
        """Add what a page would change."""
        drafts = self.writable(plan.drafts)
        self.drafts += len(drafts)
        for draft in filter(weighs, drafts):
            tally = self.tallies.setdefault(draft.row.kind, Tally())
            row = draft.row
            tally.add(row.key, all_regions([row]), mark_of(row), deleted=row.deleted)
        for refusal in plan.refusals:
            if refusal.guard == DUPLICATE:
                self.duplicates.add(refusal.subject, refusal.regions)

    def writable(self, drafts: Iterable[Draft]) -> list[Draft]:
        """What the job may write of a page: all but what is held."""
        if self.takes_over:
            return [draft for draft in drafts if draft.before and draft.before.subject != draft.row.subject]
        held = self.job.held
        return [draft for draft in drafts if draft.row.kind not in held or not weighs(draft)]


def subject_kinds(job: Job, kinds: Iterable[ContextKind[Any]]) -> list[str]:
    """The kinds of resources a job goes through. A tenant's own contexts were looked at when it changed."""
    wanted = {kind.subject for kind in kinds if job.scope.kind in ("", kind.name)}
    return sorted(wanted - {TENANT} if job.scope.kind == "" else wanted)


def counts_of(run: Run) -> dict[Scope | Own, int]:
    """What a job's changes count for: those of a tenant's own change for that, a raised schema's for the
    whole kind, what is looked at again for what was held.
    """
    job, counts = run.job, dict[Scope | Own, int]()
    for kind, tally in run.tallies.items():
        if job.cause.what == "again":
            counts[job.scope] = tally.total
        elif job.cause.what == "tenant":
            counts.update({Own(kind, job.scope.tenant): tally.total, Own(kind): tally.total})
        else:
            counts[Scope(kind)] = tally.total
    return counts


def decided(
    run: Run,
    state: Builder,
    of: Mapping[Scope, int],
    guard: ShareGuard,
    allowances: Callable[[Builder], Mapping[str, int]],
    bulk_rows: int,
    spend: Callable[[Builder, str, int], Builder],
    *,
    now: float,
    wall: float,
) -> Builder:
    """The state after counting: the job goes on to write, with what is held now; or it is over.

    `of` are the rows of each scope in question. What is looked at again must be allowed by name: it is not
    let go because there are more rows by now. `allowances` are those in a state; `spend` notes what passes
    only because of an override.
    """
    job = run.job
    if job.cause.what == "again":
        return _decided_again(run, state, of, allowances, bulk_rows)
    held: list[str] = []
    allowed, counts = allowances(state), counts_of(run)
    for kind, tally in run.tallies.items():
        scope = Scope(kind)
        narrow = narrowed(scope, {job.scope.tenant} - {""})
        if scope not in of or not guard.too_many(scope, counts, of[scope], now):
            continue
        override = allowing((narrow, scope), tally.total, allowed)
        if override:
            state = spend(state, override, tally.total)
        else:
            held.append(kind)
            state = state.with_hold(_hold(SHARE, narrow, tally, of[scope], wall))
    # However few they are: a value of the next schema is one that no region has met yet.
    raised = job.cause.what == "schema" and job.scope.kind in state.schemas
    return _writing(state, job, bulk=raised or run.drafts > bulk_rows, held=tuple(held))


def _decided_again(
    run: Run,
    state: Builder,
    of: Mapping[Scope, int],
    allowances: Callable[[Builder], Mapping[str, int]],
    bulk_rows: int,
) -> Builder:
    job = run.job
    hold = next((hold for hold in state.holds if hold.id == job.cause.name), None)
    share = run.tallies.get(job.scope.kind, Tally())
    tally = run.duplicates if hold is not None and hold.guard == DUPLICATE else share
    if hold is None or (not tally.total and not run.drafts):
        return over(state, job)
    if hold.guard == SHARE:
        # First it is told as it is now: people's overrides are for what was told.
        state = state.with_hold(_hold(SHARE, hold.scope, tally, of.get(hold.scope, hold.of), hold.since))
        if tally.total > allowances(state).get(hold.id, 0):
            return _without(state, job)
    if hold.guard == DUPLICATE and tally.total and not run.drafts:
        return _without(state.with_hold(_hold(DUPLICATE, hold.scope, tally, hold.of, hold.since)), job)
    return _writing(state, job, bulk=run.drafts > bulk_rows, held=())


def over(state: Builder, job: Job, schema: int = 0, soaks_upto: int = 0) -> Builder:
    """The state after a job is done: a schema is built, and soaks up to a revision if it was raised; a hold
    has gone.
    """
    state, kind = _without(state, job), job.scope.kind
    if job.cause.what == "schema":
        soaks = {**state.soaks, kind: soaks_upto} if kind in state.schemas else state.soaks
        return msgspec.structs.replace(state, schemas={**state.schemas, kind: schema}, soaks=soaks)
    if job.cause.what == "again":
        holds = tuple(hold for hold in state.holds if hold.id != job.cause.name)
        return msgspec.structs.replace(state, holds=holds)
    return state


def written_again(state: Builder, job: Job) -> Builder:
    """The state after what was held and allowed is written: it is counted once more, because more of it may
    have come meanwhile. When there is none, the hold goes.
    """
    return _without(state, job).with_job(Job(job.scope, job.cause))


def _without(state: Builder, job: Job) -> Builder:
    return msgspec.structs.replace(state, jobs=tuple(held for held in state.jobs if held != job))


def _writing(state: Builder, job: Job, *, bulk: bool, held: tuple[str, ...]) -> Builder:
    decided_job = msgspec.structs.replace(job, writing=True, bulk=job.bulk or bulk, held=held)
    jobs = tuple(decided_job if each == job else each for each in state.jobs)
    return msgspec.structs.replace(state, jobs=jobs)


def _hold(guard: str, scope: Scope, tally: Tally, of: int, since: float) -> Hold:
    return Hold(
        id=hold_id(guard, scope.kind, scope.tenant),
        guard=guard,
        scope=scope,
        changes=tally.changes,
        deletes=tally.deletes,
        of=of,
        examples=tuple(tally.examples),
        since=since,
        regions=tally.regions,
        mark=tally.mark,
    )
