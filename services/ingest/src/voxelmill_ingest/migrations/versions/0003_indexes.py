"""No index for what nobody asks: the objects of a series."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_ingest_objects_series_instance_uid", "ingest_objects")
