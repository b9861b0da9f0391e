"""The counter that orders all writes, whoever makes them. Next: `store_write` writes under its lock."""

from sqlalchemy import Connection, select

from transom.hub.store_schema import counter
from transom.model.errors import RewoundError


def locked_revision(db: Connection, known: int) -> int:
    """The store's revision, locked until the transaction ends: nobody else commits a write meanwhile.

    Raises `RewoundError` when it is below `known`, which was seen committed: an older copy was put in the
    store's place, or a standby took over that had not all of it.
    """
    revision: int = db.execute(select(counter.c.revision).with_for_update()).scalar_one()
    if revision < known:
        raise RewoundError(rewound(known, revision))
    return revision


def rewound(known: int, revision: int) -> str:
    """What to say of a store that is below what was seen committed."""
    return (
        f"the hub's store was at revision {known} and is at {revision}: an older copy of it was put in its "
        "place, or a standby took over that had not all of it; start the hub again, it begins a new epoch"
    )
