"""What stands in the addresses of DICOMweb, and how an answer names them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Path, Response

from voxelmill_gateway.access.policy import is_loopback
from voxelmill_gateway.gateway import gateway_of
from voxelmill_gateway.problems import Problem
from voxelmill_gateway.ranges import has_it

if TYPE_CHECKING:
    from fastapi import Request

PREFIX: Final = "/dicomweb"
_UID: Final = r"^[0-9.]{1,64}$"

Study = Annotated[str, Path(pattern=_UID, description="a Study Instance UID")]
Series = Annotated[str, Path(pattern=_UID, description="a Series Instance UID")]
Sop = Annotated[str, Path(pattern=_UID, description="a SOP Instance UID")]
Frames = Annotated[
    str, Path(pattern=r"^[0-9]{1,9}(,[0-9]{1,9})*$", max_length=20_000, description="numbers of frames, from 1")
]

STUDY: Final = "/studies/{study}"
SERIES: Final = "/studies/{study}/series/{series}"
INSTANCE: Final = "/studies/{study}/series/{series}/instances/{sop}"


def service_of(request: Request) -> str:
    """Return the address of the service: as the settings say, else as the client named this host.

    Some clients (dicomweb-client) leave the port out of Host, against RFC 9110, 7.2. On this machine it is known.
    """
    configured = gateway_of(request).settings.gateway_url
    if configured:
        return f"{configured.rstrip('/')}{PREFIX}"
    address = request.base_url
    port = (request.scope.get("server") or (None, None))[1]
    if address.port is None and port and address.scheme == "http" and is_loopback(address.hostname or ""):
        address = address.replace(port=port)
    return f"{str(address).rstrip('/')}{PREFIX}"


def etag_of(*what: object) -> str:
    """Return an entity tag for an answer that is made of these."""
    return f'"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}"'


def fresh(request: Request, etag: str) -> Response | None:
    """Return the answer to a client that has this already, or None."""
    return Response(status_code=304, headers=caching(etag)) if has_it(request.headers, etag) else None


def caching(etag: str) -> dict[str, str]:
    """Return the headers of what a client may keep, and must ask about: a new instance may have come."""
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept"}


def senseless(name: str, reason: str) -> Problem:
    """Say of a parameter that it makes no sense, and why."""
    return Problem(400, "A parameter makes no sense", f"{name}: {reason}")


def described(summary: str, operation: str, *media_types: str) -> dict[str, Any]:
    """Return how an operation is described to OpenAPI."""
    return {
        "summary": summary,
        "operation_id": operation,
        "response_class": Response,
        "responses": {
            200: {"description": "It", "content": {media_type: {} for media_type in media_types}},
            304: {"description": "The client has it already"},
            406: {"description": "There is no media type that the client takes"},
            409: {"description": "An object was replaced in the store"},
            410: {"description": "An object was deleted from the store"},
            422: {"description": "An object cannot be read or decoded"},
        },
    }
