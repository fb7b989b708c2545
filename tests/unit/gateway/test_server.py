"""The gateway's three addresses, asked over a socket."""

from __future__ import annotations

import json

import aiohttp
import pytest

from voxelmill_gateway.server import serve
from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.health import PortTakenError


async def good():
    """A dependency that answers."""


async def bad():
    raise BrokerUnavailableError("the broker does not answer")


async def ask(port, path):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_health_readiness_and_metrics():
    """All good: 200 from each, in its own format."""
    async with serve({"broker": good}, "127.0.0.1", 0) as port:
        status, text = await ask(port, "/healthz")
        assert (status, json.loads(text)["service"]) == (200, "gateway")
        assert await ask(port, "/readyz") == (200, '{"ready":true,"checks":{"broker":"ok"}}')
        status, text = await ask(port, "/metrics")
        assert status == 200
        assert "# HELP voxelmill_messages_settled_total" in text


async def test_not_ready_says_why():
    """A dependency that is away: 503 with its reason, while the process is healthy."""
    async with serve({"broker": bad, "results": good}, "127.0.0.1", 0) as port:
        status, text = await ask(port, "/readyz")
        assert status == 503
        assert json.loads(text)["checks"] == {"broker": "the broker does not answer", "results": "ok"}
        assert (await ask(port, "/healthz"))[0] == 200


async def test_what_is_not_built_yet_is_not_there():
    """No address pretends."""
    async with serve({}, "127.0.0.1", 0) as port:
        assert (await ask(port, "/studies"))[0] == 404


async def test_a_taken_port_is_one_clear_error():
    """The reason and the next step."""
    async with serve({}, "127.0.0.1", 0) as port:
        with pytest.raises(PortTakenError, match="choose another port"):
            async with serve({}, "127.0.0.1", port):
                pass
