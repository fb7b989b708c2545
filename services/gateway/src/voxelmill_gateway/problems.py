"""Errors as clients see them: problem details (RFC 9457), one clear line each, and never more than they should know."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from voxelmill_shared.errors import (
    ObjectChangedError,
    ObjectMissingError,
    StoreFullError,
    TransientError,
    UnsafeKeyError,
    VoxelmillError,
)
from voxelmill_shared.privacy import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway

log = structlog.get_logger("voxelmill")

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
"""When a client may ask again for what waits for a dependency."""
_MOST_FINDINGS = 20


class Problem(Exception):  # noqa: N818 - the name of RFC 9457, and an answer rather than a failure of ours
    """An answer that is an error.

    Parameters
    ----------
    status
        The HTTP status.
    title
        What is wrong, the same for every case of it.
    detail
        This case: object, reason, next step. Never a patient's attribute.
    type
        An address that names the kind of problem; `about:blank` says that the title is that of the status.
    headers
        Headers of the answer.
    refused
        What the audit trail says of it, if it is an answer to somebody who wanted what he has no right to, or may have.
    more
        Further members of the document.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        type: str = "about:blank",  # noqa: A002 - the member's name in RFC 9457
        headers: Mapping[str, str] | None = None,
        refused: str = "",
        **more: Any,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.refused = refused
        self.headers = dict(headers or {})
        self.document = {"type": type, "title": title, "status": status}
        if detail:
            self.document["detail"] = detail
        self.document |= more

    def response(self) -> Response:
        """Return the answer."""
        return JSONResponse(self.document, self.status, {"Cache-Control": "no-store", **self.headers}, MEDIA_TYPE)


def not_found(what: str) -> Problem:
    """Say that something is not there; also of what the caller may not know of, so that the two look the same."""
    detail = f"{what}: there is none that you may see; look at the spelling"
    return Problem(404, "Not found", detail, refused="what is not there, or is another project's")


def problem_of(error: VoxelmillError) -> Problem:
    """Return the answer for an error that a route let through."""
    match error:
        case StoreFullError():
            return Problem(507, "No room", f"{describe(error)}; make room there, and go on")
        case TransientError():
            after = {"Retry-After": str(RETRY_SECONDS)}
            return Problem(503, "Out of reach for now", f"{describe(error)}; try again later", headers=after)
        case ObjectMissingError():
            return Problem(404, "Not found", "the object is no longer in the store")
        case ObjectChangedError():
            return Problem(409, "Changed meanwhile", "the object was replaced while it was read; try again")
        case UnsafeKeyError():
            return Problem(400, "Unusable name", "the name leads nowhere in the store; look at the spelling")
        case _:
            return _unexpected(error)


def install(app: FastAPI) -> None:
    """Let the application answer every error with a problem document."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        caller: Caller | None = getattr(request.state, "caller", None)
        # Who has all projects was refused nothing: it is not there. The two others are not told apart, here or by time.
        if error.refused and caller is not None and caller.projects is not None:
            gateway: Gateway = request.app.state.gateway
            try:
                await gateway.trail.record(caller, "refused", outcome="refused", detail=error.refused)
            except VoxelmillError as unwritten:
                return problem_of(unwritten).response()
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        title = HTTPStatus(error.status_code).phrase
        detail = "" if error.detail == title else str(error.detail)
        return Problem(error.status_code, title, detail, headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # What was sent is not quoted: it may hold what no log and no screen should show.
        findings = [
            {"in": ".".join(map(str, found["loc"])), "reason": found["msg"]}
            for found in error.errors()[:_MOST_FINDINGS]
        ]
        first = f"{findings[0]['in']}: {findings[0]['reason']}" if findings else ""
        return Problem(422, "Not as the interface says", first, errors=findings).response()

    @app.exception_handler(VoxelmillError)
    async def ours(_: Request, error: VoxelmillError) -> Response:
        return problem_of(error).response()

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return _unexpected(error).response()


def _unexpected(error: Exception) -> Problem:
    """Answer a defect: the log says what it was, the client only that it was ours, and under which name it is there."""
    incident = secrets.token_hex(8)
    log.error("request.failed", incident=incident, reason=describe(error), exc_info=error)
    detail = f"it is in the gateway's log as incident {incident}; report it to whoever runs this"
    return Problem(500, "A defect of the server", detail, incident=incident)
