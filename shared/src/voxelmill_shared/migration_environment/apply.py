"""What needs Alembic: applying revisions, and comparing tables. Imported only where there is something to do.

A start that finds its tables up to date needs none of it, and saves 7 MiB and the time of the import.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import event, text

from voxelmill_shared import migration_environment
from voxelmill_shared.database import is_sqlite, open_database, transaction
from voxelmill_shared.database_limits import DatabaseLimits
from voxelmill_shared.errors import MigrationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

_LOCK_KEY = 0x766F78656C6D696C
"""PostgreSQL's advisory lock that all migrations of Voxelmill take turns on: "voxelmil" in ASCII."""
_PATIENCE_SECONDS = 3600.0

one_at_a_time = threading.Lock()
"""Alembic keeps its context in module-level names, so one migration at a time in one process."""


async def migrate(url: str, versions: Path, version_table: str, target: str) -> None:
    """Apply all revisions up to `target` that a database lacks, in one transaction. See `migrations.upgrade`."""
    engine = open_database(url, DatabaseLimits(statement_seconds=_PATIENCE_SECONDS))
    if is_sqlite(engine):
        # A table that others refer to can only be made anew with the references unchecked (sqlite.org/lang_altertable).
        # They are checked at the end.
        @event.listens_for(engine.sync_engine, "connect")
        def leave_references_alone(connection: Any, _: object) -> None:
            connection.execute("PRAGMA foreign_keys = OFF")

    try:
        async with transaction(engine) as connection:
            if not is_sqlite(connection):
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            await connection.run_sync(_apply, versions, version_table, target)
            if is_sqlite(connection):
                broken = (await connection.execute(text("PRAGMA foreign_key_check"))).first()
                if broken:
                    raise MigrationError(f"{version_table}: a row of {broken[0]} refers to none of {broken[2]}")
    except CommandError as error:
        raise MigrationError(
            f"{version_table}: {error} (was this database made by a newer version of Voxelmill?)"
        ) from error
    finally:
        await engine.dispose()


def _apply(connection: Connection, versions: Path, version_table: str, target: str) -> None:
    config = Config()
    # Configuration values are templates of configparser, so % is doubled; a newline is no part of any sane path.
    config.set_main_option("script_location", str(Path(*migration_environment.__path__)).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=version_table)
    command.upgrade(config, target)


def compare(connection: Connection, metadata: MetaData) -> list[str]:
    """Say how tables differ from their description; see `migrations.differences`."""
    options = {"include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
    return [str(found) for found in compare_metadata(MigrationContext.configure(connection, opts=options), metadata)]
