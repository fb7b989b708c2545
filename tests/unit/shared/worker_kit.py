"""What the tests of the runtime share: a worker on a real transport, and what it is seen to do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from voxelmill_shared.events import (
    Envelope,
    ObjectRef,
    ObjectUploaded,
    ObjectValidated,
    Stage,
)
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.transport import base
from voxelmill_shared.transport.topology import INGEST
from voxelmill_shared.worker import Progressed, Started, Worker

LADDER = (timedelta(milliseconds=30), timedelta(milliseconds=60))
UPLOADED = ObjectUploaded(object=ObjectRef(bucket="inbox", key="a.dcm", etag="e", size=1), found_by="command")
VALIDATED = ObjectValidated(object=UPLOADED.object, kind="dicom", series_instance_uid="1.2.3")


async def publish(transport, *events):
    envelopes = [Envelope.wrap(event, "test") for event in events]
    await transport.publish([base.Message(e.encode(), e.routing_key, str(e.id)) for e in envelopes])
    return envelopes


class Log:
    """An observer that can wait for a number of settlements."""

    def __init__(self):
        self.started, self.progressed, self.settled = [], [], []
        self._news = asyncio.Event()

    def __call__(self, what):
        kinds = {Started: self.started, Progressed: self.progressed}
        kinds.get(type(what), self.settled).append(what)
        self._news.set()

    async def until(self, number):
        async with asyncio.timeout(20):
            while len(self.settled) < number:
                self._news.clear()
                await self._news.wait()
        return [what.outcome for what in self.settled]


@asynccontextmanager
async def working(
    transport,
    handlers,
    *,
    queue=INGEST,
    grace=5.0,
    prefetch=4,
    background=(),
    patient=True,
    progress_seconds=2.0,
    service_grace=None,
):
    """Run a worker of the given handlers; yield its log and its stop."""
    log, stop = Log(), asyncio.Event()
    service = Service(
        "ingest",
        Stage.INGEST,
        (Subscription(queue, handlers, prefetch=prefetch),),
        background=background,
        grace=service_grace,
    )
    worker = Worker(
        service,
        transport,
        ladder=LADDER,
        grace=timedelta(seconds=grace),
        observers=[log],
        patient=patient,
        progress_seconds=progress_seconds,
    )
    task = asyncio.create_task(worker.run(stop))
    ready = asyncio.create_task(worker.consuming.wait())
    await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        yield log, stop, task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def counts(transport, queue):
    return next(count for count in await transport.counts() if count.queue == queue.name)


async def letters(transport, queue):
    return [letter async for letter in transport.dead_letters(queue)]


async def collect(transport, queue, number):
    """Take `number` messages off a queue."""
    got, enough = [], asyncio.Event()

    async def callback(delivery):
        got.append(delivery.message)
        await delivery.ack()
        if len(got) >= number:
            enough.set()

    consumer = await transport.consume(queue, callback, prefetch=10)
    async with asyncio.timeout(20):
        await enough.wait()
    await consumer.cancel()
    return got
