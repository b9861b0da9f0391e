"""A digest and a hash with each change of what was declared, over all those before it.

Revision ID: 0006
Revises: 0005
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from transom.hub.store_audit import bytes_of
from transom.model.audit import BEGINNING, digest_of, hash_after

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PAGE = 500


def upgrade() -> None:
    op.add_column("history", sa.Column("audit_digest", sa.LargeBinary))
    op.add_column("history", sa.Column("audit_hash", sa.LargeBinary))
    purges = sa.text("event = 'PURGED'")
    op.create_index(
        "history_purges",
        "history",
        ["kind", "namespace", "name", "revision"],
        sqlite_where=purges,
        postgresql_where=purges,
    )
    op.add_column("counter", sa.Column("audit_hash", sa.LargeBinary))
    op.add_column("counter", sa.Column("audit_base", sa.LargeBinary))
    op.add_column(
        "counter", sa.Column("audit_base_revision", sa.BigInteger, nullable=False, server_default="0")
    )
    _chain(op.get_bind())


def _chain(db: sa.Connection) -> None:
    """Give the changes that are kept their hashes: the chain begins with the oldest of them."""
    names = "revision kind namespace name event role who why at generation described source body"
    columns: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in (*names.split(), "audit_digest", "audit_hash")
    ]
    history = sa.table("history", *columns)
    counter = sa.table("counter", sa.column("audit_hash"))
    after, before = 0, BEGINNING
    while True:
        query = sa.select(history).where(history.c.described, history.c.revision > after)
        page = db.execute(query.order_by(history.c.revision).limit(_PAGE)).mappings().all()
        hashed: list[dict[str, Any]] = []
        for row in page:
            digest = digest_of(bytes_of(dict(row)))
            before = hash_after(before, digest, row["revision"])
            hashed.append({"at_revision": row["revision"], "digest": digest, "given": before})
        if hashed:
            wanted = sa.update(history).where(history.c.revision == sa.bindparam("at_revision"))
            given = wanted.values(audit_digest=sa.bindparam("digest"), audit_hash=sa.bindparam("given"))
            db.execute(given, hashed)
        if len(page) < _PAGE:
            if after or page:
                db.execute(sa.update(counter).values(audit_hash=before))
            return
        after = page[-1]["revision"]
