"""Fixtures of the tests on real databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.index_kit import Index
from integration.ingest_kit import Clock, Ingest
from voxelmill_index.service import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("database")
    return url


@pytest.fixture
async def ingest(database_url: str, tmp_path: Path) -> AsyncIterator[Ingest]:
    service = await Ingest(tmp_path, database_url, Clock()).open()
    yield service
    await service.close()


@pytest.fixture
async def index(database_url: str, tmp_path: Path) -> AsyncIterator[Index]:
    """Give a replica of index on an empty database, with the migrations applied."""
    await migrate(database_url)
    replica = Index.open(database_url, tmp_path / "results")
    yield replica
    await replica.engine.dispose()


@pytest.fixture
async def other(index: Index, database_url: str) -> AsyncIterator[Index]:
    """Give a second replica on the same database and store."""
    replica = Index.open(database_url, index.store.root)
    yield replica
    await replica.engine.dispose()
