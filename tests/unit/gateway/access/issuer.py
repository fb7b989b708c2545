"""An identity provider on loopback: its configuration, its keys, and tokens that it signs or that somebody forges."""

from __future__ import annotations

import base64
import json
import time
import warnings
from functools import cache

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

AUDIENCE = "voxelmill"


@cache
def rsa_key(name: str, bits: int = 2048):
    """A key of this name, the same throughout the run: making one takes a tenth of a second."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str):
    """A key on P-256 of this name."""
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key, kid, **more):
    """The public half as a JSON Web Key."""
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    jwk = kind.to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "kid": kid, "use": "sig", **more}


def public_pem(key) -> bytes:
    """The public half as text, which is no secret."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def part(value) -> str:
    """One part of a token, written by hand."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


class Issuer:
    """Serves its keys, and counts how often it is asked for them."""

    def __init__(self) -> None:
        self.keys = [public_jwk(rsa_key("rsa"), "rsa-1"), public_jwk(ec_key("ec"), "ec-1")]
        self.asked: list[str] = []
        self.away = False
        self.body: bytes | None = None
        """Served instead of the keys."""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _answer(self, request):
        self.asked.append(request.path)
        if self.away:
            return web.Response(status=503)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        if self.body is not None:
            return web.Response(body=self.body)
        return web.json_response({"keys": self.keys})

    def claims(self, **more):
        """What a good token says; None takes a claim away."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 300,
            "roles": ["viewer"],
            "projects": ["chest"],
            **more,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, key=None, algorithm="RS256", headers=None, **more) -> str:
        """A token that is good, but for what is asked for."""
        header = {"kid": "rsa-1", **(headers or {})}
        header = {name: value for name, value in header.items() if value is not None}
        with warnings.catch_warnings(action="ignore", category=InsecureKeyLengthWarning):
            return jwt.encode(self.claims(**more), key or rsa_key("rsa"), algorithm, headers=header)

    def by_hand(self, header, signature: bytes = b"", **more) -> str:
        """A token of parts that no library would put together."""
        return f"{part(header)}.{part(self.claims(**more))}.{part(signature)}"
