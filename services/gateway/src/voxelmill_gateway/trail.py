"""Writing down who saw what: the record stands in the outbox before the answer leaves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.database import transaction
from voxelmill_shared.events import AccessRecorded, Envelope
from voxelmill_shared.outbox import add

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_shared.outbox import OutboxRelay

READS: Final = frozenset({"read", "search", "download", "rendered", "refused", "login-refused"})
"""What may happen many times a second and says nothing new within a minute."""
_REMEMBERED: Final = 20_000
"""How many records of the minute are remembered; one that is forgotten is written again, under the same id."""


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Trail:
    """Records of access, as events for the audit trail.

    Parameters
    ----------
    engine
        The database with the gateway's outbox.
    relay
        Publishes what is in it.
    source
        Who publishes, for the envelopes.
    clock
        Tells the time, in UTC.
    """

    def __init__(
        self, engine: AsyncEngine, relay: OutboxRelay, source: str, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._engine = engine
        self._relay = relay
        self._source = source
        self._clock = clock
        self._minute = datetime.min.replace(tzinfo=UTC)
        self._recorded: set[str] = set()

    async def record(
        self,
        caller: Caller,
        action: str,
        *,
        project: str = "",
        study: str = "",
        series: str = "",
        instance: str = "",
        job: str = "",
        outcome: str = "done",
        detail: str = "",
    ) -> None:
        """Write down what a caller did. It is durable when this returns.

        A read (see `READS`) is written once a minute for the same caller, action, study, series and job; which of a
        series' instances were read is not told apart.

        Parameters
        ----------
        action
            `read`, `search`, `download`, `rendered`, `uploaded`, `requested`, `login`, `logout`, `refused` …
        detail
            A word or two for people. Never what a header of an image holds, nor what somebody searched for.

        Raises
        ------
        DatabaseUnavailableError
            If it could not be written: nothing must be shown then.
        """
        moment = self._clock()
        repeats = action in READS
        event = AccessRecorded(
            who=caller.who,
            action=action,
            project=project,
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uid="" if repeats and series else instance,
            job_id=job,
            outcome=outcome,
            detail=detail,
            period_start=moment.replace(second=0, microsecond=0) if repeats else moment,
        )
        if not repeats:
            await self._write(event)
            return
        if event.period_start != self._minute or len(self._recorded) >= _REMEMBERED:
            self._minute = event.period_start
            self._recorded.clear()
        key = f"{event.subject()}\n{event.content_key()}"
        if key not in self._recorded:
            await self._write(event)
            self._recorded.add(key)

    async def _write(self, event: AccessRecorded) -> None:
        async with transaction(self._engine) as connection:
            await add(connection, OUTBOX, [Envelope.wrap(event, self._source)])
        self._relay.notify()
