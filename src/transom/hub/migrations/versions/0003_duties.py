"""Duties, the processes that share them, and the trace of each event.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

from transom.hub.migrations import TEXT

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("address", TEXT, nullable=False),
        sa.Column("alike", TEXT, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "duties",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
    )
    op.add_column("outbox", sa.Column("traceparent", TEXT, nullable=False, server_default=""))
