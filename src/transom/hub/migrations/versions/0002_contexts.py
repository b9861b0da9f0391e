"""Contexts.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from transom.hub.migrations import TEXT

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("resources_by_described", "resources", ["described_revision"])
    op.create_table(
        "contexts",
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("schema", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("added", sa.BigInteger, nullable=False),
        sa.Column("lane", TEXT, nullable=False),
        sa.Column("regions", TEXT, nullable=False),
        sa.Column("leaving", TEXT, nullable=False),
        sa.Column("former", TEXT, nullable=False),
        sa.Column("restricts", sa.Boolean, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("contexts_by_lane", "contexts", ["lane", "revision"])
    op.create_index("contexts_by_revision", "contexts", ["revision"])
    op.create_index("contexts_by_kind", "contexts", ["kind", "tenant", "deleted"])
    op.create_index("contexts_by_subject", "contexts", ["subject"])
    leaving = sa.text("leaving != ''")
    op.create_index(
        "contexts_moving", "contexts", ["revision"], sqlite_where=leaving, postgresql_where=leaving
    )
    op.create_table(
        "context_state",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
