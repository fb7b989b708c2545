"""Indexes for the queries that there are, and none for those that nobody asks."""

from __future__ import annotations

from alembic import op

revision = "index_0002"
down_revision = "index_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace indexes."""
    # Objects of a status, by address: found and sorted by one index. Nobody asks for the objects of a series.
    op.drop_index("ix_catalog_objects_status", "catalog_objects")
    op.create_index("ix_catalog_objects_status_address", "catalog_objects", ["status", "address"])
    op.drop_index("ix_catalog_objects_series_instance_uid", "catalog_objects")
    # The trail of one UID, whatever it is the UID of; and of one type of event, page after page.
    op.create_index("ix_audit_study_instance_uid", "audit", ["study_instance_uid"])
    op.create_index("ix_audit_sop_instance_uid", "audit", ["sop_instance_uid"])
    op.drop_index("ix_audit_what", "audit")
    op.create_index("ix_audit_what_number", "audit", ["what", "number"])
