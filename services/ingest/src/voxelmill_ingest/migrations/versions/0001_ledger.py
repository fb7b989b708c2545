"""The ledger: objects, instances, series, uploads, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "ingest_objects",
        sa.Column("bucket", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("version_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("series_instance_uid", sa.Text, nullable=False),
        sa.Column("sop_instance_uid", sa.Text, nullable=False),
        sa.Column("upload_id", sa.Text),
        sa.Column("finding", sa.JSON),
        sa.Column("first_seen", UtcDateTime, nullable=False),
        sa.Column("last_seen", UtcDateTime, nullable=False),
    )
    op.create_index("ix_ingest_objects_series_instance_uid", "ingest_objects", ["series_instance_uid"])
    op.create_table(
        "ingest_instances",
        sa.Column("series_instance_uid", sa.Text, primary_key=True),
        sa.Column("sop_instance_uid", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("version_id", sa.Text),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_index("ix_ingest_instances_object", "ingest_instances", ["bucket", "key"])
    op.create_table(
        "ingest_series",
        sa.Column("series_instance_uid", sa.Text, primary_key=True),
        sa.Column("study_instance_uid", sa.Text, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("touches", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.Text),
        sa.Column("due_at", UtcDateTime),
        sa.Column("leased_by", sa.String(255)),
        sa.Column("leased_until", UtcDateTime),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("contents", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("event", sa.JSON),
    )
    op.create_index("ix_ingest_series_due_at", "ingest_series", ["due_at"])
    op.create_table(
        "ingest_uploads",
        sa.Column("upload_id", sa.Text, primary_key=True),
        sa.Column("expected", sa.Integer),
        sa.Column("settled", sa.Integer, nullable=False),
        sa.Column("first_seen", UtcDateTime, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "ingest_upload_objects",
        sa.Column("upload_id", sa.Text, primary_key=True),
        sa.Column("bucket", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("series_instance_uid", sa.Text, nullable=False),
    )
    op.create_index("ix_ingest_upload_objects_series_instance_uid", "ingest_upload_objects", ["series_instance_uid"])
    op.create_table(
        "ingest_outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
        sa.Column("routing_key", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created", UtcDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
