"""What leads back from de-identified copies to their originals, encrypted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "ingest_deidentification_projects",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("first_seen", UtcDateTime, nullable=False),
    )
    op.create_table(
        "ingest_pseudonyms",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("lookup", sa.Text, primary_key=True),
        sa.Column("pseudonym", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("first_seen", UtcDateTime, nullable=False),
    )
