"""What was deleted and can be brought back: found with all that went with it, and purged at its end.

A purge is a record like every other change: it has a revision, stands in history and outbox, and reaches
regions as a newer delete marker that holds nothing. Nothing of what was declared is left then, here or there.
Next on the data's way: `undeletion`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, or_, select, update

from transom.hub import store_audit
from transom.hub.changes import Actor
from transom.hub.store_counter import Standing, locked, move
from transom.hub.store_history import forgotten_upto
from transom.hub.store_rows import history_row, outbox_row
from transom.hub.store_schema import PURGED, counter, dependents, history, outbox, resources
from transom.model.errors import (
    ConflictError,
    ExpiredError,
    InvalidError,
    NotFoundError,
    Problem,
)
from transom.model.names import Key
from transom.model.resources import Metadata, Resource, from_json, to_json
from transom.runtime.randomness import Randomness

FAMILY_MAX = 1000


class Deleted(NamedTuple):
    """What is gone, as it was when its deletion was asked for, and as the store has it."""

    asked: Resource
    tombstone: Resource
    began: int


class Purged(NamedTuple):
    """What was purged, and what there is to tell of it."""

    keys: list[Key]
    since: int
    revision: int
    kinds: frozenset[str]
    regions: frozenset[str]


def family(db: Connection, key: Key) -> list[Deleted]:
    """What was deleted under `key`, and then everything that was made for it and went when it did.

    Raises `ConflictError` (it is there, or is being deleted, or a part of it is), `NotFoundError`,
    `ExpiredError` (it was purged), `InvalidError` (it is too much).
    """
    first = _deleted(db, key)
    found = {first.asked.metadata.uid: first}
    ring = [first.asked.metadata.uid]
    while ring:
        found.update((each.asked.metadata.uid, each) for each in _made_for(db, ring, first))
        if len(found) > FAMILY_MAX:
            wrong = f"more than {FAMILY_MAX} resources were deleted with it; bring back parts of it first"
            raise InvalidError(str(key), [Problem("", wrong)])
        ring = list(found)[list(found).index(ring[-1]) + 1 :]
    return list(found.values())


def expired(db: Connection, before: str, most: int) -> list[Key]:
    """Some of what was deleted before a time and can still be brought back."""
    query = select(resources.c.key).where(resources.c.deleted_at < before)
    return [
        Key.parse(key) for key in db.execute(query.order_by(resources.c.deleted_at).limit(most)).scalars()
    ]


def purge(
    db: Connection,
    keys: Iterable[Key],
    actor: Actor,
    why: str,
    now: str,
    randomness: Randomness,
    known: int,
) -> Purged:
    """Take away for good what was deleted under `keys`; what cannot be brought back anyway is left alone."""
    since, newest = locked(db, known)
    purged: list[Key] = []
    records: list[dict[str, Any]] = []
    regions: set[str] = set()
    for key in keys:
        mine = (resources.c.key == str(key)) & resources.c.deleted & resources.c.deleted_at.is_not(None)
        row = db.execute(select(resources.c.body, resources.c.region).where(mine)).first()
        if row is None:
            continue
        purged.append(key)
        revision = since + len(purged)
        last = _emptied(from_json(row.body), revision)
        body = to_json(last)
        db.execute(
            update(resources)
            .where(mine)
            .values(body=body, revision=revision, described_revision=revision, deleted_at=None)
        )
        db.execute(delete(dependents).where(dependents.c.key == str(key)))
        _empty_history(db, key)
        records.append(history_row(actor, PURGED, last, body, revision, now, why))
        db.execute(insert(outbox), [outbox_row(PURGED, last, revision, "", randomness)])
        if row.region:
            regions.add(row.region)
    if purged:
        newest = store_audit.append(db, records, newest)
        move(db, Standing(since + len(purged), newest))
    return Purged(
        purged, since, since + len(purged), frozenset(key.kind for key in purged), frozenset(regions)
    )


def _deleted(db: Connection, key: Key) -> Deleted:
    columns = resources.c.deleted, resources.c.deleted_at, resources.c.body
    row = db.execute(select(*columns).where(resources.c.key == str(key))).first()
    if row is None:
        raise NotFoundError(f"{key} does not exist")
    last = from_json(row.body)
    if not row.deleted and last.deleting:
        waits = ", ".join(last.metadata.finalizers)
        raise ConflictError(
            f"{key} is still being deleted and waits for {waits}; bring it back once it is gone"
        )
    if not row.deleted:
        raise ConflictError(
            f"{key} is there (uid {last.metadata.uid}); what was there before it is in its history"
        )
    if row.deleted_at is None:
        raise _gone_for_good(db, key)
    return _as_asked(db, last)


def _gone_for_good(db: Connection, key: Key) -> ExpiredError:
    query = select(history).where(*_of(key), history.c.event == PURGED)
    row = db.execute(query.order_by(history.c.revision.desc()).limit(1)).first()
    said = f"was purged at {row.at} by {row.who}: {row.why}" if row else "was purged"
    return ExpiredError(f"{key} {said}; nothing of it is left to bring back")


def _as_asked(db: Connection, tombstone: Resource) -> Deleted:
    """A deletion that waited for finalizers lost them one by one; the request still had them all."""
    generation = tombstone.metadata.generation
    query = select(history.c.revision, history.c.body).where(
        *_of(tombstone.key), history.c.described, history.c.generation == generation
    )
    gone = int(tombstone.metadata.resource_version)
    for revision, body in db.execute(query.order_by(history.c.revision)):
        asked = from_json(body)
        if asked.metadata.uid == tombstone.metadata.uid and (asked.deleting or revision == gone):
            return Deleted(asked, tombstone, revision)
    return Deleted(tombstone, tombstone, gone)


def _made_for(db: Connection, uids: Sequence[str], first: Deleted) -> Iterator[Deleted]:
    """What was made for `uids`, and was deleted since the deletion of `first` was asked for."""
    named = select(dependents.c.key).where(dependents.c.owner_uid.in_(uids))
    query = select(resources.c.body, resources.c.deleted).where(
        or_(resources.c.owner_uid.in_(uids), resources.c.key.in_(named)),
        or_(resources.c.deleted.is_(False), resources.c.deleted_at.is_not(None)),
    )
    for body, gone in db.execute(query.order_by(resources.c.key).limit(FAMILY_MAX + 1)).all():
        last = from_json(body)
        if gone and int(last.metadata.resource_version) >= first.began:
            yield _as_asked(db, last)
        elif not gone and last.deleting:
            raise ConflictError(
                f"{last.key}, which was made for {first.asked.key}, is still being deleted and waits for "
                f"{', '.join(last.metadata.finalizers)}; bring it back once that is gone"
            )


def _emptied(resource: Resource, revision: int) -> Resource:
    """All that is left of a resource: which it was."""
    meta = resource.metadata
    left = Metadata(
        meta.name,
        meta.namespace,
        uid=meta.uid,
        generation=meta.generation,
        resource_version=str(revision),
    )
    return Resource(resource.kind, left, resource.api_version)


def _empty_history(db: Connection, key: Key) -> None:
    """Who changed it when and why stays for as long as all history does; what it was does not.

    The audit keeps the digests of what it was; records of earlier purges stand in it as they are.
    """
    query = select(history.c.revision, history.c.body).where(*_of(key), history.c.event != PURGED)
    rows = db.execute(query.order_by(history.c.revision)).all()
    if rows:
        emptied = (
            update(history)
            .where(history.c.revision == bindparam("there"))
            .values(body=bindparam("b"), before=None)
        )
        left = [(revision, _emptied(from_json(body), revision)) for revision, body in rows]
        db.execute(emptied, [{"there": revision, "b": to_json(each)} for revision, each in left])
        # Who would be told of these changes now lists again instead.
        db.execute(update(counter).values(pruned_revision=forgotten_upto(rows[-1].revision)))


def _of(key: Key) -> tuple[ColumnElement[bool], ...]:
    return history.c.kind == key.kind, history.c.namespace == key.namespace, history.c.name == key.name
