"""From where the gateway may be called, and under which names."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from voxelmill_gateway.problems import Problem
from voxelmill_shared.errors import VoxelmillError

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.datastructures import Headers

    from voxelmill_gateway.access.settings import AccessSettings

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110, 9.2.1."""
_AUTHORITY: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/?#@]+)(?::([0-9]{0,5}))?")
"""host[:port] of RFC 3986, 3.2, without a user."""


class OpenDoorError(VoxelmillError, ValueError):
    """The gateway should listen to other machines while it asks nobody who they are."""


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's alone (RFC 6761, 6.3: so is every name under localhost)."""
    bare = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        address = ip_address(bare)
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def known_address(client: str | None) -> str:
    """Return a client's address, or `unknown` for what is none: a proxy may pass on whatever it was sent."""
    try:
        return str(ip_address(client or ""))
    except ValueError:
        return "unknown"


def refuse_open_door(settings: AccessSettings, host: str) -> None:
    """Refuse to listen on an address that other machines reach, while there is no access control.

    Raises
    ------
    OpenDoorError
        Then.
    """
    if settings.gateway_auth == "off" and not is_loopback(host):
        raise OpenDoorError(
            f"{host}: others could reach the gateway there, and access control is off; set VOXELMILL_GATEWAY_AUTH=on,"
            " or VOXELMILL_HOST=127.0.0.1"
        )


def hostname(authority: str) -> str | None:
    """Return the host of `host:port`, in small letters; None if the text is none of these."""
    match = _AUTHORITY.fullmatch(authority)
    return match[1].rstrip(".").lower() if match else None


def check_framing(headers: Headers) -> None:
    """Refuse a request that says in two ways where it ends, and end its connection.

    A proxy that believes the other one would take what follows for a request of somebody else (RFC 9112, 6.1 and 11.2).

    Raises
    ------
    Problem
        400 then.
    """
    if "transfer-encoding" in headers and "content-length" in headers:
        close = {"Connection": "close"}
        raise Problem(400, "Bad framing", "send Content-Length or Transfer-Encoding, one of both", headers=close)


def check_host(settings: AccessSettings, headers: Headers, client: str | None) -> None:
    """Refuse a request that names a host which is not the gateway's.

    Without access control the name must be one of loopback, and the client on this machine: else a page of anybody
    could let its own name point to 127.0.0.1, and read what is there (DNS rebinding).

    Raises
    ------
    Problem
        421 for another name (RFC 9110, 15.5.20), 403 for another machine.
    """
    called = headers.getlist("host")
    host = hostname(called[0]) if len(called) == 1 else None
    if host is None:
        raise Problem(400, "Bad Host", "a request names the host that it is for, once (RFC 9112, 3.2)")
    names = {name.lower() for name in settings.gateway_hosts}
    if host not in names and (names or settings.gateway_auth == "off") and not is_loopback(host):
        raise Problem(421, "Not here", "the gateway goes by another name; add this one to VOXELMILL_GATEWAY_HOSTS")
    if settings.gateway_auth == "off" and client is not None and not is_loopback(client):
        raise Problem(403, "Not allowed", "access control is off: only this machine is served")


def check_origin(method: str, headers: Headers, others: Collection[str]) -> None:
    """Refuse a change that a page of somebody else asks for.

    Browsers say where a request comes from (Fetch, 3.2; Fetch Metadata, 2.3), and nothing else sends these headers.

    Parameters
    ----------
    method, headers
        Of the request.
    others
        The origins that may.

    Raises
    ------
    Problem
        403 then.
    """
    if method in SAFE_METHODS:
        return
    origin = headers.get("origin")
    if origin in others:
        return
    same = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if not same or headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise Problem(
            403, "Not from there", "a page of another origin asks for this; add it to VOXELMILL_GATEWAY_CORS_ORIGINS"
        )
