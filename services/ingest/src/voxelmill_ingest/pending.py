"""What ingest still has to do, for those who wait until nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from voxelmill_ingest.tables import outbox, series
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def pending(engine: AsyncEngine) -> int:
    """Count the series whose timer runs and the events that are not published yet."""
    open_series = select(func.count()).select_from(series).where(series.c.due_at.is_not(None)).scalar_subquery()
    unsent = select(func.count()).select_from(outbox).scalar_subquery()
    async with reading(engine) as connection:
        return int((await connection.execute(select(open_series + unsent))).scalar_one())
