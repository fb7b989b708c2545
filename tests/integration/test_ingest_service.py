"""The wired service on its transport: all real files in one go, a restart, and the audit of what was published."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.service import build
from voxelmill_ingest.settings import IngestSettings
from voxelmill_ingest.tables import outbox
from voxelmill_shared.child import Limits
from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.events import (
    Envelope,
    JobRequested,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    ObjectValidated,
    SeriesValidated,
    Severity,
    UploadCompleted,
    open_envelope,
)
from voxelmill_shared.outbox import add
from voxelmill_shared.parts import Parts, Scratch
from voxelmill_shared.plan import Organ, Plan
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INDEX, TOPOLOGY
from voxelmill_shared.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from voxelmill_shared.events import Event
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.transport.base import Delivery, Transport

DEADLINE = 60.0
EventT = TypeVar("EventT")


def parts_of(tmp_path: Path, transport: Transport, inbox: Path) -> Parts:
    stores = Stores(
        LocalStore(inbox, "inbox"), LocalStore(tmp_path / "work", "work"), LocalStore(tmp_path / "results", "results")
    )
    return Parts(
        transport, stores, f"sqlite:///{tmp_path}/ledger.db", Scratch(tmp_path / "scratch"), Limits(2 << 30, 60)
    )


async def publish(transport: Transport, *events: Event) -> None:
    envelopes = [Envelope.wrap(event, "test") for event in events]
    await transport.publish([Message(one.encode(), one.routing_key, str(one.id)) for one in envelopes])


class Heard:
    """What index would hear."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.events.append(open_envelope(Envelope.decode(delivery.message.body)))
        await delivery.ack()

    def of(self, kind: type[EventT]) -> list[EventT]:
        return [event for event in self.events if isinstance(event, kind)]


async def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(parts: Parts, settings: IngestSettings) -> AsyncIterator[None]:
    """Run ingest, and drain it at the end."""
    stop = asyncio.Event()
    worker = Worker(build(parts, settings), parts.transport, ladder=[timedelta(seconds=1)])
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def listening(transport: Transport) -> AsyncIterator[Heard]:
    """Take what ingest publishes, as index does; close the transport at the end."""
    await transport.declare(TOPOLOGY)
    heard = Heard()
    consumer = await transport.consume(INDEX, heard, prefetch=100)
    try:
        yield heard
    finally:
        await consumer.cancel()
        await transport.close()


async def references_in(store: ObjectStore, prefix: str = "") -> list[ObjectRef]:
    return [
        ObjectRef(bucket="inbox", key=stat.key, etag=stat.etag, size=stat.size) async for stat in store.list(prefix)
    ]


async def test_every_real_file_is_validated_skipped_or_rejected_with_a_reason(data: Path, tmp_path: Path) -> None:
    transport = open_transport(f"embedded:{tmp_path}/broker.db")
    parts = parts_of(tmp_path, transport, data)
    settings = IngestSettings(scratch=tmp_path / "scratch", upload_seconds=300)
    references = await references_in(parts.stores.inbox)
    async with listening(transport) as heard, running(parts, settings):
        await publish(
            transport,
            UploadCompleted(upload_id="all", objects=len(references)),
            *(ObjectUploaded(object=one, found_by="command", upload_id="all") for one in references),
        )

        def settled() -> bool:
            return len(heard.of(ObjectValidated)) + len(heard.of(ObjectRejected)) >= len(references)

        await until(settled, "not every object was settled")
        series = {event.series_instance_uid for event in heard.of(ObjectValidated)}
        await until(lambda: len(heard.of(SeriesValidated)) >= len(series), "not every series was completed")
    # By their ids: what the relay had published and not yet removed when it was stopped goes out once more.
    reasons = Counter({event.event_id(): event.reason for event in heard.of(ObjectRejected)}.values())
    assert set(reasons) <= {reason.value for reason in Reason}
    assert all(event.detail for event in heard.of(ObjectRejected))
    assert reasons["truncated"] == 1
    assert {event.evidence for event in heard.of(SeriesValidated)} == {"upload"}
    sizes = Counter({event.event_id(): event.instances for event in heard.of(SeriesValidated)}.values())
    assert sizes[138] == sizes[58] == sizes[28] == 1


async def test_a_service_that_was_stopped_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    transport = open_transport(f"embedded:{tmp_path}/broker.db")
    parts = parts_of(tmp_path, transport, data)
    references = await references_in(parts.stores.inbox, "geometry/gap_ge_4slices/")
    patient = IngestSettings(scratch=tmp_path / "scratch", geometry_seconds=600, quiet_seconds=600)
    hasty = IngestSettings(scratch=tmp_path / "scratch", geometry_seconds=0.01, quiet_seconds=0.02)
    async with listening(transport) as heard:
        async with running(parts, patient):
            await publish(transport, *(ObjectUploaded(object=one, found_by="notification") for one in references[:3]))
            await until(lambda: len(heard.of(ObjectValidated)) == 3, "objects were not settled")
        assert heard.of(SeriesValidated) == []
        async with running(parts, hasty):
            await publish(transport, *(ObjectUploaded(object=one, found_by="notification") for one in references[3:]))
            await until(lambda: heard.of(SeriesValidated), "the series was not completed")
    # By their ids: what a relay had published and not yet removed when it was stopped goes out once more.
    series = {event.event_id(): event.instances for event in heard.of(SeriesValidated)}
    assert [*series.values()] == [4]


async def test_a_job_is_asked_for_over_the_broker(data: Path, tmp_path: Path) -> None:
    """The request and the upload's objects in one queue; the series comes out under both plans."""
    transport = open_transport(f"embedded:{tmp_path}/broker.db")
    parts = parts_of(tmp_path, transport, data)
    references = await references_in(parts.stores.inbox, "geometry/gap_ge_4slices/")
    wish = Plan(organ=Organ.LUNGS)
    request = JobRequested(upload_id="u", plan=wish, who="ann@here", project="default")
    async with listening(transport) as heard, running(parts, IngestSettings(scratch=tmp_path / "scratch")):
        await publish(
            transport,
            request,
            *(ObjectUploaded(object=one, found_by="gateway", upload_id="u") for one in references),
            UploadCompleted(upload_id="u", objects=len(references)),
        )
        await until(lambda: len({one.job_id for one in heard.of(SeriesValidated)}) == 2, "not both jobs were made")
    plans = {event.job_id: event.plan for event in heard.of(SeriesValidated)}
    assert sorted(plan.organ for plan in plans.values()) == [Organ.ALL, Organ.LUNGS]


async def test_what_is_in_the_outbox_goes_out_before_the_service_ends(tmp_path: Path) -> None:
    """What was stored in the last moment does not wait for the next start."""
    transport = open_transport(f"embedded:{tmp_path}/broker.db")
    parts = parts_of(tmp_path, transport, tmp_path / "inbox")
    reference = ObjectRef(bucket="inbox", key="a", etag="0" * 32, size=1)
    rejected = ObjectRejected(object=reference, severity=Severity.REJECT, reason="not-dicom", detail="x")
    engine = open_database(parts.database_url)
    async with listening(transport) as heard:
        async with AsyncExitStack() as stack:
            for resource in build(parts, IngestSettings(scratch=tmp_path / "scratch")).resources:
                await stack.enter_async_context(resource)
            async with transaction(engine) as connection:
                await add(connection, outbox, [Envelope.wrap(rejected, "test")])
        await until(lambda: heard.of(ObjectRejected), "the event was not published")
    await engine.dispose()
