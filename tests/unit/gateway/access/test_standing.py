"""Streams that go on for minutes: whoever may no longer listen is told nothing more."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from unit.gateway.access.conftest import bearer
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.access.standing import Standing
from voxelmill_gateway.rest import events

LONG = 20


@pytest.fixture
def more_settings():
    return {"gateway_events_seconds": 0.02}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Ask again within a moment, and say something as often."""
    monkeypatch.setattr(events, "ASKED_AGAIN", 0.05)
    monkeypatch.setattr("voxelmill_gateway.feed.SILENCE", 0.05)


async def test_a_stream_ends_soon_after_its_key_is_revoked(client, gateway):
    """The page of somebody whose key was taken away may have been open for hours."""
    key, text = await gateway.keys.create("page", Role.VIEWER, frozenset({"chest"}), by="test")
    async with client.stream("GET", "/events", headers={"X-API-Key": text}, timeout=LONG) as answer:
        lines = answer.aiter_lines()
        told = [await anext(lines) for _ in range(12)]
        assert told.count(": nothing new") >= 2  # it goes on while the key is good
        await gateway.keys.revoke(key.key_id, by="test")
        async for _ in lines:
            pass  # it ends, or the client's timeout ends the test


async def test_a_stream_ends_when_its_token_does(client, issuer):
    """To the second, whatever the leeway that a new request has."""
    token = issuer.token(exp=int(time.time()) + 1)
    async with client.stream("GET", "/events", headers=bearer(token), timeout=LONG) as answer:
        assert answer.status_code == 200
        started = time.monotonic()
        async for _ in answer.aiter_lines():
            assert time.monotonic() - started < LONG


async def test_less_rights_are_other_rights(gateway):
    """Who was let in with more than the key gives by now is not who was let in."""
    _, text = await gateway.keys.create("page", Role.VIEWER, frozenset({"chest"}), by="test")
    caller, expires = await gateway.gatekeeper.admit(text, "127.0.0.1")
    assert await Standing(gateway.gatekeeper, text, caller, expires).holds()
    more = type(caller)(caller.who, Role.ADMIN, None)
    assert not await Standing(gateway.gatekeeper, text, more, expires).holds()


@pytest.mark.parametrize("minutes", [1, -1])
async def test_how_long_it_still_holds(gateway, minutes):
    expires = datetime.now(UTC) + timedelta(minutes=minutes)
    left = Standing(gateway.gatekeeper, "", None, expires).seconds_left()
    assert left == pytest.approx(max(0, 60 * minutes), abs=5)
