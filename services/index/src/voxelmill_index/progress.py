"""How far stages are: the newest that each of them has said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from voxelmill_index.upserts import put_newest
from voxelmill_shared.catalog.tables import PROGRESS
from voxelmill_shared.database import transaction
from voxelmill_shared.events import cause
from voxelmill_shared.outcome import Done, Outcome

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.events import JobProgressed

_SAID = ("series_instance_uid", "revision", "job_id", "stage", "attempt", "step", "done", "total", "percent")


@dataclass(frozen=True, slots=True)
class RecordProgress:
    """Keep the newest progress of each stage of each job. Progress is not audited: it is no fact that lasts."""

    engine: AsyncEngine

    async def __call__(self, event: JobProgressed) -> Outcome:
        """Take one event."""
        envelope = cause.get()
        if envelope is None:
            raise LookupError("progress is recorded with its envelope: bind it to `cause`")
        row = event.model_dump(mode="json", include=set(_SAID))
        row |= {"event_time": envelope.time, "event_id": str(envelope.id), "recorded": datetime.now(UTC)}
        async with transaction(self.engine) as connection:
            await put_newest(connection, PROGRESS, row)
        return Done()
