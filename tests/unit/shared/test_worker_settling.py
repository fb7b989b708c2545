"""Settling when the broker does not let the runtime: nothing is lost, and nothing is kept in hand for ever."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing, suppress

import pytest

from unit.shared.worker_kit import UPLOADED, collect, counts, letters, publish, working
from voxelmill_shared import settlement
from voxelmill_shared.errors import (
    BrokerUnavailableError,
)
from voxelmill_shared.events import (
    Envelope,
    ObjectUploaded,
    open_envelope,
)
from voxelmill_shared.outcome import Done, Reject
from voxelmill_shared.transport import base
from voxelmill_shared.transport.topology import INDEX, INGEST

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
