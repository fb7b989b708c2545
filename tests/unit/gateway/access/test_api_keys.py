"""API keys: handed over once, stored as a digest, and refused as soon as they should be."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta

import pytest

from voxelmill_gateway.access import api_keys
from voxelmill_gateway.access.api_keys import ApiKeys, KeyDescriptionError
from voxelmill_gateway.access.callers import Caller, Role
from voxelmill_gateway.access.errors import NotBelievedError

CHEST = frozenset({"chest"})


class Clock:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(gateway, clock):
    return ApiKeys(gateway.engine, "test", clock=clock)


def everything_in(folder) -> bytes:
    """The database with its journal, the broker, whatever else was written."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def refused(keys, text) -> str:
    with pytest.raises(NotBelievedError) as caught:
        await keys.caller(text)
    assert text not in str(caught.value) or not text
    return caught.value.reason


async def test_a_key_stands_for_its_rights(keys):
    """Its name and id are who calls."""
    key, text = await keys.create("CI robot", Role.UPLOADER, CHEST, by="admin")
    assert await keys.caller(text) == (Caller(f"CI robot@key-{key.key_id}", Role.UPLOADER, CHEST), None)


async def test_a_key_of_all_projects(keys):
    """None is all, also after a round through the database."""
    _, text = await keys.create("admin", Role.ADMIN, None, by="admin")
    assert (await keys.caller(text))[0].projects is None


async def test_a_wrong_key_is_refused(keys):
    """Each of its parts counts."""
    key, text = await keys.create("one", Role.VIEWER, CHEST, by="admin")
    _, other = await keys.create("two", Role.VIEWER, CHEST, by="admin")
    secret = text.removeprefix(f"vmk_{key.key_id}_")
    swapped = "B" if secret[0] == "A" else "A"
    assert await refused(keys, f"vmk_{key.key_id}_{swapped}{secret[1:]}") == "key-unknown"
    assert await refused(keys, f"vmk_{'0' * 16}_{secret}") == "key-unknown"
    assert await refused(keys, f"vmk_{key.key_id}_{other.rpartition('_')[2].rjust(43, 'A')[-43:]}") == "key-unknown"
    for text_ in (text[:-1], f"{text}A", text.upper(), f"{text}\n", f" {text}", "vmk_", "vmk__", "", "vmk_é_ü"):
        assert await refused(keys, text_) == "key-malformed"


async def test_a_revoked_key_is_refused_at_once(keys, clock):
    """And stays revoked since the first time."""
    key, text = await keys.create("one", Role.VIEWER, CHEST, by="admin")
    await keys.caller(text)
    first = await keys.revoke(key.key_id, by="admin")
    assert await refused(keys, text) == "key-revoked"
    clock.now += timedelta(days=1)
    assert await keys.revoke(key.key_id, by="admin") == first
    assert await keys.revoke("0" * 16, by="admin") is None


async def test_a_key_expires(keys, clock):
    """At the moment that it names."""
    expires = clock.now + timedelta(days=1)
    _, text = await keys.create("one", Role.VIEWER, CHEST, by="admin", expires=expires)
    clock.now = expires - timedelta(seconds=1)
    assert (await keys.caller(text))[1] == expires
    clock.now = expires
    assert await refused(keys, text) == "key-expired"


async def test_when_a_key_was_last_used(keys, clock):
    """To the minute: not every request is a write."""
    start = clock.now
    _, text = await keys.create("one", Role.VIEWER, CHEST, by="admin")
    assert (await keys.everything())[0].last_used is None
    await keys.caller(text)
    clock.now = start + timedelta(seconds=59)
    await keys.caller(text)
    assert (await keys.everything())[0].last_used == start
    clock.now = start + timedelta(seconds=60)
    await keys.caller(text)
    assert (await keys.everything())[0].last_used == clock.now


async def test_a_key_that_cannot_be_made(keys):
    """One line says why, and nothing is stored."""
    for name, projects, expires in (
        ("", CHEST, None),
        ("a/b", CHEST, None),
        ("two\nlines", CHEST, None),
        ("a line\n", CHEST, None),
        ("x" * 65, CHEST, None),
        ("one", frozenset(), None),
        ("one", frozenset({"../chest"}), None),
        ("one", CHEST, datetime(2025, 1, 1, tzinfo=UTC)),
    ):
        with pytest.raises(KeyDescriptionError):
            await keys.create(name, Role.VIEWER, projects, by="admin", expires=expires)
    assert await keys.everything() == []


async def test_digests_are_compared_in_constant_time(keys, monkeypatch):
    """Also where there is no such key, so that the time tells nobody which ids there are."""
    compared = []

    def spy(one, other):
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(api_keys, "hmac", type("Hmac", (), {"compare_digest": staticmethod(spy)}))
    _, text = await keys.create("one", Role.VIEWER, CHEST, by="admin")
    await keys.caller(text)
    await refused(keys, f"vmk_{'0' * 16}_{'A' * 43}")
    assert compared == [(64, 64), (64, 64)]


async def test_a_secret_is_stored_nowhere(client, gateway, tmp_path, capsys, caplog):
    """Not in the database, the outbox or the log; also the wrong one that somebody tries is not."""
    key, text = await gateway.keys.create("one", Role.ADMIN, None, by="admin")
    secret = text.removeprefix(f"vmk_{key.key_id}_")
    wrong = f"vmk_{key.key_id}_{'W' * 43}"
    assert (await client.get("/session", headers={"X-API-Key": text})).status_code == 200
    assert (await client.get("/session", headers={"X-API-Key": wrong})).status_code == 401
    assert (await client.post("/session", json={"token": wrong})).status_code == 401
    made = (await client.post("/keys", json={"name": "two", "role": "viewer"}, headers={"X-API-Key": text})).json()
    listed = await client.get("/keys", headers={"X-API-Key": text})
    assert [item["key_id"] for item in listed.json()["items"]] == [made["key_id"], key.key_id]
    printed = capsys.readouterr()
    told = (listed.text + printed.out + printed.err + caplog.text).encode()
    files = everything_in(tmp_path)
    for hidden in (secret, made["key"].removeprefix(f"vmk_{made['key_id']}_"), "W" * 43):
        assert hidden.encode() not in told + files
    assert key.key_id.encode() in files


async def test_keys_over_http(client, gateway, recorded):
    """Made, used, listed and revoked by an admin; who did it is in the audit trail."""
    _, text = await gateway.keys.create("root", Role.ADMIN, None, by="somebody")
    admin = {"Authorization": f"Bearer {text}"}
    wanted = {"name": "CI robot", "role": "uploader", "projects": ["chest"], "expires": "2099-01-01T00:00:00Z"}
    made = await client.post("/keys", json=wanted, headers=admin)
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    document = made.json()
    assert {name: document[name] for name in wanted} == wanted
    robot = {"X-API-Key": document["key"]}
    assert (await client.get("/session", headers=robot)).json()["role"] == "uploader"
    path = f"/keys/{document['key_id']}"
    assert (await client.delete(path, headers=robot)).status_code == 403
    assert (await client.delete(path, headers=admin)).status_code == 204
    assert (await client.get("/session", headers=robot)).status_code == 401
    assert (await client.delete(f"/keys/{'0' * 16}", headers=admin)).status_code == 404
    actions = [(record.action, record.who.partition("@")[0]) for record in await recorded()]
    assert actions == [
        ("key-created", "somebody"),
        ("key-created", "root"),
        ("refused", "CI robot"),
        ("key-revoked", "root"),
        ("login-refused", "stranger"),
    ]


async def test_a_key_that_cannot_be_made_over_http(client, gateway):
    """422, a problem document."""
    _, text = await gateway.keys.create("root", Role.ADMIN, None, by="somebody")
    for body in (
        {"name": "x", "role": "god"},
        {"name": "../x", "role": "viewer"},
        {"name": "x", "role": "viewer", "projects": []},
        {"name": "x", "role": "viewer", "projects": ["A B"]},
        {"name": "x", "role": "viewer", "expires": "2001-01-01T00:00:00Z"},
        {"name": "x", "role": "viewer", "expires": "2099-01-01T00:00:00"},
    ):
        answer = await client.post("/keys", json=body, headers={"X-API-Key": text})
        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json"), body
