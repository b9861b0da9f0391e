"""Questions about resources as they are now, each in a read transaction that somebody has begun.

`store_snapshots` shows what was at a revision, `store_history` how it came to be.
Next on the data's way: `store`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, select, tuple_

from transom.hub.store_engine import is_storable
from transom.hub.store_portions import Portions
from transom.hub.store_schema import counter, resources
from transom.model.errors import ConflictError, NotFoundError
from transom.model.names import Key
from transom.model.resources import Resource, from_json

KEYS_A_QUERY = 300
_ROWS_BYTES_MAX = 4 * 1024 * 1024
# Statements that are asked again and again are built once: building one takes longer than carrying it out.
_LIVE = select(resources.c.body).where(resources.c.deleted.is_(False))
_OF_KIND = _LIVE.where(resources.c.kind == bindparam("kind"))
_NAMED = _LIVE.where(resources.c.key.in_(bindparam("values", expanding=True)))
_MADE_FOR = _LIVE.where(resources.c.owner_uid.in_(bindparam("values", expanding=True)))
_BODIES = _NAMED.add_columns(resources.c.key)
_STANDING = select(counter.c.epoch, counter.c.revision)
_ROWS_OF_REGION = Portions(
    select(
        resources.c.body,
        resources.c.described_revision,
        resources.c.deleted,
        select(counter.c.revision).scalar_subquery(),
    ).where(resources.c.region == bindparam("region")),
    by=resources.c.described_revision,
)


class Page(NamedTuple):
    """Some resources of a kind, the revision they stand for, and the key to go on after (None: the end)."""

    items: list[Resource]
    revision: int
    more_after: Key | None


class RegionRow(NamedTuple):
    """A resource that a region is to have, and the revision at which it was last described."""

    resource: Resource
    revision: int
    deleted: bool


class RegionRows(NamedTuple):
    """Rows of a region, the revision up to which they are complete, and whether there may be more."""

    rows: list[RegionRow]
    upto: int
    more: bool


class Families(NamedTuple):
    """Resources, what was made for them (their `owner`), and all resources of some other kinds."""

    primaries: dict[Key, Resource]
    children: list[Resource]
    others: dict[str, list[Resource]]


def standing(db: Connection) -> tuple[int, int]:
    """The incarnation and the revision."""
    row = db.execute(_STANDING).one()
    return row.epoch, row.revision


def bodies(db: Connection, keys: Sequence[Key]) -> list[bytes | Exception]:
    """What exists of up to `KEYS_A_QUERY` keys, as it is stored; for each other one a `NotFoundError`."""
    names = [name for name in map(str, keys) if is_storable(name)]
    found = {row.key: row.body for row in db.execute(_BODIES, {"values": names})}
    return [found.get(str(key)) or NotFoundError(f"{key} does not exist") for key in keys]


def page(db: Connection, kind: str, namespace: str, most: int, after: Key | None) -> Page:
    """Up to `most` of a kind behind the key `after`, in the order of namespace and name."""
    query = _LIVE.where(resources.c.kind == kind)
    if namespace:
        query = query.where(resources.c.namespace == namespace)
    if after is not None:
        query = query.where(tuple_(resources.c.namespace, resources.c.name) > (after.namespace, after.name))
    items = _resources(db, query.order_by(resources.c.namespace, resources.c.name).limit(most + 1))
    more = items[most - 1].key if len(items) > most else None
    return Page(items[:most], standing(db)[1], more)


def all_of(db: Connection, kind: str) -> list[Resource]:
    """Every resource of a kind."""
    return _resources(db, _OF_KIND, kind=kind)


def families(db: Connection, keys: Sequence[Key], others: Sequence[str], at_least: int) -> Families:
    """What is held of `keys`, what was made for them, and all of some other kinds.

    Raises `ConflictError` when the store is below `at_least`: a copy that lags behind must not be acted on.
    """
    if at_least and standing(db)[1] < at_least:
        raise ConflictError(f"the store is not at revision {at_least} yet")
    found = _found(db, _NAMED, [str(key) for key in keys])
    uids = [resource.metadata.uid for resource in found]
    return Families(
        {resource.key: resource for resource in found},
        _found(db, _MADE_FOR, uids),
        {kind: all_of(db, kind) for kind in others},
    )


def region_rows(db: Connection, region: str, after: int, most: int) -> RegionRows:
    """Resources of `region` described after revision `after`, oldest first, deleted ones included.

    Up to `most` of them, and about 4 MiB.
    """
    rows: list[RegionRow] = []
    size = newest = 0
    for body, at, gone, known in _ROWS_OF_REGION.rows(db, after, most, region=region):
        newest = known
        rows.append(RegionRow(from_json(body), at, gone))
        size += len(body)
        if size >= _ROWS_BYTES_MAX or len(rows) == most:
            return RegionRows(rows, at, more=True)
    return RegionRows(rows, newest or standing(db)[1], more=False)


def _found(db: Connection, query: Select[Any], values: Sequence[str]) -> list[Resource]:
    """What `query` finds of `values`, looked up in parts that a database takes."""
    values = [value for value in values if is_storable(value)]
    return [
        resource
        for at in range(0, len(values), KEYS_A_QUERY)
        for resource in _resources(db, query, values=values[at : at + KEYS_A_QUERY])
    ]


def _resources(db: Connection, query: Select[Any], **values: object) -> list[Resource]:
    return [from_json(body) for body in db.execute(query, values).scalars()]
