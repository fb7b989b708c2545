"""Answers whose bytes are made while they are sent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from integration.gateway_kit import eventually
from voxelmill_gateway.streaming import Stream


@asynccontextmanager
async def serving(app):
    """Serve any application on loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve())
    await eventually(lambda: started(server))
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def started(server):
    return server.started


async def test_a_client_that_goes_away_ends_what_makes_the_bytes():
    """In the middle of an answer that has no end."""
    ended = asyncio.Event()

    async def pieces():
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            await asyncio.sleep(0)  # closing may wait for something
            ended.set()

    app = FastAPI()

    @app.get("/endless")
    async def endless():
        return Stream(pieces(), media_type="application/octet-stream")

    async with serving(app) as address, httpx.AsyncClient(base_url=address) as client:
        async with client.stream("GET", "/endless") as answer:
            assert len(await anext(answer.aiter_raw())) > 0
            assert not ended.is_set()
        await asyncio.wait_for(ended.wait(), 10)
