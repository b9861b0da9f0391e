"""The builder: makes the rows of contexts be what resources say, one page at a time; the only writer of rows.

It is woken by the store, sees which resources were described since it last looked, plans, guards, and writes
rows and its progress in one transaction: killed anywhere, it looks again at what it had not written. What may
concern very many contexts (a large tenant, a raised schema, what a guard held back) becomes a job that is
done between looks, so that a revocation never waits for it. Next on the data's way: `rows`.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import Counter

from transom.hub.contexts import jobs, moves
from transom.hub.contexts.guards import DUPLICATE, Counts, Limits, ShareGuard, allowances, hold_of, weights
from transom.hub.contexts.holding import (
    affordable,
    eased,
    looked_at_again,
    not_on_hold,
    taking_over,
    with_hold,
    with_refusals,
    with_spent,
    without_strangers,
)
from transom.hub.contexts.pages import next_page, of_tenant
from transom.hub.contexts.planning import (
    TENANT,
    Cause,
    Draft,
    Plan,
    Subject,
    in_lanes,
    large_causes,
    make,
    plan,
)
from transom.hub.contexts.row import BULK, Row
from transom.hub.contexts.state import BUILDER, PROGRESS, Builder, Job, Scope
from transom.hub.contexts.store import ContextStore, Described
from transom.model.contexts import ContextKinds
from transom.model.names import Key
from transom.model.resources import Resource
from transom.runtime.clock import Clock
from transom.runtime.signals import Level, wait_any
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

OVERRIDE, FREEZE, REGION = "ContextOverride", "ContextFreeze", "Region"

_PAGE = 500
_INLINE = 500
"""A tenant with more subjects than these is a job; so are tenants beyond these subjects in one page."""
_LOOK_AGAIN_SECONDS = 600.0
_WAIT_SECONDS = 30.0
_EASE_SECONDS = 10.0
"""A hold that may be about other rows is looked at again, no more often than so: it may be very many."""

_rows_written = Counter("transom_context_rows_total", "Context rows written", ["lane"], registry=metrics)


class Options(NamedTuple):
    """How the builder guards. `bulk_rows`: a cause that changes more contexts than these goes in bulk."""

    bulk_rows: int = 100
    limits: Limits = Limits()


@dataclass
class ContextBuilder:
    """Builds the contexts of `kinds`. `heard` says what gateways report; `poked` wakes the builder for it.
    `approved` says up to which revision the soak gate is open.

    `known` is the claim that publishers pass on: every change of a resource up to it is in the rows, but for
    what a guard holds back. `controls` rises when freezes or the regions declared have changed.
    """

    contexts: ContextStore
    kinds: ContextKinds
    clock: Clock
    options: Options = field(default_factory=Options)
    heard: Callable[[], moves.Heard] = dict
    approved: Callable[[], int] = lambda: sys.maxsize
    state: Builder = field(default_factory=Builder)
    progress: int = 0
    frozen: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()
    poked: Level = field(default_factory=Level)
    controls: Level = field(default_factory=Level)
    _overrides: list[Resource] = field(default_factory=list[Resource])
    _run: jobs.Run | None = None
    _looked: int = -1
    _moving_after: int = 0
    _moving: bool = True
    _moves_seen: int = -1
    _eased: set[str] = field(default_factory=set[str])
    _ease_at: float = 0.0

    def __post_init__(self) -> None:
        self._guard = ShareGuard(self.options.limits)
        self._subjects = frozenset(kind.subject for kind in self.kinds)
        self._watched = self._subjects | {TENANT, OVERRIDE, FREEZE, REGION}

    @property
    def known(self) -> int:
        """Every change of a resource up to this revision is in the rows."""
        waiting = [job.revision - 1 for job in self.state.jobs if job.revision]
        return min([self.progress, *waiting])

    @property
    def moving(self) -> bool:
        """Whether there may be rows that are to leave a region: what gateways say is of interest then."""
        return self._moving

    def allowed(self, state: Builder | None = None) -> dict[str, int]:
        """How many more rows of each hold people let pass now, or with another state than that of now."""
        state = state or self.state
        return allowances(self._overrides, self.clock.wall(), state.spent, state.holds)

    def override(self, name: str) -> Resource | None:
        """The override of this name that is good now."""
        good = name in self.allowed()
        return next((each for each in self._overrides if good and each.metadata.name == name), None)

    # --- running ---

    async def run(self) -> None:
        """Build for ever. Raises what the store raises; begun again, it reads what it must remember."""
        await self.load()
        again = self.clock.monotonic() + _LOOK_AGAIN_SECONDS
        while True:
            seen = [(level, level.value) for level in (*self._described(), self.poked)]
            if await self.do_some():
                continue
            waiting = _EASE_SECONDS if self._eased else _WAIT_SECONDS
            await wait_any(seen, waiting)
            if self.clock.monotonic() >= again:
                again = self.clock.monotonic() + _LOOK_AGAIN_SECONDS
                self.state = looked_at_again(self.state)

    def _described(self) -> list[Level]:
        # Most of what is written is of no kind that contexts are made of, or only a status.
        return [self.contexts.store.described(kind) for kind in self._watched]

    async def do_some(self) -> bool:
        """A page of each kind of work, what is new first; False when there is nothing to do.

        One after the other: what is new waits for a page of a job at most, and a storm of it starves no job.
        """
        done = [await self._look(), await self._ease(), await self._work(), await self._finish_moves()]
        return any(done)

    async def load(self) -> None:
        """Read what was remembered; kinds whose schema was raised are to be built again."""
        self._run, self._looked, self._moving = None, -1, True
        state = Builder.read(await self.contexts.remembered(BUILDER))
        state = self.state = without_strangers(state, {kind.name for kind in self.kinds})
        progress = await self.contexts.remembered(PROGRESS)
        # At the very beginning everything is built as jobs: it may be a million resources.
        self.progress = int(progress) if progress else self.contexts.store.changed.value
        first = 0 if progress else 1
        for kind in self.kinds:
            if self.state.schemas.get(kind.name) != kind.schema:
                job = Job(Scope(kind.name), Cause("schema", f"{kind.name}/{kind.schema}"), revision=first)
                state = state.with_job(job)
        await self._load_controls()
        # With the progress: what was to be built at the very beginning must not be forgotten.
        await self._put([], looked_at_again(state), self.progress)

    async def _load_controls(self) -> None:
        self._overrides = list((await self.contexts.existing(OVERRIDE)).values())
        self.frozen = await self.contexts.names(FREEZE)
        self.declared = await self.contexts.names(REGION)
        self.controls.rise()

    # --- what is new ---

    async def _look(self) -> bool:
        """Build what was described since the last look; False when nothing was."""
        newest = self.contexts.store.changed.value
        if newest <= self._looked:
            return False
        page = await self.contexts.described(self.progress, self._watched, _PAGE)
        state, subjects = await self._affected(page.items)
        if page.items:
            await self._build(subjects, state, page.upto)
        else:
            self.progress = max(self.progress, page.upto)
        # Our own rows raise the store's revision, too: nothing to look at.
        self._looked = -1 if page.more else max(newest, self.progress)
        return bool(page.items) or page.more

    async def _affected(self, items: Sequence[Described]) -> tuple[Builder, list[Subject]]:
        """The subjects that changed resources concern; the state with jobs for those that are too many."""
        state, subjects = self.state, dict[Key, Subject]()
        kinds = {item.key.kind for item in items}
        if kinds & {OVERRIDE, FREEZE, REGION}:
            await self._load_controls()
        if OVERRIDE in kinds:
            state = looked_at_again(state)
        for item in items:
            if item.key.kind == TENANT:
                cause = Cause("tenant", item.key.name)
                members = await of_tenant(
                    self.contexts, self._subjects, item.key.name, _INLINE - len(subjects)
                )
                if members is None:
                    state = state.with_job(Job(Scope("", item.key.name), cause, item.revision))
                for found in members or ():
                    subjects.setdefault(found.key, Subject(found.key, found.resource, cause))
                subjects[item.key] = Subject(item.key, item.resource, cause)
            elif item.key.kind in self._subjects:
                subjects[item.key] = Subject(item.key, item.resource, Cause("subject", str(item.key)))
        return state, [each for each in subjects.values() if each.key.kind in self._subjects]

    async def _build(self, subjects: Sequence[Subject], state: Builder, upto: int) -> None:
        planned = await self._planned(subjects, "")
        large = large_causes(planned.drafts, self.options.bulk_rows)
        drafts = in_lanes(planned.drafts, large, state.soaking(self.approved()))
        passing, state = await self._guarded(not_on_hold(self.state, drafts), state)
        freed = {draft.row.kind for draft in passing if draft.row.deleted}
        if freed:  # a key that two wanted may be the other's now
            state = looked_at_again(state, lambda hold: hold.guard == DUPLICATE and hold.scope.kind in freed)
        self._eased |= eased(self.state, self.kinds, subjects, planned.drafts)
        names = {kind.name for kind in self.kinds}
        state = with_refusals(state, names, subjects, planned.refusals, self.clock.wall())
        await self._write(passing, state, upto)

    async def _ease(self) -> bool:
        """Look again at holds that may be about other rows; False when there is none, or it is too soon."""
        now = self.clock.monotonic()
        # What is being looked at, or written, is not begun anew for ever.
        ids = self._eased - {job.cause.name for job in self.state.jobs}
        if not ids or now < self._ease_at:
            return False
        self._ease_at = now + _EASE_SECONDS
        self._eased -= ids
        await self._write([], looked_at_again(self.state, lambda hold: hold.id in ids), self.progress)
        return True

    async def _planned(self, subjects: Sequence[Subject], only: str) -> Plan:
        """What must be written for `subjects`, of one kind of contexts or ("") of all."""
        kinds = [kind for kind in self.kinds if only in ("", kind.name)]
        tenants = await self.contexts.existing(TENANT, {each.key.namespace for each in subjects} - {""})
        made, refused = make(kinds, subjects, tenants)
        held = await self.contexts.held([str(each.key) for each in subjects], [each.key for each in made])
        if only:
            held = [row for row in held if row.kind == only]
        planned = plan(
            subjects, made, held, self.declared, taking_over(self.state, self._overrides, self.clock.wall())
        )
        step("contexts.planned")
        return Plan(planned.drafts, [*refused, *planned.refusals])

    # --- guards ---

    async def _guarded(self, drafts: Sequence[Draft], state: Builder) -> tuple[list[Draft], Builder]:
        """What may be written, and the state with holds for what may not."""
        now = self.clock.monotonic()
        of = await self._counted(weights(drafts), now)
        # What is held already passes as a whole, by its job, and nothing new in its place.
        waiting = {hold.id for hold in self.state.holds}
        allowed = {name: rows for name, rows in self.allowed().items() if name not in waiting}
        passing, held, used = self._guard.judge(drafts, of, allowed, now)
        for name, rows in used.items():
            state = self._spend(state, name, rows)
        for each in held:
            state = with_hold(state, hold_of(each, self.clock.wall()))
        self._guard.passed(passing, now)
        return passing, state

    async def _counted(self, counts: Counts, now: float) -> dict[Scope, int]:
        asked = self._guard.in_question(counts, now)
        return {scope: await self.contexts.count(scope, enough) for scope, enough in asked.items()}

    # --- jobs ---

    async def _work(self) -> bool:
        """One page of a job; False when there is none. A tenant's change goes before the rest."""
        if not self.state.jobs:
            return False
        if self._run is None or self._run.job not in self.state.jobs:
            job = min(self.state.jobs, key=lambda job: job.cause.what != "tenant")
            self._run = jobs.Run(job, jobs.subject_kinds(job, self.kinds))
        run = self._run
        found = await next_page(self.contexts, run, _PAGE)
        if found is None:
            await self._turn(run)
            return True
        planned = await self._planned(found, run.job.scope.kind)
        if not run.job.writing:
            run.count(planned)
            if await self._counted_enough(run):
                await self._turn(run)
            return True
        drafts = run.writable(planned.drafts)
        if run.job.cause.what != "again":
            drafts = not_on_hold(self.state, drafts)
            self._eased |= eased(self.state, self.kinds, found, planned.drafts)
        drafts = in_lanes(drafts, run.causes, self.state.soaking(self.approved()))
        run.bulk += sum(draft.row.lane == BULK for draft in drafts)
        names = {run.job.scope.kind} if run.job.scope.kind else {kind.name for kind in self.kinds}
        state = with_refusals(self.state, names, found, planned.refusals, self.clock.wall())
        if run.job.cause.what != "again":  # what people allowed does not count against what comes after
            self._guard.passed(drafts, self.clock.monotonic())
        elif not run.takes_over:
            drafts, spent = affordable(drafts, self.allowed().get(run.job.cause.name, 0))
            state = self._spend(state, run.job.cause.name, spent) if spent else state
        await self._write(drafts, state, self.progress)
        return True

    def _spend(self, state: Builder, name: str, rows: int) -> Builder:
        return with_spent(state, self._overrides, name, rows)

    async def _counted_enough(self, run: jobs.Run) -> bool:
        """Whether a job need not be counted to its end: nothing is there that could be taken away."""
        if run.job.cause.what != "schema" or run.drafts <= self.options.bulk_rows:
            return False
        return await self.contexts.count(run.job.scope, 1) == 0

    async def _turn(self, run: jobs.Run) -> None:
        """A phase of a job is done."""
        self._run = None
        job = run.job
        if job.writing and job.cause.what == "again" and not run.takes_over:
            state = jobs.written_again(self.state, job)
        elif job.writing:
            kind = next((kind for kind in self.kinds if kind.name == job.scope.kind), None)
            # Where nothing of it went in bulk, the first row that does is yet to be tried.
            soaks_upto = self.contexts.changed[BULK].value + (not run.bulk)
            state = jobs.over(self.state, job, kind.schema if kind else 0, soaks_upto)
        else:
            now = self.clock.monotonic()
            counts = jobs.counts_of(run)
            state = jobs.decided(
                run,
                self.state,
                await self._counted(counts, now),
                self._guard,
                self.allowed,
                self.options.bulk_rows,
                self._spend,
                now=now,
                wall=self.clock.wall(),
            )
        # An override was for what was held: when that has gone, whichever way, it is for nothing more.
        left = {hold.id for hold in state.holds}
        for hold in self.state.holds:
            if hold.id not in left:
                state = with_spent(state, self._overrides, hold.id, 0, over=True)
        await self._write([], state, self.progress)
        # What could not be claimed before can be now: publishers that wait to say so are woken.
        self.contexts.news.rise()

    # --- moves ---

    async def _finish_moves(self) -> bool:
        """Let rows leave regions, one page; False when none could."""
        if not self._moving or self._moves_seen == self.poked.value:
            return False
        poked = self.poked.value
        rows = await self.contexts.moving(self._moving_after, _PAGE)
        if not rows and not self._moving_after:
            self._moving = False
            return False
        self._moving_after = rows[-1].revision if len(rows) == _PAGE else 0
        done = moves.finished(rows, self.heard(), self.declared, self.contexts.store.epoch)
        if done:
            await self._put(done, self.state, self.progress)
        elif not self._moving_after:
            self._moves_seen = poked  # until somebody is heard again
        return True

    # --- writing ---

    async def _write(self, drafts: Sequence[Draft], state: Builder, upto: int) -> None:
        await self._put([draft.row for draft in drafts], state, upto)

    async def _put(self, rows: Sequence[Row], state: Builder, upto: int) -> None:
        """Write rows, state and progress, as far as they are new."""
        fresh = {} if state is self.state else {BUILDER: state.written()}
        if rows or fresh:
            written = await self.contexts.write(rows, upto=upto, unseen=self._watched, state=fresh)
            self.progress = max(self.progress, written.progress)
            for row in written.rows:
                _rows_written.labels(row.lane).inc()
                if row.leaving:
                    self._moving, self._moves_seen = True, -1
        else:
            self.progress = max(self.progress, upto)
        self.state = state
