"""Who still uses a tenant or a region, so that it is not deleted: as stored, and among what is accepted.

Next on the data's way: `store_write` refuses the deletion.
"""

from collections.abc import Callable, Sequence
from itertools import chain

from sqlalchemy import Connection, select

from transom.hub.changes import Held
from transom.hub.store_engine import contains
from transom.hub.store_fleeting import names_of
from transom.hub.store_rows import Accepted
from transom.hub.store_schema import resources
from transom.model.errors import ConflictError
from transom.model.kinds import Catalog
from transom.model.names import Key

_NAMED_MAX = 3

Get = Callable[[Key], Held]
"""What is held of a key, after the changes accepted so far."""


def check_unused(db: Connection, catalog: Catalog, key: Key, accepted: Sequence[Accepted], get: Get) -> None:
    """Raise `ConflictError` for a tenant with resources, or a region that has any or is named anywhere.

    `accepted` are the changes that the transaction will write.
    """
    guards = catalog[key.kind].guards
    if not guards:
        return
    column = resources.c.namespace if guards == "namespace" else resources.c.region
    query = select(resources.c.key).where(
        column == key.name,
        resources.c.deleted.is_(False),
        resources.c.kind.not_in(names_of(catalog)),
    )
    stored = {Key.parse(found) for found in db.execute(query.limit(len(accepted) + 1)).scalars()}
    lasting = (change for change in accepted if not change.kind.fleeting)
    made = {change.last.key for change in lasting if _guarded_by(guards, change) == key.name}
    alive = {found for found in stored | made if get(found) is not None}
    if guards == "region":
        alive |= _naming(db, catalog, key, accepted, get)
    if alive:
        users = sorted(str(found) for found in alive)
        more = " and others" if len(users) > _NAMED_MAX else ""
        raise ConflictError(
            f"{key.kind} {key.name!r} is still used by {', '.join(users[:_NAMED_MAX])}{more}; "
            "delete them, or have them name it no more, first"
        )


def _naming(db: Connection, catalog: Catalog, key: Key, accepted: Sequence[Accepted], get: Get) -> set[Key]:
    """Some of the resources whose spec names `key`; none when there are none."""
    naming = [kind.name for kind in catalog if kind.references]
    # Most are told apart by the database: whoever names it has its name in quotes.
    query = select(resources.c.key).where(
        resources.c.kind.in_(naming),
        resources.c.deleted.is_(False),
        contains(db, resources.c.body, f'"{key.name}"'.encode()),
    )
    written = (change.last.key for change in accepted)
    found: set[Key] = set()
    for candidate in chain(written, map(Key.parse, db.execute(query).scalars())):
        references = catalog[candidate.kind].references
        held = get(candidate)
        if references and held is not None and key in references(held):
            found.add(candidate)
        if len(found) > _NAMED_MAX:
            break
    return found


def _guarded_by(column: str, change: Accepted) -> str:
    last = change.last
    if column == "namespace":
        return last.metadata.namespace
    return change.region
