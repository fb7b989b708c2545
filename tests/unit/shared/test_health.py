"""The three addresses of a service, asked over a socket."""

from __future__ import annotations

import asyncio
import time

import aiohttp
from aiohttp import web

from voxelmill_shared import health
from voxelmill_shared.errors import DatabaseUnavailableError, DependencyAwayError
from voxelmill_shared.health import joined, readiness, serve


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


async def test_a_dependency_that_says_nothing_is_not_ready(monkeypatch):
    """Whoever asks gets its name and an answer for every other one, also when several are silent."""
    assert health.ANSWER_SECONDS <= 5
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.05)

    async def silent():
        await asyncio.Event().wait()

    async def sound():
        return

    answers = await asyncio.wait_for(readiness({"database": silent, "broker": sound, "store": silent}), 20)
    silence = "no answer within 0.05 s"
    assert answers == {"database": silence, "broker": "ok", "store": silence}


async def test_a_request_that_never_ends_does_not_hold_up_the_end_of_the_process(monkeypatch):
    """Its connection is cut. The library's own patience is a minute, and the grace period of a service is 25 seconds."""
    assert health.CLOSE_SECONDS <= 10
    monkeypatch.setattr(health, "CLOSE_SECONDS", 0.2)
    begun = asyncio.Event()

    async def take(request):
        begun.set()
        return web.Response(body=await request.read())

    async with serve("ingest", {}, "127.0.0.1", 0, [web.post("/take", take)]) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf")
        await begun.wait()
        ends = time.monotonic()
    assert time.monotonic() - ends < 30
    writer.close()


async def test_what_is_waited_for_is_said_before_the_check_of_the_same_name():
    """A database that answers again is still waited for, until messages are taken again."""
    waited = True

    async def ok():
        pass

    async def waits():
        if waited:
            raise DependencyAwayError("waiting since noon")

    checks = joined({"database": ok, "broker": ok}, {"database": waits, "store": waits})
    assert await readiness(checks) == {
        "database": "waiting since noon",
        "store": "waiting since noon",
        "broker": "ok",
    }
    waited = False
    assert set((await readiness(checks)).values()) == {"ok"}
