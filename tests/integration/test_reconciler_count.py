"""What only the reconciler found is counted; what a notification told of too is not."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from integration.ingest_kit import Clock, Ingest
from voxelmill_ingest.duties import Duty
from voxelmill_ingest.reconciler import CountFound, Reconciler
from voxelmill_shared.events import ObjectUploaded
from voxelmill_shared.metrics import REGISTRY
from voxelmill_shared.outcome import Done


def counted():
    return REGISTRY.get_sample_value("voxelmill_objects_found_by_reconciler_total")


@pytest.fixture
async def ingest(tmp_path):
    """One replica of ingest."""
    ingest = await Ingest(tmp_path, f"sqlite:///{tmp_path}/ledger.db", Clock()).open()
    yield ingest
    await ingest.close()


async def settle(ingest, reference, found_by):
    handle = CountFound(ingest.engine, ingest.ingest_object)
    assert await handle(ObjectUploaded(object=reference, found_by=found_by)) == Done()


async def test_an_object_that_the_ledger_did_not_know_is_counted_once(ingest):
    """Announced again by a later pass, it is known."""
    before = counted()
    reference = await ingest.put("a.dcm", b"no image")
    await settle(ingest, reference, "reconciler")
    await settle(ingest, reference, "reconciler")
    assert counted() - before == 1


async def test_an_object_whose_notification_was_only_late_is_not_counted(ingest):
    """Ingest was far behind: the notification stood in the queue in front of the reconciler's announcement."""
    before = counted()
    reference = await ingest.put("a.dcm", b"no image")
    await settle(ingest, reference, "notification")
    await settle(ingest, reference, "reconciler")
    assert counted() == before


async def test_new_content_under_a_known_key_is_counted(ingest):
    """Its notification was lost too."""
    await settle(ingest, await ingest.put("a.dcm", b"no image"), "notification")
    before = counted()
    await settle(ingest, await ingest.put("a.dcm", b"no image either"), "reconciler")
    assert counted() - before == 1


async def test_an_object_that_is_gone_was_not_found(ingest):
    """Deleted between the listing and its turn: nothing of it came into the ledger."""
    before = counted()
    reference = await ingest.put("a.dcm", b"no image")
    await ingest.stores.inbox.delete("a.dcm")
    await settle(ingest, reference, "reconciler")
    assert counted() == before


async def test_of_two_replicas_one_lists_and_tells_of_its_last_pass(ingest):
    """The other waits; what the metrics say is the listing that was made."""
    for key in ("a.dcm", "b.dcm"):
        await ingest.put(key, b"x")

    class Listed(Reconciler):
        passes = 0

        async def once(self, *, announce=True):
            type(self).passes += 1
            self.own = True
            return await super().once(announce=announce)

    replicas = [
        Listed(
            ingest.engine,
            ingest.stores.inbox,
            ingest.transport,
            name,
            timedelta(seconds=0.05),
            grace=timedelta(0),
            duty=Duty(ingest.engine, "reconcile", name, timedelta(seconds=3)),
        )
        for name in ("one", "other")
    ]
    began = time.time()
    tasks = [asyncio.create_task(replica.run()) for replica in replicas]
    deadline = time.monotonic() + 20
    while Listed.passes < 3:
        assert time.monotonic() < deadline, "nobody lists"
        await asyncio.sleep(0.02)
    assert [hasattr(replica, "own") for replica in replicas].count(True) == 1
    assert REGISTRY.get_sample_value("voxelmill_reconciler_last_pass_objects") == 2
    assert REGISTRY.get_sample_value("voxelmill_reconciler_last_pass_timestamp_seconds") >= began
    assert REGISTRY.get_sample_value("voxelmill_reconciler_interval_seconds") == 0.05
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
