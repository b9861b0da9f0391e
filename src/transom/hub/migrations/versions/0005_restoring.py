"""From where each change came, whom people's resources were made for, and what can be brought back.

Revision ID: 0005
Revises: 0004
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from transom.hub.migrations import TEXT

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PAGE = 500


def upgrade() -> None:
    op.add_column("history", sa.Column("source", TEXT, nullable=False, server_default=""))
    op.add_column("resources", sa.Column("deleted_at", TEXT))
    restorable = sa.text("deleted_at IS NOT NULL")
    op.create_index(
        "resources_restorable",
        "resources",
        ["deleted_at"],
        sqlite_where=restorable,
        postgresql_where=restorable,
    )
    op.create_table(
        "dependents",
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("owner_uid", TEXT, primary_key=True),
    )
    op.create_index("dependents_by_owner", "dependents", ["owner_uid"])
    # What was deleted as long ago as the history goes back can be brought back, too. Regions' own cannot.
    op.execute(
        "UPDATE resources SET deleted_at = (SELECT history.at FROM history"
        " WHERE history.revision = resources.revision AND history.event = 'DELETED')"
        " WHERE deleted AND kind != 'Instance'"
    )
    _tell_owners(op.get_bind())


def _tell_owners(db: sa.Connection) -> None:
    """Fill `dependents` from what is stored: references that make no controller, which only people set."""
    resources = sa.table("resources", sa.column("key"), sa.column("body"), sa.column("owner_uid"))
    dependents = sa.table("dependents", sa.column("key"), sa.column("owner_uid"))
    after = ""
    while True:
        query = sa.select(resources.c.key, resources.c.body)
        query = query.where(resources.c.key > after, resources.c.owner_uid.is_(None))
        page = db.execute(query.order_by(resources.c.key).limit(_PAGE)).all()
        rows = [{"key": key, "owner_uid": uid} for key, body in page for uid in sorted(_owners(body))]
        if rows:
            db.execute(sa.insert(dependents), rows)
        if len(page) < _PAGE:
            return
        after = page[-1].key


def _owners(body: bytes) -> set[str]:
    metadata: dict[str, Any] = json.loads(bytes(body))["metadata"]
    return {reference["uid"] for reference in metadata.get("ownerReferences", [])}
