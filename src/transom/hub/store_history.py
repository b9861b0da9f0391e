"""The history: every change with who, when, why and what, read and forgotten. Next: `store`."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Select, case, delete, func, select, update

from transom.hub.store_schema import counter, history
from transom.model.errors import ExpiredError
from transom.model.names import Key
from transom.model.resources import Resource, from_json


class Event(msgspec.Struct, frozen=True):
    """One change as the history has it: "ADDED", "MODIFIED" or "DELETED", by whom, from where, when, why."""

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
    query = select(history).where(history.c.revision > after)
    if kind:
        query = query.where(history.c.kind == kind)
    if namespace:
        query = query.where(history.c.namespace == namespace)
    return _events(db, query.order_by(history.c.revision).limit(most))


def of_one(db: Connection, key: Key, most: int) -> list[Event]:
    """See `Store.history_of`."""
    query = select(history).where(
        history.c.kind == key.kind,
        history.c.namespace == key.namespace,
        history.c.name == key.name,
        history.c.described,
    )
    return _events(db, query.order_by(history.c.revision.desc()).limit(most))


def prune(db: Connection, status_before: str, all_before: str) -> None:
    """See `Store.prune_history`."""
    old = (history.c.at < all_before) | (history.c.described.is_(False) & (history.c.at < status_before))
    newest = db.execute(select(func.max(history.c.revision)).where(old)).scalar()
    if newest is not None:
        db.execute(delete(history).where(old))
        # Never back: what an earlier pruning took may be newer than what this one takes.
        held = counter.c.pruned_revision
        pruned = case((held > newest, held), else_=newest + 1)
        db.execute(update(counter).values(pruned_revision=pruned))


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
