"""The audit's chain in the store: each change of what was declared is kept with its hash, and never without.

Where the chain is, is in the counter's row, under whose lock all is written. Where it begins, once old
changes are forgotten, is kept by the transaction that forgets them, so that what was exported before joins on
to what is exported after. What was purged keeps its digest, so that the chain holds without what it was.
Changes of a status alone, and of what does not last, are no part of it: they are reports, not decisions, and
soon forgotten. Next on the data's way: `hub.audit` gives the lines away.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw
from sqlalchemy import Connection, delete, exists, func, insert, literal_column, or_, select, update

from transom.hub.store_portions import Portions
from transom.hub.store_schema import PURGED, counter, history, resources
from transom.model.audit import BEGINNING, AuditChange, change_bytes, digest_of, hash_after, line_of
from transom.model.errors import ExpiredError

_TENANT = "Tenant"
_PAGE_BYTES_MAX = 4 * 1024 * 1024


class _Meta(msgspec.Struct, frozen=True):
    uid: str = ""


class _Named(msgspec.Struct, frozen=True):
    """What of a resource's body is told beside it."""

    metadata: _Meta


_read_named = msgspec.json.Decoder(_Named).decode


class Place(NamedTuple):
    """A place in the chain: behind the change of this revision, which has this hash."""

    revision: int
    hash: bytes


class AuditPage(NamedTuple):
    """Lines of the audit, how many of them are shown whole, and marked as purged; where they end, and whether
    there are more.
    """

    lines: bytes
    changes: int
    shown: int
    purged: int
    end: Place
    more: bool


def append(db: Connection, rows: Sequence[dict[str, Any]], newest: bytes | None) -> bytes | None:
    """Write rows of the history, in the order of their revisions, each with its hash where it has one.

    `newest` is the hash of the change before; returns that of the last one.
    """
    for row in rows:
        row["audit_digest"] = row["audit_hash"] = None
        if row["described"]:
            digest = row["audit_digest"] = digest_of(bytes_of(row))
            newest = row["audit_hash"] = hash_after(newest or BEGINNING, digest, row["revision"])
    db.execute(_INSERTED, rows)
    return newest


_INSERTED = insert(history)


def bytes_of(row: Mapping[str, Any]) -> bytes:
    """The change that a row of the history is, as the audit has it; always the same for the same row."""
    body = bytes(row["body"])
    return change_bytes(
        AuditChange(
            row["revision"],
            row["at"],
            row["event"],
            row["kind"],
            row["namespace"],
            row["name"],
            _read_named(body).metadata.uid,
            row["generation"],
            row["who"],
            row["role"],
            row["source"],
            row["why"],
            Raw(body),
        )
    )


def forget(db: Connection, before: str) -> int:
    """Forget the changes at the beginning of the chain that are older than the time `before` (RFC 3339).

    Returns the revision of the newest one forgotten, 0 when none was. They go from the beginning without a
    gap, also where the clock was set back in between: one may be kept for longer than it must.
    """
    chained = history.c.audit_hash.is_not(None)
    # What can be brought back comes back as it was when its deletion was asked for, however long that took.
    needed = exists().where(
        resources.c.kind == history.c.kind,
        resources.c.namespace == history.c.namespace,
        resources.c.name == history.c.name,
        resources.c.deleted_at.is_not(None),
    )
    query = select(func.min(history.c.revision)).where(chained, or_(history.c.at >= before, needed))
    kept = db.execute(query).scalar()
    old = chained if kept is None else chained & (history.c.revision < kept)
    query = select(history.c.revision, history.c.audit_hash).where(old)
    last = db.execute(query.order_by(history.c.revision.desc()).limit(1)).first()
    if last is None:
        return 0
    db.execute(delete(history).where(old))
    db.execute(update(counter).values(audit_base=last.audit_hash, audit_base_revision=last.revision))
    return last.revision


def begins(db: Connection) -> Place:
    """Where the part of the chain begins that is kept."""
    row = db.execute(select(counter.c.audit_base_revision, counter.c.audit_base)).one()
    return Place(row.audit_base_revision, row.audit_base or BEGINNING)


def place_at(db: Connection, revision: int) -> Place:
    """The newest place at or before `revision`. Raises `ExpiredError` when that is forgotten."""
    base = begins(db)
    if revision < base.revision:
        raise ExpiredError(
            f"changes up to revision {base.revision} are forgotten, and {revision} is before that; leave "
            "'since' out to begin with what is kept"
        )
    query = select(history.c.revision, history.c.audit_hash)
    query = query.where(history.c.audit_hash.is_not(None), history.c.revision <= revision)
    found = db.execute(query.order_by(history.c.revision.desc()).limit(1)).first()
    return Place(found.revision, found.audit_hash) if found else base


def place_before(db: Connection, time: str) -> Place:
    """The place before the first change that is kept and not older than `time` (RFC 3339, as the store's)."""
    query = select(func.min(history.c.revision))
    first = db.execute(query.where(history.c.audit_hash.is_not(None), history.c.at >= time)).scalar()
    newest = db.execute(select(counter.c.revision)).scalar_one()
    return place_at(db, newest if first is None else max(first - 1, begins(db).revision))


def page(db: Connection, after: int, upto: int, most: int, tenant: str) -> AuditPage:
    """Up to `most` lines after revision `after` and up to `upto`. Only what is of `tenant` is shown, and of
    what was purged only that it was.

    Raises `ExpiredError` when some of them are forgotten.
    """
    end = place_at(db, after)
    query = select(history, _PURGED_AT).where(history.c.audit_hash.is_not(None), history.c.revision <= upto)
    lines: list[bytes] = []
    shown = purged = size = 0
    for found in Portions(query, history.c.revision).rows(db, after, most):
        row = found._mapping  # noqa: SLF001  # its public name
        end = Place(row["revision"], row["audit_hash"])
        mine = not tenant or tenant in (row["namespace"], row["name"] if row["kind"] == _TENANT else "")
        gone = row["purged_at"] if row["event"] != PURGED else None
        change = bytes_of(row)
        digest = digest_of(change) if gone is None else row["audit_digest"]
        told = mine and gone is None
        mark = gone or 0 if mine else 0
        shown, purged = shown + told, purged + bool(mark)
        lines.append(line_of(end.revision, change if told else b"", digest, end.hash, purged=mark))
        size += len(lines[-1])
        if size >= _PAGE_BYTES_MAX or len(lines) == most:
            return AuditPage(b"".join(lines), len(lines), shown, purged, end, more=True)
    return AuditPage(b"".join(lines), len(lines), shown, purged, end, more=False)


_purges = history.alias("purges")
_PURGED_AT = (
    select(func.min(_purges.c.revision))
    .where(
        _purges.c.kind == history.c.kind,
        _purges.c.namespace == history.c.namespace,
        _purges.c.name == history.c.name,
        _purges.c.revision > history.c.revision,
        # Written out, so that databases find their index for it.
        _purges.c.event == literal_column(f"'{PURGED}'"),
    )
    .scalar_subquery()
    .label("purged_at")
)
"""The revision of the record that a change was purged; NULL when it was not. Records themselves never are."""
