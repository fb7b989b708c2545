"""Any event, into the catalog; the last one of a job, into its receipt."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select

from voxelmill_index.audit import audit_record, stage_of
from voxelmill_index.describing import Describe
from voxelmill_index.objects import RECORDED_TOGETHER, record_objects
from voxelmill_index.recording import job_columns, job_of, record_event
from voxelmill_index.settling import decide
from voxelmill_index.trail import append
from voxelmill_shared.catalog import StageOutcome
from voxelmill_shared.catalog.tables import STAGES
from voxelmill_shared.database import reading, transaction
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import StageDone, cause
from voxelmill_shared.outcome import Done, Outcome, Retry
from voxelmill_shared.results import ResultKeys, StageRecord
from voxelmill_shared.stage import read_document
from voxelmill_shared.together import Together
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_index.settling import SettleJob
    from voxelmill_shared.events import Envelope, Event
    from voxelmill_shared.storage.stores import Stores


MOST_AT_ONCE = 64
"""Events in one transaction."""


@dataclass(slots=True)
class IndexEvent:
    """Record one event, in whatever order events come, and bring its job to its end if this was the last one.

    Events about single objects that are in hand at the same time are recorded in one transaction: there are as many as
    there are objects, and a transaction of its own for each would cost more than all else that happens to an object.

    The envelope is the one that the runtime has bound to the message in hand. `notify` says that there is something
    in the outbox; `pace` and `enough` say how events gather (see `Together`).
    """

    engine: AsyncEngine
    stores: Stores
    settle: SettleJob
    notify: Callable[[], None]
    pace: float = 0.0
    enough: int = 1
    _together: Together[tuple[Envelope, Event], None] = field(init=False)

    def __post_init__(self) -> None:
        self._together = Together(
            partial(record_objects, self.engine), MOST_AT_ONCE, pace=self.pace, enough=self.enough
        )

    async def __call__(self, event: Event) -> Outcome:
        """Take one event."""
        envelope = cause.get()
        if envelope is None:
            raise LookupError("an event is indexed with its envelope: bind it to `cause`")
        if isinstance(event, RECORDED_TOGETHER):
            await self._together((envelope, event))
            return Done()
        try:
            record = await self._stage_record(event)
            found = await Describe(self.stores)(event, record)
            async with transaction(self.engine) as connection:
                await record_event(connection, envelope, event, record, found)
                keys = job_of(event)
                job = await decide(connection, keys) if keys else None
                await append(connection, audit_record(envelope, event))
            if job and await self.settle(job):
                self.notify()
        except ObjectMissingError as error:
            return Retry(f"{error}; the event that names it came without it", "document-missing")
        except UnsupportedSeriesError as error:
            return Retry(error.reason, error.code)
        return Done()

    async def _stage_record(self, event: Event) -> StageRecord | None:
        """Read the record that an event names; none if another attempt has replaced it and that one is known.

        Two workers can do the same work at the same time, when one is slow to notice that it was given up. Then each
        writes the record and says so, and only the record that was written last is still there to be read.
        """
        if not isinstance(event, StageDone):
            return None
        try:
            return await read_document(self.stores.results, event.record, StageRecord)
        except (ObjectMissingError, UnsupportedSeriesError):
            done = select(STAGES.c.stage).filter_by(
                **job_columns(ResultKeys.of(event)), stage=stage_of(event).value, outcome=StageOutcome.DONE.value
            )
            async with reading(self.engine) as connection:
                if (await connection.execute(done)).first():
                    return None
            raise
