"""Answers whose bytes are made while they are sent."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import FastAPI

from unit.gateway.serving import serving
from voxelmill_gateway.streaming import Stream


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
