"""Signing in and out of the page: a token or key in a cookie that scripts cannot read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, Field

from voxelmill_gateway.access.callers import LOCAL, Caller, RoleName, Viewer, unauthenticated
from voxelmill_gateway.access.credentials import LONGEST_COOKIE, credential, in_cookie, set_cookie
from voxelmill_gateway.access.errors import NoAccessError, NotBelievedError
from voxelmill_gateway.access.middleware import answer
from voxelmill_gateway.access.tokens import LONGEST
from voxelmill_gateway.gateway import Gate, Gateway
from voxelmill_gateway.problems import Problem
from voxelmill_shared.errors import TransientError
from voxelmill_shared.privacy import describe

log = structlog.get_logger("voxelmill")
router = APIRouter(tags=["session"])


class SignIn(BaseModel):
    """What to sign in with."""

    token: str = Field(min_length=1, max_length=LONGEST, description="a token of the identity provider, or an API key")


class SessionOut(BaseModel):
    """Who is signed in."""

    who: str
    role: RoleName
    projects: list[str] | None = Field(description="none: all")
    auth: Literal["off", "on"] = Field(description="off: everybody on this machine is admin")


@router.get("/session", operation_id="get_session", summary="Who I am and what I may do")
async def get_session(gate: Gate, caller: Viewer) -> SessionOut:
    """Say who calls."""
    return _session(gate, caller)


@router.post("/session", operation_id="create_session", summary="Sign a browser in with a token or an API key")
async def create_session(
    request: Request, response: Response, gate: Gate, sign_in: Annotated[SignIn | None, Body()] = None
) -> SessionOut:
    """Put the token or key of the body, or of the Authorization header, into a cookie."""
    keeper = gate.gatekeeper
    if not keeper.asks:
        return _session(gate, LOCAL)
    secure = keeper.is_secure(request.url.scheme)
    try:
        text = sign_in.token.strip() if sign_in else credential(request.headers, secure=secure)
        if text is None:
            raise unauthenticated()
        caller, expires = await keeper.admit(text, request.client.host if request.client else None)
    except (NotBelievedError, NoAccessError) as error:
        raise answer(error) from None
    await keeper.rates.count(caller.who)
    if len(text) > LONGEST_COOKIE:
        detail = f"it has more than {LONGEST_COOKIE} characters; let the identity provider put less into it"
        raise Problem(422, "The token does not fit into a cookie", detail)
    await gate.trail.record(caller, "login")
    seconds = gate.settings.gateway_session_seconds
    if expires is not None:
        seconds = max(1, min(seconds, int((expires - datetime.now(UTC)).total_seconds())))
    response.headers["Set-Cookie"] = set_cookie(text, secure=secure, seconds=seconds)
    response.headers["Cache-Control"] = "no-store"
    return _session(gate, caller)


@router.delete("/session", operation_id="delete_session", summary="Sign a browser out", status_code=204)
async def delete_session(request: Request, gate: Gate) -> Response:
    """Let the browser forget the cookie, and what it keeps of what it was shown."""
    keeper = gate.gatekeeper
    secure = keeper.is_secure(request.url.scheme)
    text = in_cookie(request.headers, secure=secure) if keeper.asks else None
    if text is not None:
        try:
            await gate.trail.record(await keeper.believes(text), "logout")
        except (NotBelievedError, NoAccessError):
            pass  # nobody was signed in any more
        except TransientError as error:
            log.warning("logout.unrecorded", reason=describe(error))  # a browser forgets all the same
    forget = set_cookie("", secure=secure, seconds=0)
    return Response(status_code=204, headers={"Set-Cookie": forget, "Clear-Site-Data": '"cache"'})


def _session(gate: Gateway, caller: Caller) -> SessionOut:
    return SessionOut(
        who=caller.who,
        role=caller.role.label,
        projects=None if caller.projects is None else sorted(caller.projects),
        auth=gate.settings.gateway_auth,
    )
