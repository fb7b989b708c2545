"""Knowing that nothing is left to do, without guessing by time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from voxelmill_index.pending import pending as pending_in_index
from voxelmill_ingest.pending import pending as pending_in_ingest
from voxelmill_shared.database import open_database

if TYPE_CHECKING:
    from voxelmill_cli.engine import Engine
    from voxelmill_cli.progress import Tracker

POLL_SECONDS = 0.05


async def wait_until_quiet(engine: Engine, tracker: Tracker) -> None:
    """Return when no series is open, no event is unsent, no queue holds a message and no worker has one in hand.

    An event leaves its outbox only when the broker has it, and a message leaves its queue only when the events that it
    causes are sent. So if outboxes and queues were seen empty, one after the other, and no worker has moved meanwhile,
    nothing is under way.
    """
    database = open_database(engine.parts.database_url)

    async def queued() -> int:
        counts = await engine.parts.transport.counts()
        return sum(count.ready + count.in_hand + count.waiting for count in counts)

    try:
        while True:
            engine.check()
            before = tracker.activity
            await asyncio.sleep(POLL_SECONDS)
            if tracker.activity != before or await queued():
                continue
            left = await pending_in_ingest(database) + await queued() + await pending_in_index(database)
            left += await queued() + await pending_in_ingest(database)
            if left == 0 and tracker.activity == before:
                return
    finally:
        await database.dispose()
