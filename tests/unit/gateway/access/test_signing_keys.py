"""The issuer's keys: fetched once, kept, renewed, and never asked for because an attacker wants it."""

from __future__ import annotations

import asyncio

import pytest

from unit.gateway.access.issuer import ec_key, public_jwk, rsa_key
from voxelmill_gateway.access.errors import IdentityProviderUnavailableError
from voxelmill_gateway.access.signing_keys import (
    AGAIN_SECONDS,
    FRESH_SECONDS,
    RETRY_SECONDS,
    STALE_SECONDS,
    SigningKeys,
)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(issuer, clock):
    return SigningKeys(issuer.url, clock=clock)


def fetches(issuer):
    return issuer.asked.count("/keys")


async def test_one_fetch_serves_many_tokens(keys, issuer):
    """Also where many come at once."""
    found = await asyncio.gather(*(keys.find("rsa-1", "RS256") for _ in range(50)))
    assert all(key is not None and key.key_id == "rsa-1" for key in found)
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_new_key_is_fetched_when_a_token_names_it(keys, issuer, clock):
    """The issuer turned its keys over; nobody restarts the gateway."""
    await keys.find("rsa-1", "RS256")
    issuer.keys = [public_jwk(rsa_key("other"), "rsa-2")]
    clock.now += AGAIN_SECONDS
    assert await keys.find("rsa-2", "RS256") is not None
    assert await keys.find("rsa-1", "RS256") is None


async def test_invented_key_ids_are_no_requests_to_the_issuer(keys, issuer, clock):
    """One fetch a minute, however many there are."""
    for _ in range(3):
        for number in range(40):
            assert await keys.find(f"invented-{number}", "RS256") is None
        clock.now += AGAIN_SECONDS
    assert fetches(issuer) == 3


async def test_a_withdrawn_key_is_forgotten(keys, issuer, clock):
    """Although every token names it, and it is never looked for in vain."""
    await keys.find("rsa-1", "RS256")
    issuer.keys = [public_jwk(ec_key("ec"), "ec-1")]
    assert await keys.find("rsa-1", "RS256") is not None
    clock.now += FRESH_SECONDS + 1
    assert await keys.find("rsa-1", "RS256") is None


async def test_an_issuer_that_is_away_is_not_asked_by_every_token(keys, issuer, clock):
    """Without keys nothing can be checked: try again later. After some seconds it is asked again."""
    issuer.away = True
    for _ in range(20):
        with pytest.raises(IdentityProviderUnavailableError):
            await keys.find("rsa-1", "RS256")
    assert len(issuer.asked) == 1
    issuer.away = False
    clock.now += RETRY_SECONDS
    assert await keys.find("rsa-1", "RS256") is not None


async def test_keys_outlive_an_outage_of_the_issuer_for_a_day(keys, issuer, clock):
    """People go on working, but a key that was withdrawn must not be believed for ever."""
    await keys.find("rsa-1", "RS256")
    issuer.away = True
    clock.now += STALE_SECONDS - 1
    assert await keys.find("rsa-1", "RS256") is not None
    clock.now += 2
    with pytest.raises(IdentityProviderUnavailableError):
        await keys.find("rsa-1", "RS256")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"keys": {}}', b'{"keys": [' + b" " * (1 << 20) + b"]}", b"[" * 100_000],
    ids=["empty", "page", "list", "object of keys", "large", "deep"],
)
async def test_an_answer_that_is_no_key_set(keys, issuer, body):
    """It is as if the issuer were away."""
    issuer.body = body
    with pytest.raises(IdentityProviderUnavailableError):
        await keys.find("rsa-1", "RS256")


async def test_broken_keys_do_not_spoil_the_others(keys, issuer):
    """A set may hold kinds of keys that we do not know."""
    issuer.keys = [7, {}, {"kty": "RSA", "kid": "rsa-1x"}, {"kty": "new", "kid": "n"}, *issuer.keys]
    assert await keys.find("rsa-1", "RS256") is not None
    assert await keys.find("rsa-1x", "RS256") is None
    assert await keys.find("n", "RS256") is None


async def test_a_redirect_is_not_followed(issuer, clock):
    """Where keys come from is what the settings say."""

    async def elsewhere(_):
        from aiohttp import web

        raise web.HTTPFound(f"{issuer.url}/keys")

    from aiohttp import web

    app = web.Application()
    app.router.add_get("/keys", elsewhere)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
        with pytest.raises(IdentityProviderUnavailableError):
            await SigningKeys(issuer.url, url, clock=clock).find("rsa-1", "RS256")
    finally:
        await runner.cleanup()
    assert issuer.asked == []


async def test_a_token_that_cannot_be_checked_is_503(client, issuer):
    """Neither believed nor refused."""
    issuer.away = True
    answer = await client.get("/session", headers={"Authorization": f"Bearer {issuer.token()}"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
