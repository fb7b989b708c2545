"""Who calls, and what a route asks of them: `caller: Viewer` in a route's parameters is all that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer

from voxelmill_gateway.problems import Problem
from voxelmill_shared.catalog.scope import Scope
from voxelmill_shared.projects import DEFAULT_PROJECT, is_project

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from voxelmill_gateway.gateway import Gateway

STATE: Final = "caller"
"""Where the middleware puts who calls: `request.state.caller`."""


RoleName = Literal["viewer", "uploader", "operator", "admin"]
_LABELS: Final[tuple[RoleName, ...]] = ("viewer", "uploader", "operator", "admin")


class Role(IntEnum):
    """What somebody may do; each may also do what those below may."""

    VIEWER = 1
    """Every read of the caller's projects."""
    UPLOADER = 2
    """New data, and new jobs."""
    OPERATOR = 3
    """Dead letters and metrics."""
    ADMIN = 4
    """The audit trail, keys, and dropping dead letters."""

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the role of a name, `viewer`.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        try:
            return cls[name.upper()]
        except KeyError:
            known = ", ".join(role.label for role in cls)
            raise ValueError(f"no role of this name; there are {known}") from None

    @property
    def label(self) -> RoleName:
        """The name as people write it."""
        return _LABELS[self - 1]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `projects` are those whose data they may see and add to; None: all."""

    who: str
    role: Role
    projects: frozenset[str] | None

    def scope(self) -> Scope:
        """Whose rows this caller may see."""
        return Scope(self.projects)

    def project(self, asked: str | None = None) -> str:
        """Return the project that this caller writes to.

        Parameters
        ----------
        asked
            The project that the request names, if it names one. Else it is the caller's only project, or `default` if
            that is among theirs.

        Raises
        ------
        Problem
            403 if the project is not theirs, or 422 if none was named and several could be meant.
        """
        if asked:
            if not is_project(asked):
                raise Problem(422, "Not a project", "a project's name is 1 to 63 of a-z, 0-9 and -")
            if self.projects is not None and asked not in self.projects:
                detail = f"{asked}: ask an admin for access to this project"
                raise Problem(403, "Not your project", detail, refused="to write into another project")
            return asked
        if self.projects is None or DEFAULT_PROJECT in self.projects:
            return DEFAULT_PROJECT
        if len(self.projects) == 1:
            return next(iter(self.projects))
        raise Problem(422, "Which project?", f"name one of {', '.join(sorted(self.projects))}")


def caller_of(request: Request) -> Caller:
    """Return who calls.

    Raises
    ------
    Problem
        401 if nobody has said who they are.
    """
    caller: Caller | None = getattr(request.state, STATE, None)
    if caller is None:
        raise unauthenticated()
    return caller


def unauthenticated(detail: str = "", error: str = "") -> Problem:
    """Return the answer to a caller who has not said who they are, or not so that it is believed (RFC 6750, 3)."""
    challenge = 'Bearer realm="voxelmill"' + (f', error="{error}"' if error else "")
    return Problem(
        401,
        "Who are you?",
        detail or "send a token (Authorization: Bearer …) or an API key (X-API-Key), or sign in at /session",
        headers={"WWW-Authenticate": challenge},
    )


BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="a token of the identity provider, or an API key"
)
API_KEY: Final = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="key", description="an API key")
SESSION: Final = APIKeyCookie(
    name="voxelmill", auto_error=False, scheme_name="session", description="set by POST /session"
)


def _described(
    _bearer: Annotated[object, Security(BEARER)],
    _key: Annotated[object, Security(API_KEY)],
    _session: Annotated[object, Security(SESSION)],
) -> None:
    """Put the ways to sign in into the interface's description. Who calls was found out before the route was."""


def require(role: Role, *, everywhere: bool = False) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Make the dependency of a route that asks for a role.

    Parameters
    ----------
    role
        The least role.
    everywhere
        Whether the caller must also have all projects: what the route shows or changes is the installation's.
    """

    async def allowed(request: Request, _: Annotated[None, Depends(_described)]) -> Caller:
        caller = caller_of(request)
        if caller.role >= role and not (everywhere and caller.projects is not None):
            return caller
        gateway: Gateway = request.app.state.gateway
        whole = " with all projects" if everywhere else ""
        await gateway.trail.record(caller, "refused", outcome="refused", detail=f"needs {role.label}{whole}")
        raise Problem(403, "Not allowed", f"this needs the role {role.label}{whole}, and you are {caller.role.label}")

    return allowed


Viewer = Annotated[Caller, Depends(require(Role.VIEWER))]
Uploader = Annotated[Caller, Depends(require(Role.UPLOADER))]
InstallationOperator = Annotated[Caller, Depends(require(Role.OPERATOR, everywhere=True))]
InstallationAdmin = Annotated[Caller, Depends(require(Role.ADMIN, everywhere=True))]

LOCAL: Final = Caller("local@loopback", Role.ADMIN, None)
"""Everybody, while there is no access control."""
