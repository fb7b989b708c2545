"""The transports and stores under contract, each in turn: what passes with one passes with the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract.transport_kit import Broker, delete_queues
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.topology import QueueSpec, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

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
