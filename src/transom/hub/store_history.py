"""The history: every change with who, when, why and what, read and forgotten. Next: `store`."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, case, delete, func, select, update

from transom.hub import store_audit
from transom.hub.store_schema import PURGED, counter, history
from transom.model.errors import ExpiredError, InvalidError, NotFoundError, Problem
from transom.model.names import Key
from transom.model.resources import Resource, from_json


class Event(msgspec.Struct, frozen=True):
    """One change as the history has it: "ADDED", "MODIFIED", "DELETED" or "PURGED", who made it, from where,
    when and why.
    """

    revision: int
    event: str
    role: str
    who: str
    source: str
    why: str
    at: str
    resource: Resource


def events(db: Connection, after: int, most: int, kind: str, namespace: str) -> list[Event]:
    """See `Store.events`."""
    pruned = db.execute(select(counter.c.pruned_revision)).scalar_one()
    if after + 1 < pruned:
        raise ExpiredError(f"changes before revision {pruned} are forgotten; list again and watch from there")
    # A purge changes nothing that anybody can see.
    query = select(history).where(history.c.revision > after, history.c.event != PURGED)
    if kind:
        query = query.where(history.c.kind == kind)
    if namespace:
        query = query.where(history.c.namespace == namespace)
    return _events(db, query.order_by(history.c.revision).limit(most))


def of_one(db: Connection, key: Key, most: int, before: int) -> list[Event]:
    """See `Store.history_of`."""
    query = _of(key)
    if before:
        query = query.where(history.c.revision < before)
    return _events(db, query.order_by(history.c.revision.desc()).limit(most))


def at_generation(db: Connection, key: Key, generation: int) -> Event:
    """See `Store.at_generation`."""
    query = _of(key).where(history.c.event != PURGED).order_by(history.c.revision.desc()).limit(1)
    found = _events(db, query.where(history.c.generation == generation) if generation else query)
    if found:
        return found[0]
    known = select(func.min(history.c.generation), func.max(history.c.generation))
    low, high = db.execute(known.where(*_named(key), history.c.event != PURGED)).one()
    if low is None:
        raise NotFoundError(f"{key} does not exist")
    which = f"only {low} is" if low == high else f"{low} to {high} are"
    said = f"generation {generation} is not remembered; {which}"
    if generation < low:
        raise ExpiredError(f"{key}: {said}")
    raise InvalidError(str(key), [Problem("generation", said)])


def _of(key: Key) -> Select[Any]:
    return select(history).where(*_named(key))


def _named(key: Key) -> tuple[ColumnElement[bool], ...]:
    named = history.c.kind == key.kind, history.c.namespace == key.namespace, history.c.name == key.name
    return *named, history.c.described.is_(True)


def prune(db: Connection, status_before: str, all_before: str) -> None:
    """See `Store.prune_history`."""
    last = store_audit.forget(db, all_before)
    old = history.c.described.is_(False) & (history.c.at < max(status_before, all_before))
    newest = max(last, db.execute(select(func.max(history.c.revision)).where(old)).scalar() or 0)
    if newest:
        db.execute(delete(history).where(old))
        db.execute(update(counter).values(pruned_revision=forgotten_upto(newest)))


def forgotten_upto(revision: int) -> ColumnElement[int]:
    """The value of `pruned_revision` when changes up to `revision` are forgotten; it never goes back."""
    held = counter.c.pruned_revision
    return case((held > revision, held), else_=revision + 1)


def _events(db: Connection, query: Select[Any]) -> list[Event]:
    rows = db.execute(query).mappings()
    return [
        Event(
            row["revision"],
            row["event"],
            row["role"],
            row["who"],
            row["source"],
            row["why"],
            row["at"],
            from_json(row["body"]),
        )
        for row in rows
    ]
