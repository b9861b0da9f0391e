"""Which rows must be written so that contexts are as resources say. Pure: no I/O, no clock.

Planning is level-based: it is given subjects as they are now and the rows held, not what happened to them;
planned twice, the second plan is empty. A subject that gives no good context keeps the one it had, and why is
said: nothing but deleting the subject deletes a context. Next on the data's way: `guards`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transom.hub.contexts.row import BULK, EVERY_REGION, FAST, NOTHING, Row, are_regions, region_names
from transom.hub.contexts.row import regions_text as as_text
from transom.model.contexts import ContextKind
from transom.model.errors import UNREADABLE, InvalidError, TransomError
from transom.model.names import Key
from transom.model.resources import Resource

TENANT = "Tenant"
KEY_CHARACTERS_MAX = 512
_WHY_CHARACTERS_MAX = 500


class Cause(NamedTuple):
    """Why subjects are looked at: one of them changed ("subject"), the tenant they belong to ("tenant", and
    its name), a kind's schema was raised ("schema"), or what a guard held back is looked at "again".
    """

    what: str
    name: str = ""


class Subject(NamedTuple):
    """A resource that contexts are made of, as it is now; `resource` is None when it is gone."""

    key: Key
    resource: Resource | None
    cause: Cause

    @property
    def tenant(self) -> str:
        """The tenant whose it is; a Tenant is its own."""
        return self.key.name if self.key.kind == TENANT else self.key.namespace


class Made(NamedTuple):
    """A context as its kind builds it now."""

    subject: Subject
    kind: ContextKind[Any]
    key: str
    value: bytes
    regions: str
    restricts: bool


class Refusal(NamedTuple):
    """A subject that gives no good context, and why; `guard` is "schema" or "duplicate". `regions` are those
    that the context would be for, where that is known.
    """

    guard: str
    kind: str
    tenant: str
    subject: str
    why: str
    regions: str = EVERY_REGION


class Draft(NamedTuple):
    """A row to write, the row it replaces, and the cause."""

    row: Row
    before: Row | None
    cause: Cause

    @property
    def adds(self) -> bool:
        """Whether there was no such context."""
        return self.before is None or self.before.deleted


class Plan(NamedTuple):
    """What comes of planning."""

    drafts: list[Draft]
    refusals: list[Refusal]


def make(
    kinds: Iterable[ContextKind[Any]], subjects: Sequence[Subject], tenants: Mapping[str, Resource]
) -> tuple[list[Made], list[Refusal]]:
    """Build every context of `subjects`; `tenants` are theirs, by name.

    Older subjects come first, so that of two that make one key the older has it.
    """
    by_subject: dict[str, list[ContextKind[Any]]] = {}
    for kind in kinds:
        by_subject.setdefault(kind.subject, []).append(kind)
    made: list[Made] = []
    refused: list[Refusal] = []
    for subject in sorted(subjects, key=_age):
        if subject.resource is None:
            continue
        tenant = tenants.get(subject.key.namespace) if subject.key.namespace else None
        for kind in by_subject.get(subject.key.kind, ()):
            built = _built(kind, subject, subject.resource, tenant)
            if isinstance(built, Made):
                made.append(built)
            else:
                refused.append(built)
    return made, refused


def _age(subject: Subject) -> tuple[str, Key]:
    meta = subject.resource.metadata if subject.resource else None
    return (meta.creation_timestamp or "" if meta else "", subject.key)


def _built(
    kind: ContextKind[Any], subject: Subject, resource: Resource, tenant: Resource | None
) -> Made | Refusal:
    try:
        key = kind.key_of(resource)
        value = kind.build(resource, tenant)
        data = kind.encode(value)
        regions = kind.regions(resource, tenant)
        restricts = bool(kind.restricts(value))
        why = _key_problem(kind, key) or ("" if are_regions(regions) else "names no region that can be")
    except (InvalidError, *UNREADABLE) as error:
        return _refusal("schema", kind, subject, str(error))
    except TransomError as error:
        return _refusal("schema", kind, subject, f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001  # anybody's module: what stumbles there stops nobody else
        return _refusal("schema", kind, subject, f"its class stumbled: {type(error).__name__}: {error}")
    if why:
        return _refusal("schema", kind, subject, why)
    return Made(subject, kind, key, data, as_text(regions), restricts)


def _key_problem(kind: ContextKind[Any], key: str) -> str:
    if not key.startswith(f"{kind.name}/") or len(key) == len(kind.name) + 1:
        return f"its key {key[:80]!r} does not begin with '{kind.name}/', or ends there"
    if len(key) > KEY_CHARACTERS_MAX or not key.isprintable():
        return f"its key has {len(key)} characters (at most {KEY_CHARACTERS_MAX}, all printable)"
    return ""


def _refusal(guard: str, kind: ContextKind[Any], subject: Subject, why: str) -> Refusal:
    return Refusal(guard, kind.name, subject.tenant, str(subject.key), why[:_WHY_CHARACTERS_MAX])


def plan(
    subjects: Sequence[Subject],
    made: Sequence[Made],
    held: Collection[Row],
    declared: frozenset[str],
    may_take_over: Callable[[Made], bool] = lambda _made: False,
) -> Plan:
    """The rows to write for `subjects`, of which `made` was built.

    `held` are the rows of these subjects and those at the keys of `made`; `declared` are the regions there
    are. `may_take_over` says whether a key may pass to this subject from another that is still there.
    """
    by_key = {row.key: row for row in held}
    drafts = {draft.row.key: draft for draft in _deletions(subjects, made, held)}
    refusals: list[Refusal] = []
    owner: dict[str, str] = {}
    for each in made:
        before, subject = by_key.get(each.key), str(each.subject.key)
        first = owner.get(each.key)
        if first is None and before is not None and not before.deleted and each.key not in drafts:
            first = before.subject
        if first not in (None, subject) and not may_take_over(each):
            why = f"makes the key {each.key!r}, which is that of {first}"
            refusal = _refusal("duplicate", each.kind, each.subject, why)
            refusals.append(refusal._replace(regions=each.regions))
            continue
        owner[each.key] = subject
        drafts.pop(each.key, None)
        row = _row(each, before, declared)
        if before is None or row._replace(schema=before.schema, lane=before.lane) != before._replace(
            revision=0, added=row.added
        ):
            drafts[each.key] = Draft(row, before, each.subject.cause)
    return Plan(list(drafts.values()), refusals)


def _deletions(subjects: Sequence[Subject], made: Sequence[Made], held: Collection[Row]) -> Iterator[Draft]:
    """Contexts of subjects that are gone, or that have another key now."""
    by_name = {str(subject.key): subject for subject in subjects}
    keys = {(str(each.subject.key), each.kind.name): each.key for each in made}
    for row in held:
        subject = by_name.get(row.subject)
        if subject is None or row.deleted:
            continue
        moved_to = keys.get((row.subject, row.kind))
        if subject.resource is None or (moved_to is not None and moved_to != row.key):
            gone = row._replace(revision=0, lane=FAST, restricts=False, deleted=True, value=NOTHING)
            yield Draft(gone, row, subject.cause)


def _row(made: Made, before: Row | None, declared: frozenset[str]) -> Row:
    """The row that stands for `made`. Regions it is not for any more keep it until the others have it."""
    leaving = former = ""
    alive = before is not None and not before.deleted
    if before is not None and made.regions != EVERY_REGION:
        target = region_names(made.regions, declared)
        had = region_names(before.regions, declared) | region_names(before.leaving, declared)
        once = region_names(before.former, declared)
        # A marker that was not told yet must still be told, so a new context remembers who had the old one.
        leaving = as_text(had - target) if alive else ""
        former = as_text((once if alive else once | had) - target)
    return Row(
        key=made.key,
        kind=made.kind.name,
        tenant=made.subject.tenant,
        subject=str(made.subject.key),
        schema=made.kind.schema,
        revision=0,
        added=before.added if before is not None and alive else 0,
        lane=FAST,
        regions=made.regions,
        leaving=leaving,
        former=former,
        restricts=made.restricts,
        deleted=False,
        value=made.value,
    )


def in_lanes(drafts: Iterable[Draft], bulk: Collection[Cause], kinds: Collection[str] = ()) -> list[Draft]:
    """The drafts, each in its lane: what comes of a cause in `bulk` or is of one of `kinds` goes in bulk,
    unless it restricts or deletes.
    """
    return [
        draft._replace(row=draft.row._replace(lane=BULK))
        if (draft.cause in bulk or draft.row.kind in kinds) and not (draft.row.restricts or draft.row.deleted)
        else draft
        for draft in drafts
    ]


def large_causes(drafts: Iterable[Draft], bulk_rows: int) -> set[Cause]:
    """The causes that change more than `bulk_rows` contexts each."""
    counts: dict[Cause, int] = {}
    for draft in drafts:
        counts[draft.cause] = counts.get(draft.cause, 0) + 1
    return {cause for cause, count in counts.items() if count > bulk_rows}
