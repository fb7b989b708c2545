"""The services' own migrations: from nothing and from every earlier revision, with rows in the tables."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Uuid,
    insert,
    select,
)

from voxelmill_index.tables import METADATA as INDEX_OUTBOX
from voxelmill_index.tables import VERSION_TABLE as INDEX_VERSIONS
from voxelmill_ingest.service import MIGRATIONS as INGEST_MIGRATIONS
from voxelmill_ingest.service import VERSION_TABLE as INGEST_VERSIONS
from voxelmill_ingest.tables import metadata as ingest_metadata
from voxelmill_shared.catalog.tables import METADATA as CATALOG
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.migrations import differences, revisions, upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass(frozen=True)
class Owner:
    """A service that owns tables."""

    package: str
    version_table: str
    metadata: tuple[MetaData, ...]


OWNERS = (
    Owner(INGEST_MIGRATIONS, INGEST_VERSIONS, (ingest_metadata,)),
    Owner("voxelmill_index.migrations", INDEX_VERSIONS, (CATALOG, INDEX_OUTBOX)),
)
EARLIER = [(owner, revision) for owner in OWNERS for revision in revisions(owner.package)[:-1]]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a fresh, empty database."""
    address: str = (
        request.getfixturevalue("database") if request.param == "postgresql" else f"sqlite:///{tmp_path}/a.db"
    )
    return address


async def same_as_the_code(url: str, owner: Owner) -> None:
    """Hold the tables to what SQLAlchemy is told of them: columns, types, keys, indexes."""
    for metadata in owner.metadata:
        assert await differences(url, metadata) == []


def sample(table: Table, number: int) -> dict[str, Any]:
    """Make a row of a table; rows of the same number in several tables refer to each other."""

    def value(kind: object) -> object:
        match kind:
            case DateTime():
                moment = datetime(2026, 1, 2, 3, 4, 5, number, tzinfo=UTC)
                return moment if kind.timezone else moment.replace(tzinfo=None)
            case Integer():
                return number
            case LargeBinary():
                return bytes([number])
            case Uuid():
                return f"{number:032x}"
            case JSON():
                return {"number": number}
            case _:
                return f"{number:032x}"

    return {column.name: value(column.type) for column in table.columns}


async def tables_of(engine: AsyncEngine, owner: Owner) -> list[Table]:
    """Read the owner's tables as they stand, those first that others refer to."""

    def reflect(connection: Connection) -> list[Table]:
        found = MetaData()
        found.reflect(connection)
        return [table for table in found.sorted_tables if table.name != owner.version_table]

    async with reading(engine) as connection:
        return await connection.run_sync(reflect)


async def rows_of(engine: AsyncEngine, tables: list[Table]) -> dict[str, list[dict[str, Any]]]:
    """Read all rows, each as names and values."""
    async with reading(engine) as connection:
        return {
            table.name: [dict(row) for row in (await connection.execute(select(table))).mappings()] for table in tables
        }


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.package)
async def test_from_nothing(url: str, owner: Owner) -> None:
    """The tables are those that the code works with."""
    await upgrade(url, package=owner.package, version_table=owner.version_table)
    await same_as_the_code(url, owner)


@pytest.mark.parametrize(("owner", "revision"), EARLIER, ids=lambda value: getattr(value, "package", value))
async def test_from_every_earlier_revision(url: str, owner: Owner, revision: str) -> None:
    """With rows in every table: none is lost, what was in their columns is still there, and the tables are as new."""
    await upgrade(url, package=owner.package, version_table=owner.version_table, target=revision)
    engine = open_database(url)
    before = await tables_of(engine, owner)
    assert before
    async with transaction(engine) as connection:
        for table in before:
            if (
                await connection.execute(select(table))
            ).first() is None:  # the head of the trail is made with its table
                await connection.execute(insert(table), [sample(table, number) for number in (1, 2, 3)])
    kept = await rows_of(engine, before)
    await upgrade(url, package=owner.package, version_table=owner.version_table)
    await same_as_the_code(url, owner)
    now = await rows_of(engine, [table for table in await tables_of(engine, owner) if table.name in kept])
    for name, rows in kept.items():
        assert len(rows) == (1 if name == "audit_head" else 3)
        assert [
            {column: row[column] for column in old if column in row} for row, old in zip(now[name], rows, strict=True)
        ] == [{column: value for column, value in row.items() if column in now[name][0]} for row in rows], name
    await engine.dispose()


UPGRADE = """
import asyncio, sys
from voxelmill_shared.migrations import upgrade
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(upgrade(sys.argv[1], package=sys.argv[2], version_table=sys.argv[3]))
"""


def start(url: str, owner: Owner) -> subprocess.Popen[str]:
    """Start a process that waits for a line and then upgrades."""
    return subprocess.Popen(
        [sys.executable, "-c", UPGRADE, url, owner.package, owner.version_table],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_two_services_start_at_once(url: str) -> None:
    """Two of each, in processes of their own, on one empty database that they share: all of them succeed."""
    started = [start(url, owner) for owner in (*OWNERS, *OWNERS)]
    for process in started:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    ended = await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n") for process in started))
    assert [process.returncode for process in started] == [0] * 4, ended
    for owner in OWNERS:
        await same_as_the_code(url, owner)
