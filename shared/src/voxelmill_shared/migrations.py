"""Bringing a service's tables up to date when it starts, however many replicas of it start at once.

A service's migrations are Alembic revisions, written by hand, in `voxelmill_<name>/migrations/versions/`. It needs no
`env.py` and no `alembic.ini`. Each service has a version table of its own, so that all can share one database.
"""

from __future__ import annotations

import asyncio
import importlib.util
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
from voxelmill_shared.database import is_sqlite, open_database, reading, transaction
from voxelmill_shared.errors import UnfitDependencyError

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

_LOCK_KEY = 0x766F78656C6D696C
"""PostgreSQL's advisory lock that all migrations of Voxelmill take turns on: "voxelmil" in ASCII."""
_PATIENCE_SECONDS = 3600.0

_alembic = threading.Lock()
"""Alembic keeps its context in module-level names, so one migration at a time in one process."""


class MigrationError(UnfitDependencyError):
    """The tables cannot be brought up to date; the database is as it was before."""


async def upgrade(url: str, *, package: str, version_table: str) -> None:
    """Apply the migrations that a database lacks: all of them in one transaction, or none.

    The event loop is not held up: Alembic works in a thread. Replicas wait for each other: on PostgreSQL by an
    advisory lock, on SQLite by its write lock, both of which the transaction takes first and a crash gives back.

    Parameters
    ----------
    url
        As `open_database` takes it.
    package
        Where the folder `versions` is, `voxelmill_ingest.migrations`.
    version_table
        The table that remembers what has been applied, `alembic_version_ingest`.

    Raises
    ------
    MigrationError
        If the database is at a revision that is not among the migrations (a newer version of Voxelmill made it), or
        the migrations contradict each other.
    DatabaseUnavailableError
        If the database does not answer.
    """
    versions = _versions(package)
    await asyncio.to_thread(_upgrade, url, versions, version_table)


async def differences(url: str, metadata: MetaData) -> list[str]:
    """Say how the tables in a database differ from those that the code works with; tables of others do not count.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer.
    """

    def compare(connection: Connection) -> list[str]:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
        return [
            str(found) for found in compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        ]

    engine = open_database(url)
    try:
        async with reading(engine) as connection:
            return await connection.run_sync(compare)
    finally:
        await engine.dispose()


def _versions(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = [Path(place) / "versions" for place in (spec.submodule_search_locations if spec else None) or ()]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MigrationError(f"{package}: there is no folder `versions` with migrations")


def _upgrade(url: str, versions: Path, version_table: str) -> None:
    with _alembic:
        asyncio.run(_migrate(url, versions, version_table))


async def _migrate(url: str, versions: Path, version_table: str) -> None:
    engine = open_database(url, statement_seconds=_PATIENCE_SECONDS)
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
            await connection.run_sync(_apply, versions, version_table)
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


def _apply(connection: Connection, versions: Path, version_table: str) -> None:
    config = Config()
    # Configuration values are templates of configparser, so % is doubled; a newline is no part of any sane path.
    config.set_main_option("script_location", str(Path(*migration_environment.__path__)).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=version_table)
    command.upgrade(config, "head")
