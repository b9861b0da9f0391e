"""What the garbage collector looks at: resources, their owners and their dependents, as of one revision.

Next on the data's way: `garbage`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from transom.hub.ownership import is_protected, owner_key
from transom.hub.store_schema import counter, dependents, resources
from transom.model.kinds import Catalog
from transom.model.names import Key
from transom.model.resources import Resource, from_json

_NAMES_A_QUERY = 300


class Owned(NamedTuple):
    """Some resources that people made for others, and some that others were made for.

    `owners` are by uid: those that live, and None for those that do not; one that is missing is of a kind
    that is not known here, and nobody can say. `upto` is the revision up to which was looked, `more` whether
    there is more behind it.
    """

    dependents: list[Resource]
    owners: dict[str, Resource | None]
    upto: int
    more: bool


def owned(db: Connection, after: int, most: int, catalog: Catalog) -> Owned:
    """Whom what was described after revision `after` concerns: its owners, its dependents, their owners."""
    now: int = db.execute(_NOW).scalar_one()
    rows = db.execute(_DESCRIBED, {"behind": after, "most": most}).all()
    touched = [from_json(row.body) for row in rows]
    named = dict(_owners_of(touched, catalog))
    uids = {each.metadata.uid for each in touched} | named.keys()
    made = list(_made_for(db, uids))
    named |= _owners_of(made, catalog)
    living = {each.key: each for each in _live(db, {*named.values(), *(each.key for each in touched)})}
    owners: dict[str, Resource | None] = {each.metadata.uid: each for each in living.values()}
    for uid, key in named.items():
        held = living.get(key)
        owners[uid] = held if held is not None and held.metadata.uid == uid else None
    more = len(rows) == most
    return Owned(made, owners, rows[-1].described_revision if more else now, more)


def protected_below(db: Connection, owner: Resource, held: Callable[[Key], Resource | None]) -> Key | None:
    """One of those that would go with `owner` and must not; `held` says what there is of a key now."""
    ring, seen = [owner.metadata.uid], {owner.metadata.uid}
    while ring:
        keys = {
            Key.parse(key) for part in _parts(ring) for key in db.execute(_MADE_BY, {"uids": part}).scalars()
        }
        living = [found for key in sorted(keys) if (found := held(key)) is not None]
        ring = [found.metadata.uid for found in living if found.metadata.uid not in seen]
        seen.update(ring)
        for found in living:
            if is_protected(found) and not found.deleting:
                return found.key
    return None


def _owners_of(made: Iterable[Resource], catalog: Catalog) -> dict[str, Key]:
    """Whom `made` name as their owners, by uid, where their kind is known."""
    named: dict[str, Key] = {}
    for each in made:
        for reference in each.metadata.owner_references:
            key = owner_key(catalog, reference, each.metadata.namespace)
            if key is not None:
                named[reference.uid] = key
    return named


def _made_for(db: Connection, uids: Collection[str]) -> Iterator[Resource]:
    seen: set[str] = set()
    for part in _parts(uids):
        for body in db.execute(_LIVE_MADE_BY, {"uids": part}).scalars():
            found = from_json(body)
            if found.metadata.uid not in seen:
                seen.add(found.metadata.uid)
                yield found


def _live(db: Connection, keys: Collection[Key]) -> Iterator[Resource]:
    for part in _parts(str(key) for key in keys):
        yield from map(from_json, db.execute(_LIVE_NAMED, {"keys": part}).scalars())


_NOW = select(counter.c.revision)
_DESCRIBED = (
    select(resources.c.body, resources.c.described_revision)
    .where(resources.c.described_revision > bindparam("behind"))
    .order_by(resources.c.described_revision)
    .limit(bindparam("most"))
)
_MADE_BY = select(dependents.c.key).where(dependents.c.owner_uid.in_(bindparam("uids", expanding=True)))
_LIVE = select(resources.c.body).where(resources.c.deleted.is_(False))
_LIVE_MADE_BY = _LIVE.where(resources.c.key.in_(_MADE_BY))
_LIVE_NAMED = _LIVE.where(resources.c.key.in_(bindparam("keys", expanding=True)))


def _parts(names: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(names)
    for at in range(0, len(ordered), _NAMES_A_QUERY):
        yield ordered[at : at + _NAMES_A_QUERY]
