"""Wiring: what the index service is made of."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from voxelmill_index.audit import SETTLED_AS, STAGE_OF
from voxelmill_index.handler import IndexEvent
from voxelmill_index.progress import RecordProgress
from voxelmill_index.settling import SettleJob
from voxelmill_index.tables import OUTBOX, VERSION_TABLE
from voxelmill_shared.database import check, open_database
from voxelmill_shared.events import AccessRecorded, JobProgressed, Stage, StageFailed, StageSkipped
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.outbox import OutboxRelay
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.transport.topology import INDEX, INDEX_PROGRESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_index.settings import IndexSettings
    from voxelmill_shared.events import Event
    from voxelmill_shared.parts import Parts


PROGRESS_PREFETCH = 8
PACE_SECONDS = 0.05
"""From one transaction about objects to the next while they only trickle in, as ingest writes them down."""


def build(parts: Parts, settings: IndexSettings) -> Service:
    """Build the service from its parts."""
    engine = open_database(parts.database_url, parts.database_limits)
    relay = OutboxRelay(engine, OUTBOX, parts.transport)
    results = parts.stores.results
    handler = IndexEvent(
        engine=engine,
        stores=parts.stores,
        settle=SettleJob(engine, results, OUTBOX),
        notify=relay.notify,
        pace=PACE_SECONDS,
        enough=max(settings.index_prefetch // 2, 1),
    )
    consumed: tuple[type[Event], ...] = (*STAGE_OF, *SETTLED_AS, StageSkipped, StageFailed, AccessRecorded)
    return Service(
        name="index",
        stage=Stage.INDEX,
        subscriptions=(
            Subscription(INDEX, dict.fromkeys(consumed, handler), prefetch=settings.index_prefetch),
            Subscription(INDEX_PROGRESS, {JobProgressed: RecordProgress(engine)}, prefetch=PROGRESS_PREFETCH),
        ),
        background=(relay.run,),
        resources=(_catalog(parts.database_url, engine),),
        checks={
            "database": partial(check, engine),
            "results": results.check,
            "inbox": parts.stores.inbox.check,
            "work": parts.stores.work.check,
        },
    )


async def migrate(database_url: str) -> None:
    """Bring the catalog's tables up to date."""
    await upgrade(database_url, package="voxelmill_index.migrations", version_table=VERSION_TABLE)


@asynccontextmanager
async def _catalog(database_url: str, engine: AsyncEngine) -> AsyncIterator[None]:
    await migrate(database_url)
    try:
        yield
    finally:
        await engine.dispose()
