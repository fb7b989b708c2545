"""`voxelmill keys`: what it prints, what it stores, and what it refuses."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from voxelmill_cli.app import app
from voxelmill_gateway.access.api_keys import ApiKeys
from voxelmill_gateway.access.errors import NotBelievedError
from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.account import whoami
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.events import Envelope


@pytest.fixture
def database(tmp_path, monkeypatch):
    """The address of a database that the environment names; the gateway never ran over it."""
    url = f"sqlite:///{tmp_path}/voxelmill.db"
    monkeypatch.setenv("VOXELMILL_DATABASE_URL", url)
    return url


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == code, result.output
    return result


async def caller_of(url, text):
    engine = open_database(url)
    try:
        return (await ApiKeys(engine, "test").caller(text))[0]
    finally:
        await engine.dispose()


async def told(url):
    engine = open_database(url)
    try:
        async with reading(engine) as connection:
            rows = (await connection.execute(select(OUTBOX).order_by(OUTBOX.c.id))).all()
    finally:
        await engine.dispose()
    return [Envelope.decode(row.body).data for row in rows]


def test_a_key_is_made_listed_and_revoked(database):
    """The text that it prints signs in until it is revoked; who did it is for the audit trail."""
    text = run("create", "CI robot", "--role", "uploader", "--project", "chest", "--expires", "90d").stdout.split()[0]
    caller = asyncio.run(caller_of(database, text))
    assert (caller.role.label, caller.projects) == ("uploader", {"chest"})
    (listed,) = json.loads(run("list", "--json").stdout)["keys"]
    assert (listed["name"], listed["projects"], listed["created_by"]) == ("CI robot", ["chest"], whoami())
    shown = run("list").stdout
    assert listed["key_id"] in shown
    assert text.rpartition("_")[2] not in shown
    assert "is revoked" in run("revoke", listed["key_id"]).stdout
    with pytest.raises(NotBelievedError, match="key-revoked"):
        asyncio.run(caller_of(database, text))
    assert [(event["action"], event["who"]) for event in asyncio.run(told(database))] == [
        ("key-created", whoami()),
        ("key-revoked", whoami()),
    ]


def test_without_options_a_key_reads_everything(database):
    """The least role, and no project left out; as one JSON document."""
    made = json.loads(run("create", "viewer", "--json").stdout)
    assert (made["role"], made["projects"], made["expires"]) == ("viewer", None, None)
    assert asyncio.run(caller_of(database, made["key"])).projects is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "a/b"), "a key's name is"),
        (("create", "x", "--project", "A B"), "can name no project"),
        (("create", "x", "--expires", "soon"), "write a span"),
        (("create", "x", "--expires", "1999-01-01"), "name a later time"),
        (("create", "x", "--expires", "99999999999999d"), "write a span"),
    ],
)
def test_what_cannot_be_is_one_line(database, arguments, says):
    """Exit code 2, and nothing is made."""
    result = run(*arguments, code=2)
    assert (result.stderr.count("\n"), says in result.stderr) == (1, True)
    assert "no API keys" in run("list").stdout


def test_a_key_that_there_is_not(database):
    """It says where the keys are named."""
    assert "voxelmill keys list" in run("revoke", "0" * 16, code=1).stderr


def test_a_folder_without_an_installation(tmp_path, monkeypatch):
    """No database is made where none was meant."""
    monkeypatch.delenv("VOXELMILL_DATABASE_URL", raising=False)
    assert "no catalog there" in run("list", "--data", str(tmp_path), code=2).stderr
    assert list(tmp_path.iterdir()) == []
