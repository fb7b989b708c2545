"""Serving any application on loopback."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import uvicorn

from integration.gateway_kit import eventually


@asynccontextmanager
async def serving(app, **settings):
    """Serve an application; give its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", **settings))
    task = asyncio.create_task(server.serve())

    async def started():
        return server.started

    await eventually(started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
