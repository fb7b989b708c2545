"""Alembic runs this file; `voxelmill_shared.migrations` has put all that it needs into the configuration."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], version_table=context.config.attributes["version_table"]
)
context.run_migrations()
