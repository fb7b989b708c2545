"""Fixtures of the tests on real databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.ingest_kit import Clock, Ingest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
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
