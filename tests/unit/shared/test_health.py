"""The three addresses of a service, asked over a socket."""

from __future__ import annotations

import aiohttp

from voxelmill_shared.errors import DatabaseUnavailableError
from voxelmill_shared.health import serve


async def test_health_readiness_and_metrics_of_a_service():
    """200 while all answers, 503 with the reason when something does not."""
    away = False

    async def database():
        if away:
            raise DatabaseUnavailableError("the database does not answer")

    async with (
        serve("mesh", {"database": database}, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        async with session.get("/healthz") as answer:
            assert (await answer.json())["service"] == "mesh"
        async with session.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"ready": True, "checks": {"database": "ok"}})
        async with session.get("/metrics") as answer:
            assert "voxelmill_handle_seconds" in await answer.text()
        away = True
        async with session.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["checks"]["database"] == "the database does not answer"
