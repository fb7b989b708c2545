"""The transports and stores under contract, each in turn: what passes with one passes with the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract.database_kit import METADATA
from contract.transport_kit import Broker, delete_queues
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.topology import QueueSpec, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.transport.base import Transport


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """Give each transport's broker in turn; what the test made on it is gone afterwards."""
    if request.param == "embedded":
        broker = Broker(f"embedded://{tmp_path}/queues.db")
    else:
        broker = Broker(request.getfixturevalue("rabbitmq_url"))
    yield broker
    for transport in broker.transports:
        await transport.close()
    if not broker.is_embedded:
        await delete_queues(broker.url, broker.queues)


@pytest.fixture
async def transport(broker: Broker) -> Transport:
    """Give one open transport."""
    return broker.open()


@pytest.fixture
async def work(broker: Broker, transport: Transport) -> QueueSpec:
    """Give a declared queue that wants every message of the test, with rungs of 200 and 500 ms."""
    queue = broker.queue()
    await transport.declare(Topology((queue,)))
    return queue


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """Give an empty store: a folder, or what begins with a prefix in a bucket."""
    if request.param == "local":
        opened = open_store(f"file://{tmp_path / 'store'}", bucket="results")
        await opened.check()
    else:
        opened = open_store(f"s3://{request.getfixturevalue('bucket')}/some/prefix", bucket="results")
    yield opened
    await opened.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a fresh, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder that is missing/voxelmill.db"
    address: str = request.getfixturevalue("database")
    return address


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """Give an engine on a database with the tables of these tests."""
    opened = open_database(url)
    async with transaction(opened) as connection:
        await connection.run_sync(METADATA.create_all)
    yield opened
    await opened.dispose()
