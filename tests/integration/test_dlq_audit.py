"""What an operator does with dead letters is on record: from the order to index's audit trail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from integration.test_index_service import running, trail
from voxelmill_shared import dead_letters
from voxelmill_shared.database import open_database
from voxelmill_shared.dead_letters import Order
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.transport.base import HEADER_ERROR_CLASS, Message
from voxelmill_shared.transport.topology import INGEST

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.transport.base import Delivery


async def test_replays_and_drops_are_in_the_audit_trail(tmp_path: Path) -> None:
    """Who, what, on which object, why it had died, and in the trace and because of the message that it was."""
    engine = open_database(f"sqlite:///{tmp_path}/catalog.db")
    async with running(tmp_path, engine) as (transport, _):
        reference = ObjectRef(bucket="inbox", key="a.dcm", etag="e", size=1)
        uploaded = Envelope.wrap(ObjectUploaded(object=reference, found_by="command"), "test")
        died = asyncio.Event()

        async def bury(delivery: Delivery) -> None:
            await delivery.dead_letter({HEADER_ERROR_CLASS: "killed"})
            died.set()

        consumer = await transport.consume(INGEST, bury, prefetch=1)
        await transport.publish([Message(uploaded.encode(), uploaded.routing_key, str(uploaded.id))])
        for settle in (dead_letters.replay, dead_letters.drop):  # what is replayed dies again
            await asyncio.wait_for(died.wait(), 20)
            died.clear()
            letters = await dead_letters.look(transport)
            assert (await settle(transport, letters, Order("someone@somewhere"))).done == 1
        await consumer.cancel()
        replayed, dropped = await trail(engine, lambda rows: len(rows) == 2)
        assert [(row.what, row.outcome) for row in (replayed, dropped)] == [
            ("dead-letter.replayed.v1", "replayed"),
            ("dead-letter.dropped.v1", "dropped"),
        ]
        for row in (replayed, dropped):
            assert (row.who, row.reason) == ("someone@somewhere", "killed")
            assert row.object_address
            assert (row.trace_id, row.caused_by) == (uploaded.trace_id, str(uploaded.id))
    await engine.dispose()
