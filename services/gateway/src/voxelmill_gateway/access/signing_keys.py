"""The public keys of an OIDC issuer: fetched, kept, and fetched again when a token names one that is not there."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from voxelmill_gateway.access.errors import IdentityProviderUnavailableError
from voxelmill_gateway.access.policy import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger("voxelmill")

FRESH_SECONDS: Final = 15 * 60.0
"""After this the keys are fetched again, so that one that the issuer withdrew is not believed for long."""
STALE_SECONDS: Final = 24 * 3600.0
"""How long keys serve whose issuer does not answer."""
AGAIN_SECONDS: Final = 60.0
"""The least time between two fetches: tokens with invented key ids must not become requests to the issuer."""
RETRY_SECONDS: Final = 5.0
"""The same, while there are no keys at all."""
_TIMEOUT: Final = 5.0
_MOST_BYTES: Final = 1 << 20
_KEY_KINDS: Final = {
    "RS": ("RSA", None), "PS": ("RSA", None), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"), "EdDSA": ("OKP", "Ed25519"),
}  # fmt: skip
"""Which kind of key an algorithm needs (RFC 7518, 3.1 and 6.1; RFC 8037, 2)."""


class SigningKeys:
    """The keys of one issuer.

    Parameters
    ----------
    issuer
        Whose they are, `https://…`.
    url
        Where the set is (RFC 7517, 5); empty: what the issuer's configuration names (OpenID Connect Discovery 1.0, 4).
    clock
        Tells monotonic seconds.
    """

    def __init__(self, issuer: str, url: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._url = url
        self._clock = clock
        self._keys: list[dict[str, Any]] = []
        self._fetched: float | None = None
        self._tried: float | None = None
        self._turn = asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Return the key that a token names, for this algorithm and no other; None if the issuer has none.

        A token without a key id is checked where the issuer has only one key that it could be.

        Raises
        ------
        IdentityProviderUnavailableError
            If the issuer's keys are not known, or have not been for a day.
        """
        if self._age() > FRESH_SECONDS:
            await self._refresh(AGAIN_SECONDS if self._keys else RETRY_SECONDS)
        found = self._match(kid, algorithm)
        if found is None and await self._refresh(AGAIN_SECONDS):
            found = self._match(kid, algorithm)
        return found

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._clock() - self._fetched

    async def _refresh(self, wait: float) -> bool:
        """Fetch the keys, unless somebody did within `wait` seconds; say whether they are newer than before."""
        before = self._fetched
        async with self._turn:
            if self._tried is None or self._clock() - self._tried >= wait:
                self._tried = self._clock()
                try:
                    self._keys = await self._fetch()
                    self._fetched = self._clock()
                except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    log.warning("oidc.keys-not-fetched", issuer=self._issuer, reason=reason)
            if self._age() > STALE_SECONDS:
                raise IdentityProviderUnavailableError(f"{self._issuer}: its keys cannot be fetched")
        return self._fetched != before

    async def _fetch(self) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False) as client:
            url = self._url or await self._discover(client)
            document = await _get(client, url)
        keys = document.get("keys")
        if not isinstance(keys, list):
            raise ValueError("a key set has a list of keys (RFC 7517, 5)")  # noqa: TRY004 - about a document, no call
        return [key for key in keys if isinstance(key, dict)]

    async def _discover(self, client: httpx.AsyncClient) -> str:
        document = await _get(client, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        url = document.get("jwks_uri")
        if document.get("issuer") != self._issuer or not isinstance(url, str):
            raise ValueError("its configuration is another issuer's, or names no jwks_uri")
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("its jwks_uri is not https")
        return url

    def _match(self, kid: str | None, algorithm: str) -> PyJWK | None:
        fit = [key for key in self._keys if _fits(key, algorithm) and (kid is None or key.get("kid") == kid)]
        if len(fit) != 1:  # none, or several of which nobody says which
            return None
        try:
            return PyJWK(fit[0], algorithm)
        except PyJWTError:
            return None


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    """Whether a key is one for this algorithm (RFC 7517, 4.1 to 4.4)."""
    kind, curve = _KEY_KINDS.get(algorithm) or _KEY_KINDS[algorithm[:2]]
    operations = key.get("key_ops")
    return (
        key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and (not isinstance(operations, list) or "verify" in operations)
        and key.get("alg", algorithm) == algorithm
    )


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"HTTP {answer.status_code}")
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES} bytes")
    try:
        document = json.loads(bytes(body))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - about a document, no call
    return document
