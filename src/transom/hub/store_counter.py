"""The counter that orders all writes, whoever makes them. Next: `store_write` writes under its lock."""

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from transom.hub.store_schema import counter
from transom.model.errors import RewoundError


class Standing(NamedTuple):
    """The revision of the last write, and the hash of the last one that the audit chains (None: there is
    none yet).
    """

    revision: int
    audit_hash: bytes | None


def locked(db: Connection, known: int) -> Standing:
    """Where the store stands, locked until the transaction ends: nobody else commits a write meanwhile.

    Raises `RewoundError` when it is below `known`, which was seen committed: an older copy was put in the
    store's place, or a standby took over that had not all of it.
    """
    standing = Standing(*db.execute(_LOCKED).one())
    if standing.revision < known:
        raise RewoundError(rewound(known, standing.revision))
    return standing


def move(db: Connection, to: Standing) -> None:
    """Say where the store stands once this transaction, which has locked the counter, is committed."""
    db.execute(_MOVED, {"to_revision": to.revision, "to_hash": to.audit_hash})


_LOCKED = select(counter.c.revision, counter.c.audit_hash).with_for_update()
_MOVED = update(counter).values(revision=bindparam("to_revision"), audit_hash=bindparam("to_hash"))


def rewound(known: int, revision: int) -> str:
    """What to say of a store that is below what was seen committed."""
    return (
        f"the hub's store was at revision {known} and is at {revision}: an older copy of it was put in its "
        "place, or a standby took over that had not all of it; start the hub again, it begins a new epoch"
    )
