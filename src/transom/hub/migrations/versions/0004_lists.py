"""What each change replaced, so that a list and a watch can show any revision that is kept.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("history", sa.Column("before", sa.LargeBinary))
    # Of the changes until now nobody knows what they replaced: whoever watches from there lists again.
    op.execute("UPDATE counter SET pruned_revision = revision + 1")
