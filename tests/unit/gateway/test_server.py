"""The gateway's three addresses, asked over a socket."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from structlog.testing import capture_logs

from voxelmill_gateway.server import serve
from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.health import PortTakenError


async def bad():
    raise BrokerUnavailableError("the broker does not answer")


async def ask(address, path):
    async with httpx.AsyncClient(base_url=address) as client:
        return await client.get(path)


async def test_health_readiness_and_metrics(address):
    """All good: 200 from each, in its own format."""
    assert (await ask(address, "/healthz")).json()["service"] == "gateway"
    ready = await ask(address, "/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert "# HELP voxelmill_messages_settled_total" in (await ask(address, "/metrics")).text


async def test_not_ready_says_why(gateway):
    """A dependency that is away: 503 with its reason, while the process is healthy."""
    async with serve(replace(gateway, checks={**gateway.checks, "broker": bad}), "127.0.0.1", 0) as port:
        address = f"http://127.0.0.1:{port}"
        answer = await ask(address, "/readyz")
        assert answer.status_code == 503
        checks = answer.json()["checks"]
        assert checks.pop("broker") == "the broker does not answer"
        assert set(checks.values()) == {"ok"}
        assert (await ask(address, "/healthz")).status_code == 200


async def test_an_address_that_is_not_there_is_a_problem_document(address):
    """RFC 9457, also for what the framework answers."""
    answer = await ask(address, "/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json() == {"type": "about:blank", "title": "Not Found", "status": 404}


async def test_a_taken_port_is_one_clear_error(gateway):
    """The reason and the next step."""
    async with serve(gateway, "127.0.0.1", 0) as port:
        with pytest.raises(PortTakenError, match="choose another port"):
            async with serve(gateway, "127.0.0.1", port):
                pass


async def test_a_defect_is_told_by_a_name_that_the_log_has_too(gateway, monkeypatch):
    """500, without a word of the error, which may quote a patient's attribute."""

    async def broken(_):
        raise LookupError("Doe^Jane")

    monkeypatch.setattr("voxelmill_gateway.application.readiness", broken)
    with capture_logs() as lines:
        async with serve(gateway, "127.0.0.1", 0) as port:
            answer = await ask(f"http://127.0.0.1:{port}", "/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "Doe" not in answer.text
    (line,) = [line for line in lines if line["event"] == "request.failed"]
    assert line["incident"] == answer.json()["incident"]
