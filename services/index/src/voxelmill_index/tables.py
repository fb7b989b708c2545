"""The table that index has besides the catalog: its outbox."""

from __future__ import annotations

from sqlalchemy import MetaData

from voxelmill_shared.outbox import outbox_table

METADATA = MetaData()
OUTBOX = outbox_table(METADATA, "index_outbox")
VERSION_TABLE = "alembic_version_index"
