"""The runtime: every outcome of a handler becomes the right settlement, on a real transport."""

from __future__ import annotations

import asyncio
import json

import pytest

from unit.shared.worker_kit import UPLOADED, VALIDATED, collect, counts, letters, publish, working
from voxelmill_shared.errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    ObjectUnreadableError,
    StoreUnavailableError,
)
from voxelmill_shared.events import (
    Envelope,
    ObjectUploaded,
    ObjectValidated,
    Stage,
    StageFailed,
    UploadCompleted,
    cause,
    open_envelope,
)
from voxelmill_shared.outcome import Done, Reject, Retry
from voxelmill_shared.transport import base
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INDEX, INGEST
from voxelmill_shared.worker import Settled


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
    assert log.settled[0].reason.startswith("ZeroDivisionError in handler (test_worker.py:")
    assert "a bug" not in log.settled[0].reason  # what it says may quote a file
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
