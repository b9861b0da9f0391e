"""Lists as of one revision, and the changes after one, as the bytes that are stored.

The newest state of every resource is at hand. What has changed since the revision asked for is shown as the
first change after it found it: each row of the history keeps what it replaced. So all pages of one list show
one revision, whatever is written meanwhile, for as long as the changes since then are kept.
Next on the data's way: `hub.api.lists` and `hub.api.watch`.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, func, select, tuple_

from transom.hub.store_schema import counter, history, resources
from transom.model.errors import ExpiredError, NotReachedError
from transom.model.names import Key


class Chosen(NamedTuple):
    """Which resources: those of a kind, of a namespace and of a name where these are not empty."""

    kind: str
    namespace: str = ""
    name: str = ""


class Row(NamedTuple):
    """A resource as it is stored."""

    key: Key
    body: bytes


class Snapshot(NamedTuple):
    """A page of what was chosen, as of `revision`. `more`: there is more behind the last row. `remaining` is
    how many rows there are behind it, if that was asked for.
    """

    rows: list[Row]
    revision: int
    more: bool
    remaining: int | None


class StoredChange(NamedTuple):
    """A change: "ADDED", "MODIFIED" or "DELETED", what there is (or was last), and what it replaced."""

    revision: int
    event: str
    key: Key
    body: bytes
    before: bytes | None


def snapshot(
    db: Connection, chosen: Chosen, at: int | None, after: Key | None, most: int, *, count: bool
) -> Snapshot:
    """What was chosen, as of revision `at` (None: now), in the order of namespace and name: up to `most`
    behind the key `after`. With `count` it says how many there are behind these.

    Raises `ExpiredError` when that is forgotten, `NotReachedError` when it is yet to come.
    """
    pruned, now = db.execute(select(counter.c.pruned_revision, counter.c.revision)).one()
    if at is not None and at > now:
        raise NotReachedError(at, now)
    if at is not None and at + 1 < pruned:
        raise ExpiredError(f"the resourceVersion for the provided list is too old: {at} ({pruned - 1})")
    shown = _shown_at(chosen, at) if at is not None and at < now else _shown_now(chosen)
    rows: list[Row] = []
    while len(rows) <= most:
        asked = most + 1 - len(rows)
        query = shown if after is None else shown.where((after.namespace, after.name) < _PLACE)
        found = db.execute(query.order_by(resources.c.namespace, resources.c.name).limit(asked)).all()
        rows += [Row(Key(chosen.kind, namespace, name), body) for namespace, name, body in found]
        if len(found) < asked:
            break
        after = rows[-1].key
    more = len(rows) > most
    remaining = 0
    if more and count:
        remaining = int(db.execute(_counted(shown, rows[most - 1].key)).scalar_one())
    return Snapshot(rows[:most], now if at is None else at, more, remaining if count else None)


def changes(db: Connection, after: int, most: int, chosen: Chosen | None) -> list[StoredChange]:
    """Changes after revision `after`, in order. Raises `ExpiredError` when some are forgotten already."""
    pruned = db.execute(select(counter.c.pruned_revision)).scalar_one()
    if after + 1 < pruned:
        raise ExpiredError(f"too old resource version: {after} ({pruned - 1})")
    query = _CHANGES.where(history.c.revision > after, history.c.event.in_(_TOLD))
    if chosen is not None:
        query = query.where(history.c.kind == chosen.kind)
        for column, value in ((history.c.namespace, chosen.namespace), (history.c.name, chosen.name)):
            query = query.where(column == value) if value else query
    found = db.execute(query.order_by(history.c.revision).limit(most))
    return [
        StoredChange(revision, event, Key(*key), body, before)
        for revision, event, *key, body, before in found
    ]


_TOLD = ("ADDED", "MODIFIED", "DELETED")
_PLACE = tuple_(resources.c.namespace, resources.c.name)
_CHANGES = select(
    history.c.revision,
    history.c.event,
    history.c.kind,
    history.c.namespace,
    history.c.name,
    history.c.body,
    history.c.before,
)


def _shown_now(chosen: Chosen) -> Select[*tuple[Any, ...]]:
    live = select(resources.c.namespace, resources.c.name, resources.c.body.label("shown"))
    return _narrowed(live.where(resources.c.deleted.is_(False)), chosen)


def _shown_at(chosen: Chosen, at: int) -> Select[*tuple[Any, ...]]:
    """What there was at a revision: what has not changed since, and what the first change since replaced."""
    replaced = (
        select(history.c.before)
        .where(
            history.c.kind == resources.c.kind,
            history.c.namespace == resources.c.namespace,
            history.c.name == resources.c.name,
            history.c.revision > at,
        )
        .order_by(history.c.revision)
        .limit(1)
        .scalar_subquery()
    )
    changed = resources.c.revision > at
    shown = case((changed, replaced), (resources.c.deleted.is_(False), resources.c.body))
    columns = select(resources.c.namespace, resources.c.name, shown.label("shown"))
    return _narrowed(columns.where(shown.is_not(None)), chosen)


def _narrowed(query: Select[*tuple[Any, ...]], chosen: Chosen) -> Select[*tuple[Any, ...]]:
    query = query.where(resources.c.kind == chosen.kind)
    for column, value in ((resources.c.namespace, chosen.namespace), (resources.c.name, chosen.name)):
        query = query.where(column == value) if value else query
    return query


def _counted(shown: Select[*tuple[Any, ...]], after: Key) -> Select[int]:
    behind = shown.where((after.namespace, after.name) < _PLACE).with_only_columns(resources.c.key)
    return select(func.count()).select_from(behind.subquery())
