"""Fixtures of the tests of the shared runtime."""

from __future__ import annotations

import pytest

from voxelmill_shared.transport.embedded import EmbeddedTransport


@pytest.fixture
async def transport(tmp_path):
    transport = EmbeddedTransport(tmp_path / "broker.db")
    yield transport
    await transport.close()
