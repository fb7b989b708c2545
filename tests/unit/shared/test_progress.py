"""Progress of the work in hand: seen at once by whoever watches here, published now and then, never in the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from unit.shared.worker_kit import collect, counts, publish, working
from voxelmill_shared.errors import BrokerUnavailableError, NotEquippedError, UnroutableError
from voxelmill_shared.events import (
    DocumentRef,
    Envelope,
    Evidence,
    JobProgressed,
    SeriesValidated,
    Stage,
    open_envelope,
)
from voxelmill_shared.outcome import Done
from voxelmill_shared.plan import Plan
from voxelmill_shared.progress import ProgressFeed, current
from voxelmill_shared.transport.topology import INDEX, INDEX_PROGRESS, SEGMENT, THUMBNAIL, QueueSpec, Topology
from voxelmill_shared.work import Progress

WATCH = QueueSpec("watch.progress", ("job.progressed.v1",))
SERIES = SeriesValidated(
    study_instance_uid="1.2",
    series_instance_uid="1.2.3",
    revision=2,
    job_id="job",
    modality="CT",
    instances=1,
    manifest=DocumentRef(key="manifest.json", sha256="0" * 64),
    plan=Plan(),
    evidence=Evidence.UPLOAD,
)


async def tiles(_):
    """Work of 100 tiles, in one go: far quicker than the events may follow each other."""
    report = current()
    report("read")
    await asyncio.sleep(0)
    for number in range(1, 101):
        report(Progress("predict", number, 100))
        await asyncio.sleep(0)
    return Done()


async def published(transport, number):
    return [open_envelope(Envelope.decode(message.body)) for message in await collect(transport, WATCH, number)]


async def test_whoever_asks_hears_the_first_and_the_last_part(transport):
    """Of a hundred parts within one interval two are published: that it has begun, and how far it came at the end."""
    await transport.declare(Topology((WATCH,)))
    async with working(transport, {SeriesValidated: tiles}, queue=SEGMENT, progress_seconds=30) as (log, _, _):
        (sent,) = await publish(transport, SERIES)
        assert await log.until(1) == ["done"]
        first, last = await published(transport, 2)
    assert (first.step, first.total, first.percent) == ("read", 0, None)
    assert (last.step, last.done, last.total, last.percent) == ("predict", 100, 100, 100)
    assert (last.stage, last.attempt) == (Stage.INGEST, 1)
    assert (last.series_instance_uid, last.revision, last.job_id) == ("1.2.3", 2, "job")
    assert (await counts(transport, SEGMENT)).ready == 0
    assert [seen.event.done for seen in log.progressed] == [0, *range(1, 101)]
    assert sent.id


async def test_progress_continues_the_trace_of_its_message(transport):
    """A watcher can tell which message it belongs to."""
    await transport.declare(Topology((WATCH,)))
    async with working(transport, {SeriesValidated: tiles}, queue=SEGMENT) as (log, _, _):
        (sent,) = await publish(transport, SERIES)
        await log.until(1)
        message = (await collect(transport, WATCH, 1))[0]
    envelope = Envelope.decode(message.body)
    assert (envelope.causationid, envelope.trace_id, envelope.correlationid) == (sent.id, sent.trace_id, "job")


async def test_parts_are_published_while_the_work_goes_on(transport):
    """Each interval has its newest part; nothing waits for the end."""
    await transport.declare(Topology((WATCH,)))
    heard = asyncio.Event()

    async def patient(_):
        report = current()
        number = 0
        while not heard.is_set():
            number += 1
            report(Progress("predict", number, 10**9))
            await asyncio.sleep(0.001)
        return Done()

    async with working(transport, {SeriesValidated: patient}, queue=SEGMENT, progress_seconds=0.01) as (log, _, _):
        await publish(transport, SERIES)
        parts = await published(transport, 4)
        assert log.settled == []
        heard.set()
        assert await log.until(1) == ["done"]
    done = [part.done for part in parts]
    assert done == sorted(set(done))


async def test_nobody_need_listen(transport):
    """What index does not take waits for it, and the work does not hear of it."""
    async with working(transport, {SeriesValidated: tiles}, queue=SEGMENT, progress_seconds=0.001) as (log, _, _):
        await publish(transport, SERIES)
        assert await log.until(1) == ["done"]
    left = {count.queue: count.ready for count in await transport.counts() if count.ready}
    assert left.pop(INDEX_PROGRESS.name) >= 1
    assert left == {THUMBNAIL.name: 1, INDEX.name: 1}  # the series itself, for those who are not running here


async def test_outside_of_a_worker_it_goes_nowhere():
    """A handler can be called by itself."""
    assert await tiles(SERIES) == Done()


class Away:
    """A broker that is away, that has no queue for it, or that does not answer."""

    def __init__(self, *, answers=True, error=BrokerUnavailableError):
        self.answers = answers
        self.error = error
        self.asked = 0

    async def publish(self, _):
        self.asked += 1
        if not self.answers:
            await asyncio.Event().wait()
        raise self.error("away")


@pytest.mark.parametrize(
    "broker", [Away(), Away(error=UnroutableError), Away(answers=False)], ids=["away", "no-queue", "dumb"]
)
async def test_a_broker_that_is_away_does_not_hold_up_the_work(broker):
    """What cannot be told is lost; the work goes on, and at the end nothing is left behind."""
    seen = []
    feed = ProgressFeed(broker, Stage.SEGMENT, "test", seconds=0.001, watch=seen.append)
    with feed.of(SERIES, 1):
        async with asyncio.timeout(5):
            assert await tiles(SERIES) == Done()
    await asyncio.sleep(0)
    await feed.close()
    assert broker.asked
    assert len(seen) == 101
    assert len(asyncio.all_tasks()) == 1


async def test_a_count_beyond_its_total_is_the_total():
    """Whoever counts wrongly does no harm."""
    seen: list[JobProgressed] = []
    feed = ProgressFeed(Away(), Stage.SEGMENT, "test", seconds=1, watch=seen.append)
    with feed.of(SERIES, 3):
        current()(Progress("predict", 7, 5))
    await feed.close()
    assert (seen[0].done, seen[0].percent, seen[0].attempt) == (5, 100, 3)


async def test_a_worker_that_lacks_something_waits_without_spending_an_attempt(transport):
    """No library, no weights: another worker has them, or this one gets them. The message is none the worse."""
    calls = []

    async def handler(_):
        calls.append(1)
        if len(calls) < 5:
            raise NotEquippedError("weights are missing: run voxelmill weights import")
        return Done()

    async with working(transport, {SeriesValidated: handler}, queue=SEGMENT) as (log, _, _):
        await publish(transport, SERIES)
        assert await log.until(5) == ["waiting"] * 4 + ["done"]
    assert {settled.attempt for settled in log.settled} == {1}
    assert log.settled[0].reason == "weights are missing: run voxelmill weights import"


async def test_a_service_without_time_hands_back_at_once(transport):
    """Whatever the settings' grace is: a machine that is taken away does not wait for the work in hand."""
    began = asyncio.Event()

    async def endless(_):
        began.set()
        await asyncio.Event().wait()

    async with working(
        transport, {SeriesValidated: endless}, queue=SEGMENT, grace=3600, service_grace=timedelta(0)
    ) as (log, stop, task):
        await publish(transport, SERIES)
        async with asyncio.timeout(10):
            await began.wait()
            stop.set()
            await task
        assert [settled.outcome for settled in log.settled] == ["released"]
    assert (await counts(transport, SEGMENT)).ready == 1
