"""Each series belongs to a project, and jobs can be asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.projects import DEFAULT_PROJECT, project_of

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SERIES = sa.table("ingest_series", *(sa.column(name, sa.Text) for name in ("series_instance_uid", "project")))
INSTANCES = sa.table("ingest_instances", *(sa.column(name, sa.Text) for name in ("series_instance_uid", "key")))


def upgrade() -> None:
    """Name the projects of the series that stand by the keys of their instances, and make the table of requests."""
    connection = op.get_bind()
    op.add_column("ingest_series", sa.Column("project", sa.Text, nullable=False, server_default=DEFAULT_PROJECT))
    first = (
        sa.select(INSTANCES.c.series_instance_uid, sa.func.min(INSTANCES.c.key).label("key"))
        .where(INSTANCES.c.key.like("projects/%"))
        .group_by(INSTANCES.c.series_instance_uid)
    )
    named = [{"uid": row.series_instance_uid, "project": project_of(row.key)} for row in connection.execute(first)]
    if named:
        connection.execute(SERIES.update().where(SERIES.c.series_instance_uid == sa.bindparam("uid")), named)
    if connection.dialect.name != "sqlite":  # which cannot, and never needs the default
        op.alter_column("ingest_series", "project", server_default=None)
    op.create_table(
        "ingest_requests",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("series_instance_uid", sa.Text, nullable=False, index=True),
        sa.Column("upload_id", sa.Text, nullable=False, index=True),
        sa.Column("envelope", sa.JSON, nullable=False),
        sa.Column("served", sa.JSON, nullable=False),
        sa.Column("first_seen", UtcDateTime, nullable=False),
        sa.Column("due_at", UtcDateTime, nullable=True, index=True),
        sa.Column("leased_by", sa.String(255), nullable=True),
        sa.Column("leased_until", UtcDateTime, nullable=True),
    )
