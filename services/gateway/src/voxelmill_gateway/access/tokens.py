"""OIDC bearer tokens: whom they stand for, if they are what they seem (RFC 7519, RFC 8725, RFC 9068)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from voxelmill_gateway.access.callers import Caller, Role
from voxelmill_gateway.access.errors import NoAccessError, NotBelievedError
from voxelmill_gateway.access.signing_keys import SigningKeys
from voxelmill_shared.projects import is_project
from voxelmill_shared.text import shown

if TYPE_CHECKING:
    from voxelmill_gateway.access.settings import AccessSettings

LONGEST: Final = 16 * 1024
"""The most characters of a token. A server's headers are no larger as a rule."""
LEEWAY_SECONDS: Final = 30
"""How far the clocks of issuer and gateway may be apart."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""What a token may say that it is (RFC 7519, 5.1; RFC 9068, 2.1); it need not. Others stand for something else."""
_LONGEST_NAME: Final = 128
_LATEST: Final = 253402300799
"""The last second that a datetime can name."""


class Tokens:
    """What an issuer's tokens say about their bearers."""

    def __init__(self, settings: AccessSettings, keys: SigningKeys | None = None) -> None:
        self._settings = settings
        self._keys = keys or SigningKeys(settings.gateway_oidc_issuer, settings.gateway_oidc_jwks_url)
        self._roles = {name: Role.of(ours) for name, ours in settings.gateway_oidc_roles.items()}

    async def caller(self, token: str) -> tuple[Caller, datetime | None]:
        """Return whom a token stands for, and when it expires.

        Raises
        ------
        NotBelievedError
            If it proves nothing.
        NoAccessError
            If it is good, and names no role or no project.
        IdentityProviderUnavailableError
            If it cannot be checked now.
        """
        claims = await self._claims(token)
        name = _claim(claims, self._settings.gateway_oidc_who_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise NotBelievedError("no-subject")
        who = f"{name}@{urlsplit(self._settings.gateway_oidc_issuer).hostname}"
        caller = Caller(who, self._role(claims), self._projects(claims))
        return caller, datetime.fromtimestamp(min(int(claims["exp"]), _LATEST), UTC)

    async def _claims(self, token: str) -> dict[str, Any]:
        """Check a token and return what it says. Of its header only `alg`, `kid` and `typ` are ever looked at.

        A key, or the address of one, that the token brings along (`jwk`, `jku`, `x5c`, `x5u`) is no reason to believe
        it; `kid` is compared with the ids of the issuer's keys, and used for nothing else.
        """
        if len(token) > LONGEST:
            raise NotBelievedError("too-long")
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, UnicodeError):
            raise NotBelievedError("malformed") from None
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if algorithm not in self._settings.gateway_oidc_algorithms:
            raise NotBelievedError("algorithm")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise NotBelievedError("kind")
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise NotBelievedError("unknown-key")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._settings.gateway_oidc_audience,
                issuer=self._settings.gateway_oidc_issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except ExpiredSignatureError:
            raise NotBelievedError("expired", "the token has expired: sign in again", guess=False) from None
        except (PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise NotBelievedError(_reason(error)) from None
        return claims

    def _role(self, claims: dict[str, Any]) -> Role:
        claim = self._settings.gateway_oidc_roles_claim
        roles = [self._roles[name] for name in _words(_claim(claims, claim)) if name in self._roles]
        if not roles:
            known = shown(", ".join(self._roles))
            raise NoAccessError(f"the token's claim {claim} names no role of this gateway ({known}): ask for one")
        return max(roles)

    def _projects(self, claims: dict[str, Any]) -> frozenset[str] | None:
        claim = self._settings.gateway_oidc_projects_claim
        said = _claim(claims, claim)
        names = self._settings.gateway_oidc_default_projects if said is None else _words(said)
        if "*" in names:
            return None
        projects = frozenset(filter(is_project, names))
        if not projects:
            raise NoAccessError(f"the token's claim {claim} names no project: ask for one")
        return projects


def _claim(claims: dict[str, Any], name: str) -> Any:
    """Return a claim by its name, or by the path to it: names have dots of their own (`https://example.org/roles`)."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _words(value: Any) -> list[str]:
    """Return the texts of a list, or of a text with spaces between them (RFC 8693, 4.2)."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _reason(error: Exception) -> str:
    reasons = {
        ImmatureSignatureError: "not-yet-valid",
        InvalidAudienceError: "audience",
        InvalidIssuerError: "issuer",
        InvalidSignatureError: "signature",
        MissingRequiredClaimError: "claim-missing",
    }
    return next((word for kind, word in reasons.items() if isinstance(error, kind)), "malformed")
