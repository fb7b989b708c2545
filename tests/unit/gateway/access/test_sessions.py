"""Signing a browser in and out."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie

import pytest

from voxelmill_gateway.access.callers import Role
from voxelmill_shared.errors import DatabaseUnavailableError


@pytest.fixture
async def key(gateway):
    return (await gateway.keys.create("page", Role.VIEWER, frozenset({"chest"}), by="test"))[1]


def cookie(answer, name="voxelmill"):
    return SimpleCookie(answer.headers["Set-Cookie"])[name]


async def test_a_key_signs_in_and_the_cookie_does_the_rest(client, key, recorded):
    """Scripts cannot read it, and other sites' pages cannot send it."""
    answer = await client.post("/session", json={"token": key})
    assert (answer.status_code, answer.json()["projects"]) == (200, ["chest"])
    set_ = cookie(answer)
    assert (set_.value, set_["httponly"], set_["samesite"], set_["path"], set_["secure"], set_["domain"]) == (
        key,
        True,
        "Strict",
        "/",
        "",
        "",
    )
    assert set_["max-age"] == str(8 * 3600)
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await client.get("/session")).json()["who"].startswith("page@key-")
    assert [record.action for record in await recorded()] == ["key-created", "login"]


async def test_a_token_in_the_header_signs_in_as_long_as_it_holds(client, issuer):
    """The cookie ends with the token."""
    headers = {"Authorization": f"Bearer {issuer.token(exp=int(time.time()) + 100)}"}
    answer = await client.post("/session", headers=headers)
    assert 80 < int(cookie(answer)["max-age"]) <= 100
    assert (await client.get("/session")).json()["who"] == "alice@127.0.0.1"


async def test_signing_out(client, key, recorded):
    """The cookie is gone, and what the browser kept of what it was shown. It is written down of who was signed in."""
    await client.post("/session", json={"token": key})
    answer = await client.delete("/session")
    assert (answer.status_code, cookie(answer)["max-age"], cookie(answer).value) == (204, "0", "")
    assert answer.headers["Clear-Site-Data"] == '"cache"'
    assert (await client.get("/session")).status_code == 401
    assert (await client.delete("/session")).status_code == 204
    assert [record.action for record in await recorded()] == ["key-created", "login", "logout"]


async def test_signing_out_always_clears_the_cookie(client, key, recorded, gateway, monkeypatch):
    """Whatever else a request carries, and also when it cannot be written down. Who has no cookie was not signed in."""
    for headers in ({"Authorization": "Basic YTpi"}, {"X-API-Key": key}, {"Cookie": "voxelmill=no-key"}):
        answer = await client.delete("/session", headers=headers)
        assert (answer.status_code, cookie(answer)["max-age"]) == (204, "0")
    assert [record.action for record in await recorded()] == ["key-created"]
    await client.post("/session", json={"token": key})

    async def away(*_, **__):
        raise DatabaseUnavailableError("database catalog: away")

    monkeypatch.setattr(gateway.trail, "record", away)
    answer = await client.delete("/session")
    assert (answer.status_code, cookie(answer)["max-age"]) == (204, "0")


async def test_a_wrong_key_signs_nobody_in(client, recorded):
    """No cookie, and it is written down."""
    answer = await client.post("/session", json={"token": f"vmk_{'0' * 16}_{'A' * 43}"})
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="voxelmill", error="invalid_token"'
    record = (await recorded())[0]
    assert (record.who, record.action, record.outcome, record.detail) == (
        "stranger",
        "login-refused",
        "refused",
        "key-unknown, from 127.0.0.1",
    )


async def test_nothing_to_sign_in_with(client):
    """401, and what to do."""
    answer = await client.post("/session")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="voxelmill"')


async def test_a_token_too_long_for_a_cookie(client, issuer):
    """A browser would drop it without a word."""
    token = issuer.token(groups=["g" * 100] * 40)
    answer = await client.post("/session", json={"token": token})
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (422, False)
    assert (await client.get("/session", headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_a_session_ends_with_its_key(client, gateway, key):
    """A cookie is looked at as any key is, each time."""
    await client.post("/session", json={"token": key})
    await gateway.keys.revoke(key[4:20], by="test")
    assert (await client.get("/session")).status_code == 401


async def test_a_header_goes_before_the_cookie(client, key, issuer):
    """A wrong header is not saved by a good cookie."""
    await client.post("/session", json={"token": key})
    assert (await client.get("/session", headers={"X-API-Key": "vmk_x"})).status_code == 401
    assert (await client.get("/session", headers={"Authorization": "Basic YTpi"})).status_code == 401
    assert (await client.get("/session", headers={"Authorization": "Bearer"})).status_code == 401
    bearer = {"Authorization": f"bearer {issuer.token()}"}
    assert (await client.get("/session", headers=bearer)).json()["who"] == "alice@127.0.0.1"


async def test_a_broken_cookie_is_no_cookie(client):
    """Not signed in, and nothing worse."""
    for broken in ("voxelmill=", "voxelmill", ";;;", "voxelmill=\\", 'a="b; voxelmill', "=;="):
        assert (await client.get("/session", headers={"Cookie": broken})).status_code == 401


@pytest.mark.parametrize("other", ["a[b]=c", 'prefs={"rows": [1, 2]}', "voxelmill2=x", "=", "é=1", 'open="'])
async def test_what_other_pages_of_this_host_keep_signs_nobody_out(client, key, other):
    """Cookies do not tell ports apart, and browsers take names and values that no grammar has."""
    for cookies in (f"{other}; voxelmill={key}", f"voxelmill={key}; {other}"):
        answer = await client.get("/session", headers=[("Cookie", cookies.encode())])
        assert answer.status_code == 200


async def test_by_https_the_cookie_is_for_this_host_and_https_alone(client, key):
    """A proxy on this machine says how the request came (uvicorn reads X-Forwarded-Proto from loopback)."""
    https = {"X-Forwarded-Proto": "https"}
    answer = await client.post("/session", json={"token": key}, headers=https)
    set_ = cookie(answer, "__Host-voxelmill")
    assert (set_["secure"], set_["path"], set_["domain"]) == (True, "/", "")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    sent = {**https, "Cookie": f"__Host-voxelmill={key}"}
    assert (await client.get("/session", headers=sent)).status_code == 200
    tossed = {**https, "Cookie": f"voxelmill={key}"}  # by a page of a neighbouring name
    assert (await client.get("/session", headers=tossed)).status_code == 401


class TestSecureBySetting:
    @pytest.fixture
    def more_settings(self):
        return {"gateway_cookie_secure": True, "gateway_session_seconds": 60}

    async def test_the_setting_says_so(self, client, key):
        """Behind a proxy that says nothing."""
        answer = await client.post("/session", json={"token": key})
        set_ = cookie(answer, "__Host-voxelmill")
        assert (set_["secure"], set_["max-age"]) == (True, "60")


class TestWithoutAccessControl:
    @pytest.fixture
    def more_settings(self):
        return {"gateway_auth": "off", "gateway_oidc_issuer": "", "gateway_oidc_audience": ""}

    async def test_everybody_here_is_admin(self, client):
        """The page asks, and is told that there is nothing to sign in to."""
        everybody = {"who": "local@loopback", "role": "admin", "projects": None, "auth": "off"}
        assert (await client.get("/session")).json() == everybody
        answer = await client.post("/session", json={"token": "anything"})
        assert (answer.json(), "Set-Cookie" in answer.headers) == (everybody, False)
