"""An open gateway over SQLite and folders, and its application served on loopback."""

from __future__ import annotations

import pytest

from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared.catalog.tables import METADATA
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.parts import open_parts


@pytest.fixture
def settings(tmp_path):
    """Settings that put everything under one folder."""
    return GatewaySettings(
        broker_url=f"embedded://{tmp_path}/broker.db",
        inbox_url=str(tmp_path / "inbox"),
        work_url=str(tmp_path / "work"),
        results_url=str(tmp_path / "results"),
        database_url=f"sqlite:///{tmp_path}/voxelmill.db",
        scratch=tmp_path / "scratch",
        scratch_free_mib=0,
    )


@pytest.fixture
async def gateway(settings):
    """An open gateway, over an empty catalog."""
    engine = open_database(settings.database_url)
    async with transaction(engine) as connection:
        await connection.run_sync(METADATA.create_all)
    await engine.dispose()
    async with open_parts(settings) as parts, open_gateway(parts, settings) as opened:
        yield opened


@pytest.fixture
async def address(gateway):
    """Where the gateway is served, `http://127.0.0.1:port`."""
    async with serve(gateway, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"
