"""Whether somebody who was let in still would be: answers that go on for minutes ask again while they do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.access.errors import NoAccessError, NotBelievedError
from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from fastapi import Request

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.access.gatekeeper import Gatekeeper

STANDING: Final = "standing"
"""Where the middleware puts it: `request.state.standing`. It is not there while there is no access control."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What somebody was let in with.

    Attributes
    ----------
    gatekeeper, text
        Who let them in, and the token or key.
    caller, expires
        Whom it stood for then, and when it ends.
    """

    gatekeeper: Gatekeeper
    text: str
    caller: Caller
    expires: datetime | None

    def seconds_left(self) -> float:
        """Return after how many seconds the token or key ends by itself."""
        if self.expires is None:
            return float("inf")
        return max(0.0, (self.expires - datetime.now(UTC)).total_seconds())

    async def holds(self) -> bool:
        """Whether the token or key still stands for the same caller with the same rights.

        While that cannot be looked up, it is taken to be so: what cannot be looked up was so a moment ago.
        """
        try:
            return await self.gatekeeper.believes(self.text) == self.caller
        except (NotBelievedError, NoAccessError):
            return False
        except TransientError:
            return True


def standing_of(request: Request) -> Standing | None:
    """Return what the caller of a request was let in with; none while there is no access control."""
    standing: Standing | None = getattr(request.state, STANDING, None)
    return standing
