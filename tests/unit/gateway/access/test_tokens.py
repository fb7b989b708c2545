"""Tokens: the good ones say who somebody is, and none of the known ways to forge one does."""

from __future__ import annotations

import hashlib
import hmac
import time

import pytest

from unit.gateway.access.issuer import Issuer, ec_key, part, public_jwk, public_pem, rsa_key

KID = {"alg": "RS256", "kid": "rsa-1"}


async def ask(client, token, path="/session"):
    return await client.get(path, headers={"Authorization": f"Bearer {token}"})


async def test_a_good_token_says_who_calls(client, issuer):
    """The issuer's host stands behind the name: two issuers may both know an alice."""
    answer = await ask(client, issuer.token(roles=["viewer", "operator", "cook"], projects="chest head"))
    assert (answer.status_code, answer.json()) == (
        200,
        {"who": "alice@127.0.0.1", "role": "operator", "projects": ["chest", "head"], "auth": "on"},
    )


async def test_other_good_tokens(client, issuer):
    """What issuers do differently."""
    for changes in (
        {"key": ec_key("ec"), "algorithm": "ES256", "headers": {"kid": "ec-1"}},
        {"headers": {"typ": "at+jwt"}},
        {"aud": ["another", "voxelmill"]},
        {"nbf": int(time.time()) - 5},
        {"exp": 10**15},
    ):
        assert (await ask(client, issuer.token(**changes))).status_code == 200, changes


async def test_all_projects(client, issuer):
    """A star is every project, also those that come later."""
    assert (await ask(client, issuer.token(projects=["chest", "*"]))).json()["projects"] is None


def signed_with_public_key(issuer: Issuer) -> str:
    """HS256 whose secret is what everybody knows (RFC 8725, 2.1)."""
    message = f"{part({'alg': 'HS256', 'kid': 'rsa-1'})}.{part(issuer.claims())}"
    return f"{message}.{part(hmac.digest(public_pem(rsa_key('rsa')), message.encode(), hashlib.sha256))}"


HOUR = 3600
FORGED = {
    "unsigned": lambda i: i.by_hand({"alg": "none", "kid": "rsa-1"}),
    "unsigned, written otherwise": lambda i: i.by_hand({"alg": "NoNe", "kid": "rsa-1"}),
    "no algorithm": lambda i: i.by_hand({"kid": "rsa-1"}, b"x" * 256),
    "algorithm is a list": lambda i: i.by_hand({"alg": ["RS256"], "kid": "rsa-1"}, b"x" * 256),
    "HS256 with the public key": signed_with_public_key,
    "RS512, which is not accepted": lambda i: i.token(algorithm="RS512"),
    "signature cut off": lambda i: i.token().rpartition(".")[0] + ".",
    "signature of another token": lambda i: ".".join(
        [*i.token(roles=["admin"]).split(".")[:2], i.token().split(".")[2]]
    ),
    "another key under the id": lambda i: i.token(key=rsa_key("evil")),
    "another kind of key under the id": lambda i: i.token(
        key=ec_key("ec"), algorithm="ES256", headers={"kid": "rsa-1"}
    ),
    "empty signature of ECDSA": lambda i: i.by_hand({"alg": "ES256", "kid": "ec-1"}, b"\0" * 64),
    "other issuer": lambda i: i.token(iss="https://evil.example"),
    "issuer with a slash more": lambda i: i.token(iss=i.url + "/"),
    "no issuer": lambda i: i.token(iss=None),
    "other audience": lambda i: i.token(aud="another"),
    "no audience": lambda i: i.token(aud=None),
    "expired": lambda i: i.token(exp=int(time.time()) - HOUR),
    "no expiry": lambda i: i.token(exp=None),
    "expiry is a word": lambda i: i.token(exp="tomorrow"),
    "not yet valid": lambda i: i.token(nbf=int(time.time()) + HOUR),
    "made tomorrow": lambda i: i.token(iat=int(time.time()) + HOUR),
    "no time of making": lambda i: i.token(iat=None),
    "no subject": lambda i: i.token(sub=None),
    "empty subject": lambda i: i.token(sub=""),
    "subject of two lines": lambda i: i.token(sub="alice\nbob"),
    "long subject": lambda i: i.token(sub="a" * 5000),
    "unknown key id": lambda i: i.token(headers={"kid": "rsa-2"}),
    "key id is a path": lambda i: i.token(headers={"kid": "../../../../../../dev/null"}),
    "key id is an absolute path": lambda i: i.token(headers={"kid": "/etc/passwd"}),
    "key id is SQL": lambda i: i.token(headers={"kid": "x' UNION SELECT 'secret' --"}),
    "key id is a number": lambda i: i.by_hand({"alg": "RS256", "kid": 1}, b"x" * 256),
    "key id is an object": lambda i: i.by_hand({"alg": "RS256", "kid": {"$ne": ""}}, b"x" * 256),
    "what must be understood and is not": lambda i: i.token(headers={"crit": ["exp"], "exp": 1}),
    "payload not encoded": lambda i: i.by_hand({**KID, "b64": False, "crit": ["b64"]}, b"x" * 256),
    "logout token": lambda i: i.token(headers={"typ": "logout+jwt"}),
    "proof of possession": lambda i: i.token(headers={"typ": "dpop+jwt"}),
    "huge": lambda i: i.token(more="x" * 20_000),
    "empty parts": lambda _: "..",
    "one part": lambda _: "alice",
    "five parts, encrypted": lambda _: "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..a.b.c",
    "no JSON": lambda _: f"{part(b'{')}.{part(b'{')}.{part(b'x')}",
    "header is a list": lambda i: i.by_hand([], b"x"),
    "deep header": lambda _: f"{part(b'[' * 9000)}.{part(b'{}')}.{part(b'x')}",
    "payload is a number": lambda _: f"{part(KID)}.{part(b'1')}.{part(b'x' * 256)}",
    "no base64": lambda i: "€€€.€€€.€€€".encode().decode("latin-1"),
}


class TestForged:
    """One gateway for all of them: it would count to thirty, and then not look any more."""

    @pytest.fixture
    def more_settings(self):
        return {"gateway_failures_per_minute": 1000}

    async def test_a_forged_token_is_refused(self, client, issuer):
        """401, with what RFC 6750 (3.1) asks for, and without a word about what the gateway looked at."""
        let_in = {}
        for name, forge in FORGED.items():
            header = f"Bearer {forge(issuer)}".encode("latin-1")
            answer = await client.get("/session", headers={"Authorization": header})
            got = (answer.status_code, answer.headers.get("WWW-Authenticate"), answer.headers["Content-Type"])
            if got != (401, 'Bearer realm="voxelmill", error="invalid_token"', "application/problem+json"):
                let_in[name] = got
            assert len(answer.content) < 300
        assert let_in == {}
        assert (await ask(client, issuer.token())).status_code == 200


async def test_a_key_that_a_token_brings_along_is_not_believed(client, issuer):
    """Nor is its address ever asked."""
    evil = rsa_key("evil")
    async with Issuer() as attacker:
        attacker.keys = [public_jwk(evil, "evil")]
        for brought in (
            {"jku": f"{attacker.url}/keys"},
            {"x5u": f"{attacker.url}/cert.pem"},
            {"jwk": attacker.keys[0]},
            {"x5c": ["MIIB"]},
        ):
            for kid in ("evil", "rsa-1", f"{attacker.url}/keys"):
                token = issuer.token(key=evil, headers={"kid": kid, **brought})
                assert (await ask(client, token)).status_code == 401
        assert attacker.asked == []


async def test_a_key_that_is_not_for_this_signs_nothing(client, issuer):
    """Although it is among the issuer's keys."""
    other = rsa_key("other")
    others = {
        "1024 bits": (rsa_key("short", 1024), {}),
        "for encryption": (other, {"use": "enc"}),
        "for encryption, said otherwise": (other, {"key_ops": ["encrypt"]}),
        "for another algorithm": (other, {"alg": "PS256"}),
    }
    issuer.keys += [public_jwk(key, kid, **more) for kid, (key, more) in others.items()]
    issuer.keys.append(public_jwk(other, "for this"))
    for kid, (key, _) in others.items():
        assert (await ask(client, issuer.token(key=key, headers={"kid": kid}))).status_code == 401, kid
    assert (await ask(client, issuer.token(key=other, headers={"kid": "for this"}))).status_code == 200


async def test_a_shared_secret_among_the_keys_signs_nothing(client, issuer):
    """An oct key in the set is a mistake of the issuer's, and HS256 stays off."""
    issuer.keys.append({"kty": "oct", "kid": "secret", "k": part(b"s" * 32), "alg": "HS256"})
    token = issuer.token(key="s" * 32, algorithm="HS256", headers={"kid": "secret"})
    assert (await ask(client, token)).status_code == 401


async def test_a_token_without_a_key_id(client, issuer):
    """It is checked with the only key that it could be, and with none where there are several."""
    token = issuer.token(headers={"kid": None})
    assert (await ask(client, token)).status_code == 200


async def test_a_token_without_a_key_id_where_several_keys_fit(client, issuer):
    """The gateway does not try them all."""
    issuer.keys.append(public_jwk(rsa_key("other"), "rsa-2"))
    assert (await ask(client, issuer.token(headers={"kid": None}))).status_code == 401


async def test_a_good_token_without_rights_is_403(client, issuer, recorded):
    """The caller is who they say: signing in again would not help, and the text says what would."""
    for changes, says in (
        ({"roles": ["cook"]}, "names no role"),
        ({"roles": None}, "names no role"),
        ({"roles": {"viewer": True}}, "names no role"),
        ({"projects": None}, "names no project"),
        ({"projects": []}, "names no project"),
        ({"projects": ["../chest", "CHEST", 7]}, "names no project"),
    ):
        answer = await ask(client, issuer.token(**changes))
        assert (answer.status_code, says in answer.json()["detail"]) == (403, True), changes
    assert [record.detail for record in await recorded()] == ["no-rights, from 127.0.0.1"]


class TestClaimsOfOthers:
    """What an issuer calls its claims and roles."""

    @pytest.fixture
    def more_settings(self):
        return {
            "gateway_oidc_roles_claim": "realm_access.roles",
            "gateway_oidc_projects_claim": "https://example.org/projects",
            "gateway_oidc_roles": {"radiologist": "viewer", "it": "admin"},
            "gateway_oidc_who_claim": "preferred_username",
            "gateway_oidc_default_projects": ["default"],
        }

    async def test_they_are_found_where_the_settings_say(self, client, issuer):
        """Inside another claim, or under a name with dots."""
        token = issuer.token(
            realm_access={"roles": ["it"]}, preferred_username="bob", **{"https://example.org/projects": ["*"]}
        )
        answer = (await ask(client, token)).json()
        assert answer == {"who": "bob@127.0.0.1", "role": "admin", "projects": None, "auth": "on"}

    async def test_the_default_projects_are_for_tokens_that_name_none(self, client, issuer):
        """An empty list in the token stays empty."""
        common = {"realm_access": {"roles": ["radiologist"]}, "preferred_username": "bob"}
        assert (await ask(client, issuer.token(**common))).json()["projects"] == ["default"]
        none = issuer.token(**common, **{"https://example.org/projects": []})
        assert (await ask(client, none)).status_code == 403
