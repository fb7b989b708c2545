"""What somebody writes into the trail that no record of ours holds: it is named like any other change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.index_kit import Index
from integration.test_audit_trail import COPY, said, tamper, tell
from voxelmill_cli import audit
from voxelmill_cli.errors import CommandError
from voxelmill_index.service import migrate
from voxelmill_shared.catalog.verification import verify_trail
from voxelmill_shared.database import is_sqlite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture
async def index(database_url: str, tmp_path: Path) -> AsyncIterator[Index]:
    """Give a replica of index on an empty database, with three records."""
    await migrate(database_url)
    replica = Index.open(database_url, tmp_path / "results")
    await tell(replica, 3)
    yield replica
    await replica.engine.dispose()


async def found_in(engine: AsyncEngine, *statements: str) -> list[tuple[str, int]]:
    await tamper(engine, *statements)
    return said(await verify_trail(engine))


@pytest.mark.parametrize("number", [0, -7])
async def test_what_was_put_in_before_the_first_record_is_named(index: Index, number: int) -> None:
    """No record has such a number, and the chain after it is sound: the others are not named."""
    columns = f"number, event_id, hash, {COPY}"
    copied = f"INSERT INTO audit ({columns}) SELECT {number}, 'x', hash, {COPY} FROM audit WHERE number = 2"  # noqa: S608 - all names are ours
    assert await found_in(index.engine, copied) == [("changed", number)]


async def test_a_second_head_is_named(index: Index) -> None:
    """With two nobody knows where the trail ends."""
    assert await found_in(index.engine, "INSERT INTO audit_head VALUES (2, 99, 'x')") == [("head", 3)]


async def test_values_that_no_record_holds_are_named(
    index: Index, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, broken text, a moment that is none or that Python has no name for: those records are named, no others."""
    values = (
        (("reason", "x'ff00'"), ("who", "CAST(x'ff41' AS TEXT)"), ("occurred", "'garbage'"), ("recorded", "5"))
        if is_sqlite(index.engine)
        else (("recorded", "'4000-01-01 BC'"), ("occurred", "'20000-01-01'"))
    )
    await tell(index, 3)
    changes = [
        f"UPDATE audit SET {column} = {value} WHERE number = {number}"  # noqa: S608 - all of it is ours
        for number, (column, value) in enumerate(values, 1)
    ]
    assert await found_in(index.engine, *changes) == [("changed", number) for number, _ in enumerate(values, 1)]
    monkeypatch.setenv("VOXELMILL_DATABASE_URL", database_url)
    with pytest.raises(CommandError, match="a record after number 0 cannot be read"):
        await audit.export(
            tmp_path, tmp_path / "trail", since=None, until=None, series=None, progress=lambda _done, _total: None
        )


@pytest.mark.parametrize("value", ["'abc'", "x'ff'"])
async def test_a_head_that_is_no_number_is_named(index: Index, value: str) -> None:
    """SQLite keeps anything in a column of numbers."""
    if not is_sqlite(index.engine):
        pytest.skip("PostgreSQL refuses it")
    assert await found_in(index.engine, f"UPDATE audit_head SET number = {value}") == [("head", 3)]  # noqa: S608 - likewise
