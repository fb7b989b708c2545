"""Bringing a service's tables up to date when it starts, however many replicas of it start at once.

A service's migrations are Alembic revisions, written by hand, in `voxelmill_<name>/migrations/versions/`. It needs no
`env.py` and no `alembic.ini`. Each service has a version table of its own, so that all can share one database.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import column, inspect, select, table

from voxelmill_shared.database import open_database, reading
from voxelmill_shared.errors import MigrationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

__all__ = ["MigrationError", "differences", "revisions", "upgrade"]


async def upgrade(url: str, *, package: str, version_table: str, target: str = "head") -> None:
    """Apply the migrations that a database lacks: all of them in one transaction, or none.

    The event loop is not held up: Alembic works in a thread. Replicas wait for each other: on PostgreSQL by an
    advisory lock, on SQLite by its write lock, both of which the transaction takes first and a crash gives back. A
    database that is up to date is only read.

    Parameters
    ----------
    url
        As `open_database` takes it.
    package
        Where the folder `versions` is, `voxelmill_ingest.migrations`.
    version_table
        The table that remembers what has been applied, `alembic_version_ingest`.
    target
        The revision to stop at; the newest by default.

    Raises
    ------
    MigrationError
        If the database is at a revision that is not among the migrations (a newer version of Voxelmill made it), or
        the migrations contradict each other.
    DatabaseUnavailableError
        If the database does not answer.
    """
    versions = _versions(package)
    if target == "head" and await _applied(url, version_table) == _newest(versions):
        return
    await asyncio.to_thread(_upgrade, url, versions, version_table, target)


async def differences(url: str, metadata: MetaData) -> list[str]:
    """Say how the tables in a database differ from those that the code works with; tables of others do not count.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer.
    """
    from voxelmill_shared.migration_environment.apply import compare  # noqa: PLC0415 - heavy, see there

    engine = open_database(url)
    try:
        async with reading(engine) as connection:
            return await connection.run_sync(compare, metadata)
    finally:
        await engine.dispose()


def revisions(package: str) -> list[str]:
    """Return the revisions of a package, oldest first.

    Raises
    ------
    MigrationError
        If the package has no migrations, or they are no chain: each one after one other.
    """
    after = _after(_versions(package))
    chain: list[str] = []
    last: str | None = None
    while len(following := [revision for revision, before in after.items() if before == last]) == 1:
        (last,) = following
        chain.append(last)
    if len(chain) != len(after):
        raise MigrationError(f"{package}: the migrations are no chain: {after}")
    return chain


def _versions(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = [Path(place) / "versions" for place in (spec.submodule_search_locations if spec else None) or ()]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MigrationError(f"{package}: there is no folder `versions` with migrations")


def _after(versions: Path) -> dict[str, str | None]:
    """Return the one before each revision, read from the files without running them."""
    found: dict[str, str | None] = {}
    for path in sorted(versions.glob("[!_]*.py")):
        named: dict[str, str | None] = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign):
                named |= _assigned(node)
        if revision := named.get("revision"):
            found[revision] = named.get("down_revision")
    return found


def _assigned(node: ast.Assign) -> dict[str, str | None]:
    (target, *_), value = node.targets, node.value
    pairs = (
        zip(target.elts, value.elts, strict=True)
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        else [(target, value)]
    )
    return {
        name.id: what.value
        for name, what in pairs
        if isinstance(name, ast.Name) and isinstance(what, ast.Constant) and isinstance(what.value, str | None)
    }


def _newest(versions: Path) -> set[str]:
    after = _after(versions)
    return after.keys() - after.values()


async def _applied(url: str, version_table: str) -> set[str]:
    """Return the revisions that a database is at; none if nothing has been applied."""

    def read(connection: Connection) -> set[str]:
        if not inspect(connection).has_table(version_table):
            return set()
        return set(connection.execute(select(column("version_num")).select_from(table(version_table))).scalars())

    engine = open_database(url)
    try:
        async with reading(engine) as connection:
            return await connection.run_sync(read)
    finally:
        await engine.dispose()


def _upgrade(url: str, versions: Path, version_table: str, target: str) -> None:
    from voxelmill_shared.migration_environment import apply  # noqa: PLC0415 - heavy, see there

    with apply.one_at_a_time:
        asyncio.run(apply.migrate(url, versions, version_table, target))
