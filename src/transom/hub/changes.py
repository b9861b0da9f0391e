"""What a write means: pure functions from what is held to what shall be, and the rules every one must keep.

A `Change` carries a function of the held resource, run inside the store's transaction, so that nothing can
come between reading and writing. `evaluate` then checks it: ownership (invariant 6), schema, finalizers,
generation. Next on the data's way: `hub.store` writes what comes out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from pydantic.alias_generators import to_camel

from transom.hub.ownership import check_unprotected, finalizers_for
from transom.model.errors import (
    ConflictError,
    ExistsError,
    ForbiddenError,
    InvalidError,
    ModifiedError,
    NotFoundError,
    Problem,
)
from transom.model.kinds import Kind
from transom.model.names import Key
from transom.model.resources import API_GROUP, JsonObject, ManagedFields, Metadata, Resource

CHANGE_CAUSE = f"{API_GROUP}/change-cause"
"""The annotation in which people say why they change something."""


class Actor(msgspec.Struct, frozen=True):
    """Who writes: the role that owns kinds ("api", "region", a controller), which person or part, and from
    where (the address a person's request came from).
    """

    role: str
    who: str
    source: str = ""


Held = Resource | None
Wanted = Callable[[Held], Held]
"""From what is held to what shall be held; None means "shall not exist"."""
Tracking = Callable[[Held, Resource, Resource, str], list[ManagedFields]]
"""From what was held, what was wanted of it, what came of that and the time: who manages which field then."""


@dataclass(frozen=True)
class Change:
    """One change of one resource, by somebody, for a reason.

    `outdated` is asked about what was deleted last under this key, when nothing is held: whether this change
    is older than that, and must not bring it back (invariant 2). `trace` is its traceparent, if it has one.

    `propagation` is for deletions (`hub.ownership`). `gone` names resources, by key and uid, that must not
    live any more, or this change is refused: it follows from their end. `revives` is what was deleted and
    comes back (`hub.restoring`). `tracking` says who manages which field afterwards; without it, that stays
    as it was.
    """

    key: Key
    wanted: Wanted
    actor: Actor
    why: str = ""
    outdated: Callable[[Resource], bool] | None = None
    trace: str = ""
    propagation: str = ""
    revives: Resource | None = None
    gone: tuple[tuple[Key, str], ...] = ()
    tracking: Tracking | None = None


# --- what people and controllers ask for ---------------------------------------------------------------


def creating(resource: Resource) -> Wanted:
    """Make it. Raises `ExistsError` when it is there (also while it is being deleted)."""

    def wanted(held: Held) -> Held:
        if held is not None:
            state = "is still being deleted" if held.deleting else "exists already"
            raise ExistsError(f"{resource.key} {state}")
        return resource

    return wanted


def replacing(resource: Resource) -> Wanted:
    """Make it as `resource` says, but for the finalizers of our own parts, which nobody has to repeat.

    Raises as `updating` does.
    """

    def wanted(held: Held) -> Held:
        held = _existing(resource.key, held)
        ours = [name for name in held.metadata.finalizers if name.startswith(_OURS)]
        others = [name for name in resource.metadata.finalizers if name not in ours]
        return updating(resource.with_metadata(finalizers=[*ours, *others]))(held)

    return wanted


def updating(resource: Resource) -> Wanted:
    """Make everything that people may write as it is in `resource`: spec, labels, annotations, finalizers and
    owners; what it leaves out of these is removed.

    Status stays. Raises `ConflictError` for another resourceVersion or uid than the one held, when
    `resource` has one, and for another spec of what is being deleted by someone who has not read that;
    `InvalidError` for what never changes.
    """

    def wanted(held: Held) -> Held:
        held = _existing(resource.key, held)
        _expect(held, resource.metadata.resource_version, resource.metadata.uid)
        problems = list(_immutable_problems(held.metadata, resource.metadata))
        if resource.key != held.key:
            problems.append(Problem("metadata", "kind, namespace and name cannot be changed"))
        if problems:
            raise InvalidError(str(resource.key), problems)
        if held.deleting and resource.spec != held.spec and not resource.metadata.resource_version:
            raise ConflictError(
                f"{resource.key} is being deleted; wait until it is gone, then declare it again"
            )
        kept = msgspec.structs.replace(
            held.metadata,
            labels=resource.metadata.labels,
            annotations=resource.metadata.annotations,
            finalizers=resource.metadata.finalizers,
            owner_references=resource.metadata.owner_references,
            managed_fields=resource.metadata.managed_fields or held.metadata.managed_fields,
        )
        return msgspec.structs.replace(resource, metadata=kept, status=held.status)

    return wanted


def applying(resource: Resource) -> Wanted:
    """Create it, or replace it when it exists."""

    def wanted(held: Held) -> Held:
        return resource if held is None else replacing(resource)(held)

    return wanted


def deleting(key: Key, resource_version: str = "", uid: str = "") -> Wanted:
    """Delete it: at once without finalizers, else as soon as the last one is gone."""

    def wanted(held: Held) -> Held:
        _expect(_existing(key, held), resource_version, uid)
        return None

    return wanted


def setting_status(key: Key, uid: str, status: JsonObject, resource_version: str = "") -> Wanted:
    """Replace the status of the resource that has this uid and version; of another one, `ConflictError`."""

    def wanted(held: Held) -> Held:
        held = _existing(key, held)
        _expect(held, resource_version, uid)
        return held.with_status(status)

    return wanted


def dropping_finalizer(key: Key, uid: str, role: str) -> Wanted:
    """Take the finalizer of `role` away: it has finished its part of the deletion."""

    def wanted(held: Held) -> Held:
        held = _existing(key, held)
        _expect(held, "", uid)
        return without_finalizer(held, role)

    return wanted


def without_finalizer(resource: Resource, role: str) -> Resource:
    """The resource without the finalizer of `role`."""
    mine = finalizer_of(role)
    return resource.with_metadata(finalizers=[name for name in resource.metadata.finalizers if name != mine])


_OURS = f"{API_GROUP}/"


def finalizer_of(role: str) -> str:
    """The finalizer that only `role` may remove."""
    return f"{_OURS}{role}"


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged: JsonObject = dict(cast("JsonObject", target)) if isinstance(target, dict) else {}
    for name, value in cast("JsonObject", patch).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def _existing(key: Key, held: Held) -> Resource:
    if held is None:
        raise NotFoundError(f"{key} does not exist")
    return held


def _immutable_problems(held: Metadata, said: Metadata) -> Iterator[Problem]:
    """What `said` has otherwise than `held` of what only the hub sets. Clients may leave it out, and keep no
    more of a time than its seconds.
    """
    for field in ("creation_timestamp", "deletion_timestamp"):
        new, old = getattr(said, field), getattr(held, field)
        if new is not None and new[:_TO_SECONDS] != (old or "")[:_TO_SECONDS]:
            yield Problem(f"metadata.{to_camel(field)}", f'"{new}": field is immutable')
    grace = said.deletion_grace_period_seconds
    if grace is not None and grace != held.deletion_grace_period_seconds:
        yield Problem("metadata.deletionGracePeriodSeconds", f"{grace}: field is immutable")


_TO_SECONDS = len("2026-01-31T12:00:00")


def _expect(held: Resource, resource_version: str, uid: str) -> None:
    if uid and uid != held.metadata.uid:
        raise ConflictError(f"{held.key} is another object now: its uid is {held.metadata.uid}, not {uid}")
    if resource_version and resource_version != held.metadata.resource_version:
        raise ModifiedError(
            f"{held.key} was changed by someone else: it is at resourceVersion "
            f"{held.metadata.resource_version}, not {resource_version}; read it again and repeat the change"
        )


def cause_of(change: Change, before: Held, after: Held) -> str:
    """Why: as it was said with the change, or by an annotation that the change itself has set."""
    had, has = (each.metadata.annotations.get(CHANGE_CAUSE, "") if each else "" for each in (before, after))
    return change.why or (has if has != had else "")


# --- what every change must keep -----------------------------------------------------------------------


def evaluate(kind: Kind, held: Held, change: Change, uid: str, now: str) -> Held:
    """What shall be held after `change`; `held` itself when it changes nothing; None when it goes.

    `uid` is for a new resource. Raises what `change` raises, `InvalidError`, `ForbiddenError`.
    """
    wanted = change.wanted(held)
    if wanted is None:
        return _deleted(kind, held, change, now)
    if wanted.key != change.key:
        raise InvalidError(str(change.key), [Problem("metadata", f"is that of {wanted.key}")])
    if held is None:
        after: Held = _created(kind, wanted, change.actor, uid, now)
    else:
        after = _updated(kind, held, wanted, change.actor)
    if after is None or change.tracking is None:
        return after
    after = after.with_metadata(managed_fields=change.tracking(held, wanted, after, now))
    return held if after == held else after


def _created(kind: Kind, wanted: Resource, actor: Actor, uid: str, now: str) -> Resource:
    _require_owner(kind, actor, "create")
    if wanted.status and actor.role != kind.status_owner:
        wanted = wanted.with_status({})  # as the Kubernetes API does: a status in a manifest is left out
    meta = wanted.metadata
    finalizers = [*kind.finalizers, *(name for name in meta.finalizers if name not in kind.finalizers)]
    fresh = Metadata(
        name=meta.name,
        namespace=meta.namespace,
        uid=uid,
        generation=1,
        labels=meta.labels,
        annotations=meta.annotations,
        finalizers=finalizers,
        owner_references=meta.owner_references,
        creation_timestamp=now,
        managed_fields=meta.managed_fields,
        generate_name=meta.generate_name,
    )
    return kind.validate(msgspec.structs.replace(wanted, metadata=fresh))


def _updated(kind: Kind, held: Resource, wanted: Resource, actor: Actor) -> Held:
    if wanted.spec != held.spec:
        wanted = kind.validate(wanted)
    respecified = wanted.spec != held.spec
    if respecified or _described(wanted) != _described(held):
        _require_owner(kind, actor, "change")
    if respecified:
        _check_region(kind, held, wanted)
        problems = list(kind.check_update(held, wanted)) if kind.check_update else []
        if problems:
            raise InvalidError(str(held.key), problems)
    if wanted.status != held.status and actor.role != kind.status_owner:
        raise ForbiddenError(
            f"{actor.role!r} may not write the status of {held.key}; "
            f"{kind.status_owner or 'nobody'} owns the status of a {kind.name}"
        )
    _check_finalizers(kind, held, wanted, actor)
    if held.deleting and not wanted.metadata.finalizers:
        return None
    generation = held.metadata.generation + (1 if respecified else 0)
    kept = msgspec.structs.replace(
        held.metadata,
        generation=generation,
        labels=wanted.metadata.labels,
        annotations=wanted.metadata.annotations,
        finalizers=wanted.metadata.finalizers,
        owner_references=wanted.metadata.owner_references,
        managed_fields=wanted.metadata.managed_fields,
    )
    after = Resource(held.kind, kept, kind.api_version, wanted.spec, wanted.status)
    return held if after == held else after


def _deleted(kind: Kind, held: Held, change: Change, now: str) -> Held:
    _require_owner(kind, change.actor, "delete")
    if held is None:
        return None
    check_unprotected(held)
    finalizers = finalizers_for(change.propagation, held.metadata.finalizers)
    if not finalizers:
        return None
    if held.deleting:
        same = finalizers == held.metadata.finalizers
        return held if same else held.with_metadata(finalizers=finalizers)
    return held.with_metadata(
        deletion_timestamp=now,
        deletion_grace_period_seconds=0,
        generation=held.metadata.generation + 1,
        finalizers=finalizers,
    )


def _check_region(kind: Kind, held: Resource, wanted: Resource) -> None:
    if kind.region_of is not None and kind.region_of(held) != kind.region_of(wanted):
        # The old region would never hear of it: absence is never a delete (invariant 5).
        raise InvalidError(
            str(held.key), [Problem("spec.region", "cannot be changed; delete it and make another")]
        )


def _described(resource: Resource) -> tuple[Any, ...]:
    meta = resource.metadata
    return meta.labels, meta.annotations, meta.owner_references


def _require_owner(kind: Kind, actor: Actor, verb: str) -> None:
    if actor.role != kind.owner:
        raise ForbiddenError(f"{actor.role!r} may not {verb} a {kind.name}; {kind.owner!r} owns that kind")


def _check_finalizers(kind: Kind, held: Resource, wanted: Resource, actor: Actor) -> None:
    before, after = set(held.metadata.finalizers), set(wanted.metadata.finalizers)
    if before == after:
        return
    for name in before - after:
        # Ours are removed by the part they are named after; others belong to whoever owns the kind.
        allowed = finalizer_of(actor.role) == name if name.startswith(_OURS) else actor.role == kind.owner
        if not allowed:
            raise ForbiddenError(f"{actor.role!r} may not remove the finalizer {name!r} of {held.key}")
    added = after - before
    if added and (actor.role != kind.owner or held.deleting):
        raise ForbiddenError(
            f"{actor.role!r} may not add finalizers to {held.key}: {', '.join(sorted(added))}"
        )
