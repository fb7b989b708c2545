"""Where a request carries a token or a key, and how a browser keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from voxelmill_gateway.access.errors import NotBelievedError

if TYPE_CHECKING:
    from starlette.datastructures import Headers

COOKIE: Final = "voxelmill"
SECURE_COOKIE: Final = "__Host-voxelmill"
"""A browser takes this name only by https, for one host and no other (RFC 6265bis, 4.1.3.2)."""
LONGEST_COOKIE: Final = 3800
"""The most characters that fit into a cookie, which browsers bound at 4096 with its attributes (RFC 6265, 6.1)."""


def credential(headers: Headers, *, secure: bool) -> str | None:
    """Return the token or key of a request; None where it has none.

    A header goes before the cookie: a program knows what it sends, a browser adds its cookie by itself.

    Raises
    ------
    NotBelievedError
        If the Authorization header is of another scheme than Bearer (RFC 6750, 2.1).
    """
    if (authorization := headers.get("authorization")) is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise NotBelievedError("scheme", "write Authorization: Bearer and the token or API key", guess=False)
        return text.strip()
    if (key := headers.get("x-api-key")) is not None:
        return key.strip()
    return in_cookie(headers, secure=secure)


def cookie_name(*, secure: bool) -> str:
    """Return the name of the session's cookie."""
    return SECURE_COOKIE if secure else COOKIE


def set_cookie(text: str, *, secure: bool, seconds: int) -> str:
    """Return the Set-Cookie header of a session; with an empty text, of its end.

    Scripts cannot read it, and a browser sends it with what our own pages ask for alone.
    """
    attributes = ["Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={seconds}", *(["Secure"] if secure else [])]
    return "; ".join([f"{cookie_name(secure=secure)}={text}", *attributes])


def in_cookie(headers: Headers, *, secure: bool) -> str | None:
    """Return the session's cookie, the first if there are several: that is the one of the longest path (RFC 6265, 5.4).

    Whatever else this host's other pages have left in the browser, of any name and value, is passed over.
    """
    name = cookie_name(secure=secure)
    for value in headers.getlist("cookie"):
        for pair in value.split(";"):
            key, _, text = pair.partition("=")
            if key.strip() == name and (found := text.strip().strip('"')):
                return found
    return None
