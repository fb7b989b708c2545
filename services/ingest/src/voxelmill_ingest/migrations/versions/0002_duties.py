"""What one replica at a time does, with how far it has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "ingest_duties",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger),
        sa.Column("due_at", UtcDateTime),
        sa.Column("leased_by", sa.String(255)),
        sa.Column("leased_until", UtcDateTime),
    )
    op.create_index("ix_ingest_duties_due_at", "ingest_duties", ["due_at"])
