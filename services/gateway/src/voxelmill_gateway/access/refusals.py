"""Writing down who was not let in, in bounds: whoever guesses must not fill the audit trail and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from voxelmill_gateway.access.callers import Caller, Role
from voxelmill_gateway.access.policy import known_address
from voxelmill_gateway.trail import now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from voxelmill_gateway.trail import Trail

log = structlog.get_logger("voxelmill")

MOST_PER_MINUTE: Final = 20
"""How many records one process writes in a minute. The one after them says that there were more."""
_STRANGER: Final = Caller("stranger", Role.VIEWER, frozenset())


class Refusals:
    """Records of failed authentication: one a minute for the same address and reason, and never many in all."""

    def __init__(self, trail: Trail, *, clock: Callable[[], datetime] = now) -> None:
        self._trail = trail
        self._clock = clock
        self._minute: datetime | None = None
        self._noted: set[tuple[str, str]] = set()

    async def note(self, address: str | None, reason: str) -> None:
        """Write down that a token or a key from an address was refused. Neither is ever part of the record.

        Raises
        ------
        DatabaseUnavailableError
            If it could not be written.
        """
        minute = self._clock().replace(second=0, microsecond=0)
        if minute != self._minute:
            self._minute = minute
            self._noted.clear()
        what = (known_address(address), reason)
        if what in self._noted or len(self._noted) > MOST_PER_MINUTE:
            return
        if len(self._noted) == MOST_PER_MINUTE:
            what = ("many addresses", "more refused in this minute")
        self._noted.add(what)
        log.warning("login.refused", address=what[0], reason=what[1])
        detail = f"{what[1]}, from {what[0]}"
        await self._trail.record(_STRANGER, "login-refused", outcome="refused", detail=detail)
