"""Whether a source of notifications can be reached: what `/readyz` says of it, and one line in the log per change."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from voxelmill_ingest.backpressure import QueueFullError
from voxelmill_shared.errors import BrokerUnavailableError, TransientError, UnroutableError

log = structlog.get_logger("voxelmill")

NOT_ANNOUNCED = (BrokerUnavailableError, QueueFullError, UnroutableError)
"""What `Announcer.announce` raises while our own broker does not take announcements, or shall not."""


class SourceUnavailableError(TransientError):
    """A source of notifications does not answer, or refuses us."""

    error_class = "source-unavailable"


@dataclass(slots=True)
class Reach:
    """The state of one source, as its last answer left it.

    Parameters
    ----------
    name
        What is reached, for people: `SQS queue …`.
    away
        Whether it was out of reach when it was last asked.
    """

    name: str
    away: bool = False
    _reason: str = "has not answered yet"

    def lost(self, reason: str) -> None:
        """Note that it is out of reach."""
        self._reason = reason
        if not self.away:
            self.away = True
            log.warning("notifications wait", source=self.name, reason=reason)

    def found(self) -> None:
        """Note that it answered."""
        self._reason = ""
        if self.away:
            self.away = False
            log.info("notifications go on", source=self.name)

    async def check(self) -> None:
        """Return if its last answer was a good one.

        Raises
        ------
        SourceUnavailableError
            If not; with the reason.
        """
        if self._reason:
            raise SourceUnavailableError(f"{self.name}: {self._reason}")
