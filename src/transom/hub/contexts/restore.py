"""Returning to earlier values: what resources were at a revision is written again, as new changes.

Nothing goes back by itself: versions only rise, guards and soak apply as to any change. What restricts stays,
whatever it was before: a revoked key, a suspended tenant. Nothing is deleted, and a deleted key is not made
again. Next on the data's way: `hub.store`, and back here through the builder.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from transom.hub.changes import Actor, Change, Held, Wanted, creating, replacing
from transom.hub.contexts.past import Past, past_of
from transom.hub.leaving import check_leaving
from transom.hub.store import Store
from transom.model.contexts import ContextKind
from transom.model.errors import (
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    Problem,
    TransomError,
)
from transom.model.kinds import PEOPLE
from transom.model.names import Key
from transom.model.resources import JsonObject, Resource

RESTRICTING = {"ApiKey": "revoked", "Tenant": "suspended"}
"""The fields of specs that take rights away: true stays true."""
GONE_FOR_GOOD = frozenset({"ApiKey", "HubKey"})
"""Kinds whose deleted resources are not made again: deleting a key is how it was taken away."""

_PAGE = 200
_MOST = 10_000


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which resources: of a kind, of one tenant and of one name ("" for all), as they were at `revision`."""

    kind: str
    revision: int
    tenant: str = ""
    name: str = ""
    why: str = ""


class Restoring(NamedTuple):
    """What is to be written ("create", "change" or nothing), and why something is left out."""

    key: Key
    change: str = ""
    wanted: Wanted | None = None
    skipped: str = ""


async def restore(
    store: Store, kinds: Iterable[ContextKind[Any]], request: Request, actor: Actor
) -> JsonObject:
    """Write earlier resources again; returns {items: [{key, change}], skipped: [{key, why}]}.

    Raises `InvalidError`, `ForbiddenError` when nobody may write such a kind, `ExpiredError` when the history
    does not go back that far, `NotFoundError`; then nothing was written.
    """
    kind = store.catalog.named(request.kind)
    if kind.owner != PEOPLE:
        raise ForbiddenError(f"a {kind.name} is written by {kind.owner!r}; restore what it is made from")
    if not 0 < request.revision <= store.changed.value:
        wrong = f"{request.revision} is no revision yet; the newest is {store.changed.value}"
        raise InvalidError("restore", [Problem("revision", wrong)])
    mine = [each for each in kinds if each.subject == kind.name]
    todo = [each async for page in _pages(store, kind.name, request) for each in planned(page, mine)]
    items: list[JsonObject] = []
    skipped: list[JsonObject] = [{"key": str(each.key), "why": each.skipped} for each in todo if each.skipped]
    writes = [each for each in todo if each.wanted is not None]
    for at in range(0, len(writes), _PAGE):
        part = [each for each in writes[at : at + _PAGE] if await _may_leave(store, each, skipped)]
        changes = [Change(each.key, each.wanted, actor, request.why) for each in part if each.wanted]
        for each, outcome in zip(part, await store.write_all(changes), strict=True):
            if isinstance(outcome, TransomError):
                skipped.append({"key": str(each.key), "why": str(outcome)})
            else:
                items.append({"key": str(each.key), "change": each.change})
    return {"items": items, "skipped": skipped}


async def _may_leave(store: Store, restoring: Restoring, skipped: list[JsonObject]) -> bool:
    """Whether a tenant, as it was, leaves no region in which something of its own is; else it is told."""
    try:
        if restoring.wanted:
            await check_leaving(store, restoring.key, restoring.wanted)
    except ConflictError as error:
        skipped.append({"key": str(restoring.key), "why": str(error)})
        return False
    return True


async def _pages(store: Store, kind: str, request: Request) -> AsyncIterator[list[Past]]:
    after: Key | None = None
    seen = 0
    while page := await past_of(store, kind, request.tenant, request.name, request.revision, after, _PAGE):
        after, seen = page[-1].key, seen + len(page)
        forgotten = [past for past in page if past.forgotten]
        if forgotten:
            raise ExpiredError(
                f"what {forgotten[0].key} was at revision {request.revision} is forgotten; name a later one"
            )
        differing = [past for past in page if _differ(past)]
        if seen > _MOST and differing:
            wrong = f"these are more than {_MOST} resources; restore tenant by tenant"
            raise InvalidError("restore", [Problem("tenant", wrong)])
        yield differing
        if len(page) < _PAGE:
            break
    if not seen:
        raise NotFoundError(f"there is no such {kind}, and never was as far as is remembered")


def planned(pasts: Sequence[Past], kinds: Sequence[ContextKind[Any]]) -> Iterator[Restoring]:
    """What must be written for resources that differ from what they were. Pure. `kinds` are the contexts that
    are made of them.
    """
    for past in pasts:
        if past.then is None:
            yield Restoring(past.key, skipped="it was not there then; delete it yourself if it should go")
        elif past.now is None:
            yield _again(past.key, past.then)
        else:
            yield from _back(past.now, past.then, kinds)


def _differ(past: Past) -> bool:
    if past.now is None or past.then is None:
        return past.now is not past.then
    return _declared(past.now) != _declared(past.then)


def _declared(resource: Resource) -> tuple[Any, ...]:
    return resource.spec, resource.metadata.labels, resource.metadata.annotations


def _again(key: Key, then: Resource) -> Restoring:
    if key.kind in GONE_FOR_GOOD:
        return Restoring(key, skipped="it was deleted, and what was taken away that way stays away")
    return Restoring(key, "create", creating(_bare(then)))


def _back(now: Resource, then: Resource, kinds: Sequence[ContextKind[Any]]) -> Iterator[Restoring]:
    field = RESTRICTING.get(now.key.kind, "")
    if now.deleting:
        yield Restoring(now.key, skipped="it is being deleted")
        return
    if field and now.spec.get(field) is True and then.spec.get(field) is not True:
        then = msgspec.structs.replace(then, spec={**then.spec, field: True})
        yield Restoring(now.key, skipped=f"it stays {field}")
    if _declared(now) == _declared(then):
        return
    lifted = [kind.name for kind in kinds if _restricts(kind, now) and not _restricts(kind, then)]
    if lifted and not field:
        yield Restoring(now.key, skipped=f"its {', '.join(lifted)} context would restrict no more")
        return
    yield Restoring(now.key, "change", _replacing(now, then))


def _restricts(kind: ContextKind[Any], resource: Resource) -> bool:
    """Whether its context restricts; not when there is none that could be told."""
    try:
        return kind.restricts(kind.build(resource, None))
    except Exception:  # noqa: BLE001  # anybody's module; and one that needs its tenant cannot be judged here
        return False


def _replacing(now: Resource, then: Resource) -> Wanted:
    version = now.metadata.resource_version
    owners = now.metadata.owner_references
    resource = _bare(then).with_metadata(
        resource_version=version, uid=now.metadata.uid, owner_references=owners
    )

    def wanted(held: Held) -> Held:
        return replacing(resource)(held)

    return wanted


def _bare(resource: Resource) -> Resource:
    """What people declared of it."""
    meta = resource.metadata
    return resource.with_status({}).with_metadata(
        uid="",
        resource_version="",
        generation=0,
        finalizers=[],
        owner_references=[],
        creation_timestamp=None,
        deletion_timestamp=None,
        labels=meta.labels,
    )
