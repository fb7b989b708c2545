"""What index still has to send, for those who wait until nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from voxelmill_index.tables import OUTBOX
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def pending(engine: AsyncEngine) -> int:
    """Count the events that are not published yet."""
    async with reading(engine) as connection:
        return int((await connection.execute(select(func.count()).select_from(OUTBOX))).scalar_one())
