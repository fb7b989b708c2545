"""The runtime: every outcome of a handler becomes the right settlement, on a real transport."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta

import pytest

from voxelmill_shared import settlement
from voxelmill_shared.errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    ObjectUnreadableError,
    StoreUnavailableError,
)
from voxelmill_shared.events import (
    Envelope,
    ObjectRef,
    ObjectUploaded,
    ObjectValidated,
    Stage,
    StageFailed,
    UploadCompleted,
    cause,
    open_envelope,
)
from voxelmill_shared.outcome import Done, Reject, Retry
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.transport import base
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INDEX, INGEST
from voxelmill_shared.worker import Settled, Started, Worker

LADDER = (timedelta(milliseconds=30), timedelta(milliseconds=60))
UPLOADED = ObjectUploaded(object=ObjectRef(bucket="inbox", key="a.dcm", etag="e", size=1), found_by="command")
VALIDATED = ObjectValidated(object=UPLOADED.object, kind="dicom", series_instance_uid="1.2.3")


@pytest.fixture
async def transport(tmp_path):
    transport = EmbeddedTransport(tmp_path / "broker.db")
    yield transport
    await transport.close()


async def publish(transport, *events):
    envelopes = [Envelope.wrap(event, "test") for event in events]
    await transport.publish([base.Message(e.encode(), e.routing_key, str(e.id)) for e in envelopes])
    return envelopes


class Log:
    """An observer that can wait for a number of settlements."""

    def __init__(self):
        self.started, self.settled = [], []
        self._news = asyncio.Event()

    def __call__(self, what):
        (self.started if isinstance(what, Started) else self.settled).append(what)
        self._news.set()

    async def until(self, number):
        async with asyncio.timeout(20):
            while len(self.settled) < number:
                self._news.clear()
                await self._news.wait()
        return [what.outcome for what in self.settled]


@asynccontextmanager
async def working(transport, handlers, *, queue=INGEST, grace=5.0, prefetch=4, background=(), patient=True):
    """Run a worker of the given handlers; yield its log and its stop."""
    log, stop = Log(), asyncio.Event()
    service = Service(
        "ingest", Stage.INGEST, (Subscription(queue, handlers, prefetch=prefetch),), background=background
    )
    worker = Worker(service, transport, ladder=LADDER, grace=timedelta(seconds=grace), observers=[log], patient=patient)
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


async def test_done_publishes_the_events_of_the_handler_and_acknowledges(transport):
    """The event carries on the trace and names its cause."""

    async def handler(event):
        assert event == UPLOADED
        return Done((VALIDATED,))

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        (sent,) = await publish(transport, UPLOADED)
        assert await log.until(1) == ["done"]
    assert (await counts(transport, INGEST)).ready == 0
    (message,) = await collect(transport, INDEX, 1)
    envelope = Envelope.decode(message.body)
    assert open_envelope(envelope) == VALIDATED
    assert envelope.causationid == sent.id
    assert envelope.trace_id == sent.trace_id
    assert envelope.traceparent != sent.traceparent
    assert message.message_id == str(VALIDATED.event_id())


async def test_an_event_type_without_a_handler_is_settled_and_forgotten(transport):
    """A wildcard binding may bring events that a service has no use for."""
    async with working(transport, {ObjectUploaded: None}) as (log, _, _):
        await publish(transport, UploadCompleted(upload_id="u", objects=1))
        assert await log.until(1) == ["done"]


async def test_a_transient_error_climbs_the_ladder_and_then_becomes_a_dead_letter(transport):
    """Attempts 1, 2 and 3 on a ladder of two rungs, then the dead-letter queue with the whole history."""
    attempts = []

    async def handler(event):
        attempts.append(event)
        raise StoreUnavailableError("the store is away")

    async with working(transport, {ObjectUploaded: handler}, patient=False) as (log, _, _):
        (sent,) = await publish(transport, UPLOADED)
        assert await log.until(3) == ["retry", "retry", "exhausted"]
    assert len(attempts) == 3
    (letter,) = await letters(transport, INGEST)
    headers = letter.message.headers
    assert letter.message.body == sent.encode()
    assert headers[base.HEADER_ERROR_CLASS] == "store-unavailable"
    assert headers[base.HEADER_REASON] == "the store is away"
    assert headers[base.HEADER_TRACE_ID] == sent.trace_id
    assert headers[base.HEADER_SERVICE_VERSION]
    history = json.loads(headers[base.HEADER_HISTORY])
    assert [entry["attempt"] for entry in history] == [1, 2, 3]
    (message,) = await collect(transport, INDEX, 1)
    failed = open_envelope(Envelope.decode(message.body))
    assert isinstance(failed, StageFailed)
    assert (failed.stage, failed.attempts, failed.object_address) == (Stage.INGEST, 3, "inbox/a.dcm")
    assert failed.message_id == str(sent.id)


async def test_an_unforeseen_error_is_a_failed_attempt_too(transport):
    """A bug in a handler does not end the consumer."""
    calls = []

    async def handler(_):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug")
        return Done()

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await publish(transport, UPLOADED)
        assert await log.until(2) == ["retry", "done"]
    assert log.settled[0].reason == "ZeroDivisionError: a bug"
    assert [started.attempt for started in log.started] == [1, 2]


async def test_a_wait_for_capacity_spends_no_attempt(transport):
    """However often it waits, the attempt stays the first, and the history stays empty."""
    attempts = []

    async def handler(_):
        attempts.append(1)
        return Retry("no room", "capacity", spends_attempt=False) if len(attempts) < 5 else Done()

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await publish(transport, UPLOADED)
        assert await log.until(5) == ["waiting"] * 4 + ["done"]
    assert {settled.attempt for settled in log.settled} == {1}


@pytest.mark.parametrize("away", [StoreUnavailableError, DatabaseUnavailableError, BrokerUnavailableError])
async def test_a_wait_for_a_stopped_dependency_spends_no_attempt(transport, away):
    """A night without the store, the database or the broker is not the end of any message."""
    attempts = []

    async def handler(_):
        attempts.append(1)
        if len(attempts) < 5:
            raise away("it is stopped")
        return Done()

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await publish(transport, UPLOADED)
        assert await log.until(5) == ["waiting"] * 4 + ["done"]
    assert {settled.attempt for settled in log.settled} == {1}


async def test_an_object_that_cannot_be_read_spends_attempts(transport):
    """The store answers, so the wait could be for ever."""

    async def handler(_):
        raise ObjectUnreadableError("a.dcm: permission denied")

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await publish(transport, UPLOADED)
        assert await log.until(3) == ["retry", "retry", "exhausted"]
    (letter,) = await letters(transport, INGEST)
    assert letter.message.headers[base.HEADER_ERROR_CLASS] == "object-unreadable"


async def test_a_rejection_is_a_dead_letter_at_once(transport):
    """No rung for what can never succeed."""

    async def handler(_):
        return Reject("two slices are missing", "missing-slices")

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await publish(transport, UPLOADED)
        assert await log.until(1) == ["rejected"]
    (letter,) = await letters(transport, INGEST)
    assert letter.message.headers[base.HEADER_ERROR_CLASS] == "missing-slices"


@pytest.mark.parametrize("body", [b"\x00\xff not json", b"{}", b'{"specversion": "1.0"}'])
async def test_undecodable_bytes_are_kept_byte_for_byte(transport, body):
    """What cannot be read waits in the dead-letter queue as it came."""
    async with working(transport, {}) as (log, _, _):
        await transport.publish([base.Message(body, "object.uploaded.v1", "m")])
        assert await log.until(1) == ["rejected"]
    (letter,) = await letters(transport, INGEST)
    assert letter.message.body == body
    assert letter.message.headers[base.HEADER_ERROR_CLASS] == "undecodable"


async def test_an_unknown_type_is_undecodable(transport):
    """An event of a version that is not known here is not dropped."""
    envelope = Envelope.wrap(UPLOADED, "test").model_copy(update={"type": "org.voxelmill.object.uploaded.v9"})
    async with working(transport, {}) as (log, _, _):
        await transport.publish([base.Message(envelope.encode(), "object.uploaded.v1", "m")])
        await log.until(1)
    (letter,) = await letters(transport, INGEST)
    assert "unknown event type" in letter.message.headers[base.HEADER_REASON]


async def test_the_failure_of_a_failure_makes_no_further_failure(transport):
    """Index that cannot handle `stage.failed` must not feed itself for ever."""
    failure = StageFailed(
        stage=Stage.MESH, queue="mesh.series-segmented", error_class="x", reason="y", attempts=1, message_id="m"
    )

    async def handler(_):
        return Reject("no")

    async with working(transport, {StageFailed: handler}, queue=INDEX) as (log, _, _):
        await publish(transport, failure)
        await log.until(1)
    assert (await counts(transport, INDEX)).ready == 0
    assert len(await letters(transport, INDEX)) == 1


async def test_an_event_that_no_queue_wants_is_a_failed_attempt(tmp_path):
    """Unroutable is an error: the message is not acknowledged, its events are not dropped."""
    transport = EmbeddedTransport(tmp_path / "other.db")

    class Unwanted(ObjectValidated):
        type = "object.unwanted.v1"

    async def handler(_):
        return Done((Unwanted(**VALIDATED.model_dump()),))

    try:
        async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
            await publish(transport, UPLOADED)
            assert await log.until(3) == ["retry", "retry", "exhausted"]
        (letter,) = await letters(transport, INGEST)
        assert letter.message.headers[base.HEADER_ERROR_CLASS] == "unroutable"
    finally:
        await transport.close()


async def test_drain_finishes_what_is_in_hand(transport):
    """A stop in the middle of a message: it is done, and nothing new is taken."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def handler(_):
        inside.set()
        await go.wait()
        return Done()

    async with working(transport, {ObjectUploaded: handler}, prefetch=1) as (log, stop, task):
        await publish(transport, UPLOADED, UPLOADED.model_copy(update={"upload_id": "second"}))
        await inside.wait()
        stop.set()
        await transport.check()  # the way to the broker and back: meanwhile the worker hears of the stop
        go.set()
        await task
    assert [settled.outcome for settled in log.settled] == ["done"]
    assert (await counts(transport, INGEST)).ready == 1


async def test_drain_hands_back_what_takes_too_long(transport):
    """After the grace period the message goes back unchanged, with no attempt spent."""
    inside = asyncio.Event()

    async def forever(_):
        inside.set()
        await asyncio.Event().wait()

    async with working(transport, {ObjectUploaded: forever}, grace=0.05) as (log, stop, task):
        await publish(transport, UPLOADED)
        await inside.wait()
        stop.set()
        await task
    assert [settled.outcome for settled in log.settled] == ["released"]

    async def handler(_):
        return Done()

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        assert await log.until(1) == ["done"]
    assert log.settled[0].attempt == 1


async def test_a_background_function_that_ends_in_an_error_ends_the_worker(transport):
    """A service must not go on half alive."""

    async def broken():
        raise StoreUnavailableError("gone")

    async with working(transport, {}, background=(broken,)) as (_, _, task):
        with pytest.raises(StoreUnavailableError, match="gone"):
            await task


async def test_the_cause_is_bound_only_while_a_message_is_handled(transport):
    """Work outside a message starts a trace of its own."""
    seen = []

    async def handler(_):
        seen.append(cause.get())
        return Done()

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        (sent,) = await publish(transport, UPLOADED)
        await log.until(1)
    assert seen == [Envelope.decode(sent.encode())]
    assert cause.get() is None
    assert isinstance(log.settled[0], Settled)


# Settling, when the broker does not let us


def alter(tmp_path, *statements):
    """Change the broker's file behind its back."""
    with closing(sqlite3.connect(tmp_path / "broker.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def forbid(tmp_path, change):
    """Let the broker's file refuse a kind of change, as a full disk does, until `allow`."""
    alter(tmp_path, f"CREATE TRIGGER full BEFORE {change} ON message BEGIN SELECT RAISE(ABORT, 'disk full'); END")


def allow(tmp_path):
    alter(tmp_path, "DROP TRIGGER full")


async def test_settling_is_tried_until_it_works(transport, tmp_path, monkeypatch):
    """A disk that was full for long: the message is settled after the repair, and the service goes on."""
    monkeypatch.setattr(settlement, "LONGEST_PAUSE", 0.2)
    handled = []

    async def handler(_):
        handled.append(1)
        return Done()

    async with working(transport, {ObjectUploaded: handler}, prefetch=1) as (log, _, _):
        forbid(tmp_path, "DELETE")
        await publish(transport, UPLOADED, UPLOADED.model_copy(update={"upload_id": "second"}))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await log.until(1)
        allow(tmp_path)
        assert await log.until(2) == ["done", "done"]
    assert len(handled) == 2


async def test_a_delivery_that_was_lost_makes_room(transport, tmp_path):
    """Nothing is left to settle; the broker delivers the message again, here too."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def handler(_):
        inside.set()
        await go.wait()
        return Done()

    async with working(transport, {ObjectUploaded: handler}, prefetch=1) as (log, _, _):
        await publish(transport, UPLOADED)
        await inside.wait()
        alter(tmp_path, "UPDATE message SET state = 0, owner = NULL")
        go.set()
        assert await log.until(2) == ["unsettled", "done"]


async def test_drain_ends_the_tries_to_settle(transport, tmp_path):
    """After the grace period the message is handed back instead."""
    inside = asyncio.Event()

    async def handler(_):
        forbid(tmp_path, "DELETE")
        inside.set()
        return Done()

    async with working(transport, {ObjectUploaded: handler}, grace=0.3) as (log, stop, task):
        await publish(transport, UPLOADED)
        await inside.wait()
        stop.set()
        # What cancels the consumer may share a transaction with the settlement, and fail with it.
        with suppress(BrokerUnavailableError):
            async with asyncio.timeout(20):
                await task
    assert [settled.outcome for settled in log.settled] == ["released"]
    assert (await counts(transport, INGEST)).ready == 1


async def test_a_consumer_that_cannot_be_cancelled_does_not_stop_the_drain(transport, tmp_path):
    """What is in hand is finished, what runs beside it is cancelled, and then the error is told."""
    inside, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(_):
        inside.set()
        await go.wait()
        return Done()

    async def background():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with working(transport, {ObjectUploaded: handler}, background=(background,)) as (log, stop, task):
        await publish(transport, UPLOADED)
        await inside.wait()
        forbid(tmp_path, "UPDATE")
        # A message whose wait is over is an update that is due, so from now on nothing can be done with the file.
        alter(
            tmp_path,
            "INSERT INTO message (queue, state, due, body, routing_key, message_id, headers, content_type)"
            " SELECT queue, 1, 0.0, body, routing_key, 'late', '{}', content_type FROM message LIMIT 1",
        )
        stop.set()
        done, _ = await asyncio.wait([task], timeout=1.5)
        assert not done
        allow(tmp_path)
        go.set()
        with pytest.raises(BrokerUnavailableError, match="disk full"):
            await task
    assert [settled.outcome for settled in log.settled] == ["done"]
    assert ended.is_set()


@pytest.mark.parametrize("history", ["[1]", '["x"]', '{"attempt": 1}', "no json", "[" * 100_000, "[{}, null]"])
async def test_headers_of_a_stranger_count_as_missing(transport, history):
    """A message with headers that nobody here wrote is settled like any other."""

    async def handler(_):
        return Reject("no use")

    envelope = Envelope.wrap(UPLOADED, "test")
    headers = {base.HEADER_REPLAYS: "many", base.HEADER_ATTEMPT: "first", base.HEADER_HISTORY: history}
    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await transport.publish([base.Message(envelope.encode(), envelope.routing_key, "m", headers)])
        assert await log.until(1) == ["rejected"]
    (letter,) = await letters(transport, INGEST)
    (entry,) = json.loads(letter.message.headers[base.HEADER_HISTORY])
    assert (entry["attempt"], entry["reason"]) == (1, "no use")
    (message,) = await collect(transport, INDEX, 1)
    assert open_envelope(Envelope.decode(message.body)).replays == 0


async def test_an_answer_that_is_none_is_a_failed_attempt(transport):
    """A bug shows when the answer is used; the message must not stay in hand because of it."""

    async def handler(_):
        return None

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        await publish(transport, UPLOADED)
        assert await log.until(3) == ["retry", "retry", "exhausted"]
    (letter,) = await letters(transport, INGEST)
    assert letter.message.headers[base.HEADER_ERROR_CLASS] == "unexpected"


async def test_a_failure_that_cannot_be_told_is_kept(transport, tmp_path):
    """Nobody wants to hear of failures: the message is a dead letter all the same."""

    async def handler(_):
        return Reject("no use")

    async with working(transport, {ObjectUploaded: handler}) as (log, _, _):
        alter(tmp_path, "DELETE FROM binding WHERE queue LIKE 'index.%'")
        await publish(transport, UPLOADED)
        assert await log.until(3) == ["retry", "retry", "exhausted"]
    (letter,) = await letters(transport, INGEST)
    assert letter.message.headers[base.HEADER_ERROR_CLASS] == "unroutable"
