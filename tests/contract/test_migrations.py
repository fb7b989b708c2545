"""The contract of migrations, held by SQLite and by PostgreSQL (a real server)."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text

from contract.database_kit import METADATA, NOTES, run_program
from voxelmill_shared.database import is_sqlite, open_database, reading, transaction
from voxelmill_shared.migrations import MigrationError, differences, revisions, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine


FIRST = '''
"""Make the table of series."""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

def upgrade() -> None:
    op.create_table("{name}_series", sa.Column("uid", sa.String(64), primary_key=True))
    uid = sa.Column("uid", sa.String(64), sa.ForeignKey("{name}_series.uid"), primary_key=True)
    op.create_table("{name}_notes", uid)
'''
SECOND = '''
"""Count instances."""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade() -> None:
    with op.batch_alter_table("{name}_series") as table:
        table.add_column(sa.Column("instances", sa.Integer(), nullable=False, server_default="0"))
'''
THIRD = '''
"""Fail half-way."""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"

def upgrade() -> None:
    op.create_table("{name}_half", sa.Column("id", sa.Integer(), primary_key=True))
    raise ArithmeticError("a mistake in a migration")
'''


def service(folder: Path, name: str, *migrations: str) -> str:
    """Write a package with migrations, as a service has it; return its name for `upgrade`."""
    versions = folder / f"example_{name}" / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    for package in (versions.parent, versions.parents[1]):
        (package / "__init__.py").touch()
    for number, migration in enumerate(migrations):
        (versions / f"{number + 1:04}_example.py").write_text(migration.format(name=name))
    return f"example_{name}.migrations"


async def columns(url: str, table: str) -> set[str]:
    """Return the names of a table's columns."""
    from sqlalchemy import inspect

    engine = open_database(url)
    async with reading(engine) as connection:
        found = await connection.run_sync(
            lambda sync: (
                {column["name"] for column in inspect(sync).get_columns(table)}
                if inspect(sync).has_table(table)
                else set()
            )
        )
    await engine.dispose()
    return found


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder from which packages can be imported; its name would be a template for configparser."""
    folder = tmp_path / "100%(sure) a:b"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("example_")]:
        del sys.modules[name]


class TestMigrations:
    async def test_missing_migrations_are_applied_and_rows_kept(self, url: str, packages: Path) -> None:
        """From nothing, then from an older version; applied ones are not applied again."""
        package = service(packages, "ingest", FIRST)
        await upgrade(url, package=package, version_table="alembic_version_ingest")
        engine = open_database(url)
        async with transaction(engine) as connection:
            await connection.execute(text("INSERT INTO ingest_series VALUES ('1.2')"))
            await connection.execute(text("INSERT INTO ingest_notes VALUES ('1.2')"))
        service(packages, "ingest", FIRST, SECOND)
        for _ in range(2):
            await upgrade(url, package=package, version_table="alembic_version_ingest")
        async with reading(engine) as connection:
            assert (await connection.execute(text("SELECT * FROM ingest_series"))).all() == [("1.2", 0)]
            version = await connection.execute(text("SELECT version_num FROM alembic_version_ingest"))
            assert version.scalar_one() == "0002"
        await engine.dispose()

    async def test_services_share_a_database_and_migrate_at_once(self, url: str, packages: Path) -> None:
        """Each has its own tables and its own version table."""
        names = [(service(packages, name, FIRST, SECOND), f"alembic_version_{name}") for name in ("ingest", "index")]
        await asyncio.gather(*(upgrade(url, package=package, version_table=table) for package, table in names))
        for name in ("ingest", "index"):
            assert await columns(url, f"{name}_series") == {"uid", "instances"}
            assert await columns(url, f"alembic_version_{name}") == {"version_num"}

    async def test_migration_that_fails_leaves_the_database_as_it_was(self, url: str, packages: Path) -> None:
        """All migrations that were missing, or none of them."""
        package = service(packages, "ingest", FIRST)
        await upgrade(url, package=package, version_table="alembic_version_ingest")
        service(packages, "ingest", FIRST, SECOND, THIRD)
        with pytest.raises(ArithmeticError, match="a mistake"):
            await upgrade(url, package=package, version_table="alembic_version_ingest")
        assert await columns(url, "ingest_series") == {"uid"}
        assert not await columns(url, "ingest_half")

    async def test_newer_database_is_refused(self, url: str, packages: Path) -> None:
        """A version that does not know the tables must not work on them."""
        newer = service(packages, "newer", FIRST, SECOND)
        await upgrade(url, package=newer, version_table="alembic_version_ingest")
        older = service(packages, "older", FIRST)
        with pytest.raises(MigrationError, match=r"0002.*newer version"):
            await upgrade(url, package=older, version_table="alembic_version_ingest")

    async def test_start_with_nothing_to_do_reads_only(self, url: str, packages: Path) -> None:
        """It loads no Alembic, takes no lock, and does not touch the database."""
        package = service(packages, "ingest", FIRST, SECOND)
        await upgrade(url, package=package, version_table="alembic_version_ingest")
        program = """
        import asyncio, sys
        from voxelmill_shared.migrations import upgrade
        sys.path.insert(0, sys.argv[1])
        asyncio.run(upgrade(sys.argv[2], package=sys.argv[3], version_table="alembic_version_ingest"))
        print([name for name in ("alembic", "mako") if name in sys.modules])
        """
        engine = open_database(url)
        async with transaction(engine) as connection:  # on SQLite nobody else could write now
            if not is_sqlite(engine):
                await connection.execute(text("LOCK TABLE ingest_series IN ACCESS EXCLUSIVE MODE"))
            output, _ = await asyncio.to_thread(run_program(program, str(packages), url, package).communicate)
        assert output == "[]\n"
        await engine.dispose()

    async def test_revisions_are_read_from_the_files(self, packages: Path) -> None:
        """Oldest first; two after the same one are refused, for nobody could say which comes first."""
        package = service(packages, "chain", FIRST, SECOND, THIRD)
        assert revisions(package) == ["0001", "0002", "0003"]
        forked = service(packages, "forked", FIRST, SECOND, SECOND.replace('"0002"', '"0003"'))
        with pytest.raises(MigrationError, match="no chain"):
            revisions(forked)

    async def test_package_without_migrations_is_refused(self, url: str) -> None:
        """Nothing to apply is a mistake of packaging, not success."""
        with pytest.raises(MigrationError, match="versions"):
            await upgrade(url, package="voxelmill_shared.storage", version_table="x")

    async def test_replicas_that_start_at_once_migrate_once(self, url: str, packages: Path) -> None:
        """Processes on one fresh database: all of them succeed, and the tables are there."""
        package = service(packages, "ingest", FIRST, SECOND)
        program = """
        import asyncio, sys
        from voxelmill_shared.migrations import upgrade
        sys.path.insert(0, sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        asyncio.run(upgrade(sys.argv[2], package=sys.argv[3], version_table="alembic_version_ingest"))
        """
        replicas = [run_program(program, str(packages), url, package) for _ in range(4)]
        for replica in replicas:
            assert replica.stdout is not None
            assert await asyncio.to_thread(replica.stdout.readline) == "ready\n"
        for replica in replicas:
            assert replica.stdin is not None
            replica.stdin.write("go\n")
            replica.stdin.flush()
        for replica in replicas:
            await asyncio.to_thread(replica.communicate)
        assert [replica.returncode for replica in replicas] == [0] * 4
        assert await columns(url, "ingest_series") == {"uid", "instances"}

    async def test_migrating_says_nothing_and_changes_no_logging(
        self, url: str, packages: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Logging belongs to the program."""
        import logging

        before = (logging.root.level, list(logging.root.handlers), logging.getLogger("sqlalchemy").level)
        await upgrade(url, package=service(packages, "ingest", FIRST), version_table="alembic_version_ingest")
        assert (logging.root.level, list(logging.root.handlers), logging.getLogger("sqlalchemy").level) == before
        assert capfd.readouterr() == ("", "")

    async def test_differences_between_tables_and_code_are_found(self, url: str, engine: AsyncEngine) -> None:
        """The guard of hand-written migrations: nothing where all is well, else what is missing."""
        assert await differences(url, METADATA) == []
        async with transaction(engine) as connection:
            await connection.execute(text("ALTER TABLE notes DROP COLUMN at"))
            await connection.execute(text("CREATE TABLE of_another_service (id int)"))
        found = await differences(url, METADATA)
        assert len(found) == 1
        assert "at" in found[0]
        async with reading(engine) as connection:
            assert (await connection.execute(select(func.count()).select_from(NOTES))).scalar_one() == 0
