"""`voxelmill-gateway create-key`: the first key, and how it opens the door."""

from __future__ import annotations

import asyncio
import sys

import httpx
import pytest

from voxelmill_gateway import __main__ as process
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_shared.parts import open_parts


def key_from(command, monkeypatch, capsys, settings):
    monkeypatch.setenv("VOXELMILL_DATABASE_URL", settings.database_url)
    monkeypatch.setattr(sys, "argv", ["voxelmill-gateway", *command])
    process.main()
    return capsys.readouterr().out.strip()


def test_a_name_that_cannot_be_one_is_refused_in_one_line(monkeypatch, capsys, settings):
    """Exit code 2 and the reason."""
    with pytest.raises(SystemExit) as ended:
        key_from(["create-key", ""], monkeypatch, capsys, settings)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_what_is_no_command_is_refused(monkeypatch, capsys, settings):
    """It used to be ignored: a service that starts with a misspelt command is a surprise."""
    with pytest.raises(SystemExit) as ended:
        key_from(["create-kay", "x"], monkeypatch, capsys, settings)
    assert ended.value.code == 2


def test_the_first_key_is_an_admins(monkeypatch, capsys, settings):
    """Nobody is let in without, and with it everything is allowed."""
    key = key_from(["create-key", "first"], monkeypatch, capsys, settings)

    async def ask():
        on = settings.model_copy(update={"gateway_auth": "on"})
        async with (
            open_parts(on) as parts,
            open_gateway(parts, on) as gateway,
            serve(gateway, "127.0.0.1", 0) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            stranger = await client.get("/keys")
            admin = await client.get("/keys", headers={"X-API-Key": key})
            return stranger.status_code, admin.status_code, [found["name"] for found in admin.json()["items"]]

    assert asyncio.run(ask()) == (401, 200, ["first"])
