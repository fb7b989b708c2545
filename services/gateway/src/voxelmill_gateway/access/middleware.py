"""What every request passes before a route is looked for.

All of it is plain ASGI: nothing stands between a route and its client that would hold a stream up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from voxelmill_gateway.access.bodies import BodySize
from voxelmill_gateway.access.callers import LOCAL, STATE, unauthenticated
from voxelmill_gateway.access.credentials import credential
from voxelmill_gateway.access.errors import NoAccessError, NotBelievedError
from voxelmill_gateway.access.policy import check_framing, check_host, check_origin
from voxelmill_gateway.access.standing import STANDING, Standing
from voxelmill_gateway.problems import Problem, problem_of
from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from voxelmill_gateway.access.gatekeeper import Gatekeeper
    from voxelmill_gateway.access.settings import AccessSettings
    from voxelmill_gateway.gateway import Gateway

OPEN: Final = frozenset(
    {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("GET", "/index.html"),
        ("GET", "/favicon.ico"),
        ("GET", "/favicon.svg"),
        ("POST", "/session"),
        ("DELETE", "/session"),
    }
)
"""What strangers may ask for: whether the process lives, the page itself, what the interface is, and to sign in."""
OPEN_FOLDERS: Final = ("/assets/",)
"""The page's own files."""
_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Asked by orchestrators, which name the machine's address."""
_EXPOSED: Final = (
    "Content-Location", "Content-Range", "ETag", "Link", "Location", "Retry-After", "Upload-Offset", "Warning",
    "X-Total-Count",
)  # fmt: skip
_SENT: Final = (
    "Authorization", "Content-Range", "Content-Type", "If-Match", "If-None-Match", "If-Range", "Last-Event-ID", "Range",
    "X-API-Key",
)  # fmt: skip


def is_open(method: str, path: str) -> bool:
    """Whether a stranger may ask for this."""
    method = "GET" if method == "HEAD" else method
    return (method, path) in OPEN or (method == "GET" and path.startswith(OPEN_FOLDERS))


class Doorstep:
    """Refuses what comes under a wrong name, or from a page of somebody else."""

    def __init__(self, app: ASGIApp, settings: AccessSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            try:
                check_framing(headers)
                if scope["path"] not in _PROBES:
                    check_host(self._settings, headers, scope["client"][0] if scope.get("client") else None)
                check_origin(scope["method"], headers, self._settings.gateway_cors_origins)
            except Problem as problem:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Authentication:
    """Finds out who calls, and answers strangers: a route that forgot to ask for a role is closed to them too."""

    def __init__(self, app: ASGIApp, gatekeeper: Gatekeeper) -> None:
        self._app = app
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its caller, or answer it."""
        if scope["type"] == "websocket":  # nothing here speaks it, and nobody has said who they are
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        keeper = self._gatekeeper
        state = scope.setdefault("state", {})
        if not keeper.asks:
            state[STATE] = LOCAL
        elif not is_open(scope["method"], scope["path"]):
            try:
                text = credential(Headers(scope=scope), secure=keeper.is_secure(scope["scheme"]))
                if text is None:
                    raise unauthenticated()
                caller, expires = await keeper.admit(text, scope["client"][0] if scope.get("client") else None)
                await keeper.rates.count(caller.who)
                state |= {STATE: caller, STANDING: Standing(keeper, text, caller, expires)}
            except (NotBelievedError, NoAccessError, TransientError, Problem) as error:
                await answer(error).response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def answer(error: NotBelievedError | NoAccessError | TransientError | Problem) -> Problem:
    """Return the answer to somebody who is not let in."""
    match error:
        case Problem():
            return error
        case NotBelievedError():
            return unauthenticated(error.advice, "invalid_token")
        case NoAccessError():
            return Problem(403, "Not allowed", str(error))
        case _:
            return problem_of(error)


def middleware(gateway: Gateway) -> list[Middleware]:
    """Return what every request passes, the outermost first; `cross_origin` is further out."""
    return [
        Middleware(Doorstep, settings=gateway.settings),
        Middleware(BodySize, settings=gateway.settings),
        Middleware(Authentication, gatekeeper=gateway.gatekeeper),
    ]


def cross_origin(app: ASGIApp, settings: AccessSettings) -> ASGIApp:
    """Let the pages of the list read every answer (CORS), also that to a defect: a browser hides all others."""
    if not settings.gateway_cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.gateway_cors_origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "DELETE"),
        allow_headers=_SENT,
        expose_headers=_EXPOSED,
    )
