"""What may not happen to contexts at once, however it came about. Pure.

The guard of shares: what changes or deletes more than a share of a kind's rows, or of a tenant's rows of a
kind, within a few seconds, is held back until somebody allows it by name. Seconds, and not one pass of the
builder, because how many changes a pass sees is chance. Never held: what only adds, what only moves between
regions (`moves` verifies that), what restricts because its own resource or tenant was changed, and what one
tenant's own change does to its own rows while no other tenant was changed, too.
Source of the rule: docs/explanation/contexts.md tells the outages it is for. Next on the data's way: `store`.
"""

import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import Counter

from transom.hub.contexts.planning import Draft
from transom.hub.contexts.row import all_regions, marked
from transom.hub.contexts.state import Hold, Scope, Spent
from transom.model.resources import Resource
from transom.model.times import read_time
from transom.runtime.telemetry import metrics

SHARE = "share"
DUPLICATE = "duplicate"
SOAK = "soak"

_EXAMPLES = 10
_SCOPES_MAX = 4096

guarded = Counter(
    "transom_context_guard_total",
    "Contexts that a guard held back or refused",
    ["guard"],
    registry=metrics,
)


class Limits(NamedTuple):
    """`share` of a scope's rows (0 to 1; None: this guard is off), once more than `min_rows` are affected,
    within `seconds`.
    """

    share: float | None = 0.2
    min_rows: int = 10
    seconds: float = 10.0


def hold_id(guard: str, kind: str = "", tenant: str = "") -> str:
    """How people name what a guard holds: `share.api-key.acme`, or `share.api-key` for all tenants."""
    return ".".join(part for part in (guard, kind.replace("_", "-"), tenant) if part)


# --- overrides -----------------------------------------------------------------------------------------


def allowances(
    overrides: Iterable[Resource],
    now: float,
    spent: Mapping[str, Spent] | None = None,
    holds: Iterable[Hold] = (),
) -> dict[str, int]:
    """How many more rows people let pass of what a guard holds, by its id; `now` is wall seconds.

    An override is for so many rows, once: what it has let pass (`spent`) it lets pass no more. One that names
    the `content` of a hold is for those rows; for others (`holds` are what is held now) it is for nothing.
    """
    allowed: dict[str, int] = {}
    contents = {hold.id: hold.content for hold in holds}
    for override in overrides:
        until, upto = override.spec.get("until"), override.spec.get("upTo")
        used = spent_of(override, spent or {})
        # What a release before or after this one wrote must not stop the builder.
        with contextlib.suppress(ValueError):
            if isinstance(until, str) and isinstance(upto, int) and read_time(until) > now:
                left = 0 if used.over else upto - used.rows
                listed = override.spec.get("content")
                # What has begun to pass is what was listed, and becomes less.
                if left > 0 and (not listed or used.rows or contents.get(override.metadata.name) == listed):
                    allowed[override.metadata.name] = left
    return allowed


def spent_of(override: Resource, spent: Mapping[str, Spent]) -> Spent:
    """What is spent of an override as it was given last."""
    meta = override.metadata
    used = spent.get(meta.name)
    if used is None or (used.uid, used.generation) != (meta.uid, meta.generation):
        return Spent(meta.uid, meta.generation)
    return used


def allowing(scopes: Iterable[Scope], count: int, allowed: Mapping[str, int]) -> str:
    """The override that lets `count` rows of these scopes pass; empty when none does."""
    ids = (hold_id(SHARE, each.kind, each.tenant) for each in scopes)
    return next((each for each in ids if count <= allowed.get(each, 0)), "")


# --- the share of a kind or of a tenant ----------------------------------------------------------------


def weighs(draft: Draft) -> bool:
    """Whether a draft takes something away from somebody, so that it counts."""
    row, before = draft.row, draft.before
    if before is None or before.deleted:
        return False
    if draft.cause.what == "again" or row.deleted:
        return True
    if row.restricts and not before.restricts:
        return draft.cause.what == "schema"
    # A raised schema is meant to change every row; it soaks in one region instead.
    return row.value != before.value and not row.restricts and draft.cause.what != "schema"


class Own(NamedTuple):
    """What a tenant's own change, that of its Tenant, does to its rows of a kind; those of all tenants that
    were changed so ("").
    """

    kind: str
    tenant: str = ""


Counts = Mapping[Scope | Own, int]
"""How many drafts take something away, by what they count for."""


@dataclass
class Window:
    """How many rows of each scope were changed or deleted within the last `seconds`; bounded in scopes."""

    seconds: float
    _noted: dict[Scope | Own, deque[tuple[float, int]]] = field(
        default_factory=dict[Scope | Own, deque[tuple[float, int]]]
    )

    def tenants(self, kind: str, now: float) -> set[str]:
        """The tenants whose own changes did anything to rows of a kind."""
        noted = [each for each in self._noted if isinstance(each, Own) and each.kind == kind and each.tenant]
        return {each.tenant for each in noted if self.recent(each, now)}

    def recent(self, scope: Scope | Own, now: float) -> int:
        """How many, as of `now` (monotonic seconds)."""
        noted = self._noted.get(scope)
        if noted is None:
            return 0
        while noted and noted[0][0] <= now - self.seconds:
            noted.popleft()
        if not noted:
            del self._noted[scope]
        return sum(count for _, count in noted)

    def note(self, scope: Scope | Own, count: int, now: float) -> None:
        """Count some more; what came within a tenth of a second is one note."""
        noted = self._noted.pop(scope, None) or deque()
        if noted and now - noted[-1][0] < self.seconds / 100:
            noted[-1] = (noted[-1][0], noted[-1][1] + count)
        else:
            noted.append((now, count))
        self._noted[scope] = noted
        while len(self._noted) > _SCOPES_MAX:
            del self._noted[next(iter(self._noted))]


class Held(NamedTuple):
    """A scope of which more would change or go than may, and the drafts that are held back for it."""

    scope: Scope
    drafts: list[Draft]
    of: int


class Judged(NamedTuple):
    """What passes, what is held, and how many rows pass only because of which override."""

    passing: list[Draft]
    held: list[Held]
    used: dict[str, int]


@dataclass
class ShareGuard:
    """Judges drafts; remembers how much it let through lately (`Window`)."""

    limits: Limits
    window: Window = field(init=False)

    def __post_init__(self) -> None:
        self.window = Window(self.limits.seconds)

    def in_question(self, counts: Counts, now: float) -> dict[Scope, int]:
        """Of how many rows each scope is must be known to judge this many drafts; and how many are enough."""
        share = self.limits.share
        if share is None:
            return {}
        scopes = {Scope(each.kind) if isinstance(each, Own) else each for each in counts}
        affected = {scope: self.affected(scope, counts, now) for scope in scopes}
        return {
            scope: int(count / share) + 1 if share else 1
            for scope, count in affected.items()
            if count > self.limits.min_rows
        }

    def judge(
        self, drafts: Sequence[Draft], of: Mapping[Scope, int], allowed: Mapping[str, int], now: float
    ) -> Judged:
        """What passes, and what is held. `of` are the rows of the scopes `in_question`."""
        judged = Judged(list(drafts), [], {})
        # A tenant's part is taken out first: it alone waits, and counts for the kind no more.
        for scope in sorted(of, key=lambda scope: not scope.tenant):
            counts = weights(judged.passing)
            if not self.too_many(scope, counts, of[scope], now):
                continue
            together = self._together(scope, counts, now)
            mine = [
                draft
                for draft in judged.passing
                if weighs(draft) and not together.isdisjoint(scopes_of(draft))
            ]
            narrow = narrowed(scope, {draft.row.tenant for draft in mine})
            override = allowing((narrow, scope), len(mine), allowed)
            if override:
                # The same rows may be too many of the tenant and of the kind, and are spent once.
                judged.used[override] = max(judged.used.get(override, 0), len(mine))
                continue
            judged.held.append(Held(narrow, mine, of[scope]))
            gone = {draft.row.key for draft in mine}
            judged.passing[:] = [draft for draft in judged.passing if draft.row.key not in gone]
        return judged

    def too_many(self, scope: Scope, counts: Counts, of: int, now: float) -> bool:
        """Whether so many more rows of a scope that has `of` may not change or go now, unless allowed."""
        share = self.limits.share
        if share is None or not any(counts.get(each) for each in self._together(scope, counts, now)):
            return False
        affected = self.affected(scope, counts, now)
        return affected > self.limits.min_rows and affected > share * of

    def affected(self, scope: Scope, counts: Counts, now: float) -> int:
        """How many rows of a scope were changed or deleted lately, and will be with these."""
        together = self._together(scope, counts, now)
        return sum(counts.get(each, 0) + self.window.recent(each, now) for each in together)

    def _together(self, scope: Scope, counts: Counts, now: float) -> set[Scope | Own]:
        """What counts for a scope: for a kind also what tenants' own changes do, once they are several. What
        one does to its own rows is what whoever changed it by name has asked for, however large it is.
        """
        if scope.tenant:
            return {scope}
        kind = scope.kind
        tenants = {each.tenant for each in counts if isinstance(each, Own) and each.kind == kind}
        several = len((tenants | self.window.tenants(kind, now)) - {""}) > 1
        return {scope, Own(kind)} if several else {scope}

    def passed(self, drafts: Iterable[Draft], now: float) -> None:
        """Remember what was let through."""
        for scope, count in weights(drafts).items():
            self.window.note(scope, count, now)


def narrowed(scope: Scope, tenants: Collection[str]) -> Scope:
    """What is held when all that is too much of `scope` is one tenant's: its part, and nobody else's."""
    return Scope(scope.kind, *tenants) if len(tenants) == 1 else scope


def weights(drafts: Iterable[Draft]) -> dict[Scope | Own, int]:
    """How many drafts take something away, by the scopes they count for."""
    counts: dict[Scope | Own, int] = {}
    for draft in filter(weighs, drafts):
        for scope in scopes_of(draft):
            counts[scope] = counts.get(scope, 0) + 1
    return counts


def scopes_of(draft: Draft) -> tuple[Scope | Own, ...]:
    """What a draft counts for; a tenant's own change names it, and counts only together with others'."""
    kind, tenant = draft.row.kind, draft.row.tenant
    if draft.cause.what == "tenant" and draft.cause.name == tenant:
        return (Own(kind, tenant), Own(kind))
    return (Scope(kind, tenant), Scope(kind))


def hold_of(held: Held, now: float) -> Hold:
    """What is remembered, and shown, of what is held. `now` is wall seconds."""
    deletes = sum(draft.row.deleted for draft in held.drafts)
    return Hold(
        id=hold_id(SHARE, held.scope.kind, held.scope.tenant),
        guard=SHARE,
        scope=held.scope,
        changes=len(held.drafts) - deletes,
        deletes=deletes,
        of=held.of,
        examples=tuple(draft.row.key for draft in held.drafts[:_EXAMPLES]),
        since=now,
        regions=all_regions(draft.row for draft in held.drafts),
        mark=marked(draft.row for draft in held.drafts),
    )
