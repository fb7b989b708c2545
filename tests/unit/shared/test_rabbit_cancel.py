"""Whoever waits for a broker can be cancelled at any moment: the client library loses no cancellation of ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.transport.rabbit import RabbitTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOMENTS = 60
"""How many turns of the event loop one try takes, and some more."""


@pytest.fixture(params=["refuses", "hangs up"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Give the address of a broker that takes no connections, or ends them at once."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if request.param == "refuses":
        server.close()
    yield f"amqp://guest:guest@127.0.0.1:{port}/"
    server.close()


async def test_a_cancellation_is_heeded_at_any_moment(url: str) -> None:
    """In every turn of the event loop while a connection is being made; a drain would wait for ever otherwise."""
    transport = RabbitTransport(url)

    async def try_for_ever() -> None:
        while True:
            try:
                await transport.check()
            except BrokerUnavailableError:
                await asyncio.sleep(0.001)

    lost = []
    for turns in range(MOMENTS):
        task = asyncio.create_task(try_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, running = await asyncio.wait([task], timeout=2)
        if running:
            lost.append(turns)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0.01)
    await transport.close()
    assert lost == []
