"""Dead letters for people: found, counted, replayed at a pace and dropped, each with an event that says who did it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared import dead_letters
from voxelmill_shared.dead_letters import (
    AmbiguousHandleError,
    Letter,
    NoSuchLetterError,
    Order,
    Progress,
    Selection,
)
from voxelmill_shared.errors import UnroutableError
from voxelmill_shared.events import (
    DeadLetterDropped,
    DeadLetterReplayed,
    DocumentRef,
    Envelope,
    Event,
    Evidence,
    ObjectRef,
    ObjectUploaded,
    SeriesValidated,
    open_envelope,
)
from voxelmill_shared.plan import Plan
from voxelmill_shared.transport.base import (
    HEADER_ATTEMPT,
    HEADER_DEAD_AT,
    HEADER_ERROR_CLASS,
    HEADER_REASON,
    HEADER_REPLAYS,
    HEADER_TRACE_ID,
    DeadLetter,
    Message,
)
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INDEX, INGEST, SEGMENT, THUMBNAIL, TOPOLOGY, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_shared.transport.base import Delivery, Transport
    from voxelmill_shared.transport.topology import QueueSpec

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UPLOADED = ObjectUploaded(object=ObjectRef(bucket="inbox", key="a.dcm", etag="e", size=1), found_by="command")
ORDER = Order("me@here", rate=0)


def validated(series: str) -> SeriesValidated:
    return SeriesValidated(
        study_instance_uid="1.2",
        series_instance_uid=series,
        revision=1,
        job_id="j",
        modality="CT",
        instances=1,
        manifest=DocumentRef(key="k", sha256="0" * 64),
        plan=Plan(),
        evidence=Evidence.QUIET,
    )


def message(event: Event, **headers: str | int) -> Message:
    envelope = Envelope.wrap(event, "test")
    return Message(envelope.encode(), envelope.routing_key, str(envelope.id), headers)


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[Transport]:
    """An embedded broker with every queue of ours."""
    opened = EmbeddedTransport(tmp_path / "broker.db")
    await opened.declare(TOPOLOGY)
    yield opened
    await opened.close()


async def bury(
    transport: Transport, queue: QueueSpec, *messages: Message, error: str = "rejected", dead_at: datetime = NOW
) -> None:
    """Publish messages and bury them in one queue; the other queues that want them lose them."""
    await transport.publish(messages)
    left, done = len(messages), asyncio.Event()

    async def callback(delivery: Delivery) -> None:
        nonlocal left
        headers = {HEADER_ERROR_CLASS: error, HEADER_REASON: "no use", HEADER_DEAD_AT: dead_at.isoformat()}
        await delivery.dead_letter(headers)
        left -= 1
        if not left:
            done.set()

    consumer = await transport.consume(queue, callback, prefetch=100)
    async with asyncio.timeout(20):
        await done.wait()
    await consumer.cancel()
    others = [other for other in TOPOLOGY.queues if other.name != queue.name]
    for other in others:
        await take(transport, other)


async def take(transport: Transport, queue: QueueSpec) -> list[Message]:
    """Take all that is ready in a queue."""
    found: list[Message] = []

    async def callback(delivery: Delivery) -> None:
        found.append(delivery.message)
        await delivery.ack()

    (ready,) = [count.ready for count in await transport.counts() if count.queue == queue.name]
    if ready:
        consumer = await transport.consume(queue, callback, prefetch=100)
        async with asyncio.timeout(20):
            while len(found) < ready:  # noqa: ASYNC110 - as many as there were
                await asyncio.sleep(0.005)
        await consumer.cancel()
    return found


async def notices(transport: Transport) -> list[tuple[Envelope, Event]]:
    """Take what index has been told."""
    envelopes = [Envelope.decode(taken.body) for taken in await take(transport, INDEX)]
    return [(envelope, open_envelope(envelope)) for envelope in envelopes]


async def test_a_letter_tells_of_itself(transport: Transport) -> None:
    """Queue, service, why, when, how often; the event's object or series, and its trace."""
    uploaded = message(UPLOADED, **{HEADER_ATTEMPT: 5, HEADER_REPLAYS: 2, HEADER_TRACE_ID: "t" * 32})
    await bury(transport, INGEST, uploaded, error="object-unreadable")
    (letter,) = await dead_letters.look(transport)
    assert (letter.queue, letter.service, letter.about) == (INGEST.name, "ingest", "inbox/a.dcm")
    assert (letter.error_class, letter.reason, letter.dead_at) == ("object-unreadable", "no use", NOW)
    assert (letter.attempts, letter.replays, letter.size) == (5, 2, len(uploaded.body))
    assert (letter.message_type, letter.message_id, letter.trace_id) == (
        "object.uploaded.v1", uploaded.message_id, "t" * 32,
    )  # fmt: skip
    await bury(transport, SEGMENT, message(validated("1.2.3")))
    (letter,) = await dead_letters.look(transport, Selection(services=frozenset({"segment"})))
    assert (letter.about, letter.study_instance_uid, letter.job_id) == ("1.2.3", "1.2", "j")


@pytest.mark.parametrize("body", [b"", b"\x00\xff\x1b[2J", b"{}", b'{"specversion": "1.0"}', b"[" * 100_000])
async def test_a_body_that_is_no_event(body: bytes) -> None:
    """It is a letter like any other, of which less is known."""
    letter = dead_letters.read_letter(DeadLetter("h", INGEST.name, Message(body, "any", "id"), None))
    assert (letter.message_type, letter.about, letter.size, letter.envelope) == ("", "", len(body), None)
    assert (letter.error_class, letter.message_id) == (dead_letters.UNKNOWN, "id")


async def test_an_event_of_a_later_version() -> None:
    """Its envelope can be read, its data cannot."""
    body = Envelope.wrap(UPLOADED, "test").model_copy(update={"type": "org.voxelmill.object.uploaded.v9"}).encode()
    letter = dead_letters.read_letter(DeadLetter("h", INGEST.name, Message(body, "any", "id"), None))
    assert (letter.message_type, letter.about) == ("object.uploaded.v9", "")
    assert letter.envelope is not None


@pytest.fixture
async def four(transport: Transport) -> Transport:
    """Four letters: of two services, two classes, three series, and two ages."""
    await bury(transport, SEGMENT, message(validated("1.1")), error="killed", dead_at=NOW - timedelta(days=2))
    await bury(transport, SEGMENT, message(validated("1.2")), error="store-unavailable")
    await bury(transport, THUMBNAIL, message(validated("1.2")), message(validated("1.3")), error="killed")
    return transport


@pytest.mark.parametrize(
    ("selection", "series"),
    [
        (Selection(), ["1.2", "1.3", "1.1", "1.2"]),
        (Selection(services=frozenset({"segment"})), ["1.1", "1.2"]),
        (Selection(error_classes=frozenset({"killed"})), ["1.2", "1.3", "1.1"]),
        (Selection(series=frozenset({"1.2"})), ["1.2", "1.2"]),
        (Selection(since=NOW), ["1.2", "1.3", "1.2"]),
        (Selection(services=frozenset({"segment"}), error_classes=frozenset({"killed"}), since=NOW), []),
    ],
)
async def test_letters_are_chosen(four: Transport, selection: Selection, series: list[str]) -> None:
    """By service, error class, series and age, and by all of it together."""
    assert [letter.series_instance_uid for letter in await dead_letters.look(four, selection)] == series


async def test_a_letter_that_does_not_say_when_it_died_is_never_too_old(four: Transport) -> None:
    """Else nobody would find it."""
    letter = (await dead_letters.look(four))[0]
    assert Selection(since=NOW).takes(replace(letter, dead_at=None))


async def test_counts_by_queue_and_class(four: Transport) -> None:
    """How many, since when, and why."""
    thumbnail, segment = dead_letters.summarise(await dead_letters.look(four))
    assert (thumbnail.queue, thumbnail.count, thumbnail.by_error_class) == (THUMBNAIL.name, 2, {"killed": 2})
    assert (segment.oldest, segment.by_error_class) == (NOW - timedelta(days=2), {"killed": 1, "store-unavailable": 1})


def letter_named(handle: str) -> Letter:
    return dead_letters.read_letter(DeadLetter(handle, INGEST.name, Message(b"", "k", "m"), None))


def test_the_beginning_of_a_handle_is_enough() -> None:
    """If it is one letter's alone; a whole handle is always enough."""
    letters = [letter_named(handle) for handle in ("1", "12", "ab3", "ab4")]
    assert [dead_letters.pick(letters, typed).handle for typed in ("1", "12", "ab3")] == ["1", "12", "ab3"]
    assert dead_letters.pick(letters[1:], "1").handle == "12"
    with pytest.raises(AmbiguousHandleError, match="2 dead letters"):
        dead_letters.pick(letters, "ab")
    for typed in ("x", ""):
        with pytest.raises(NoSuchLetterError):
            dead_letters.pick(letters, typed)


async def test_a_whole_letter_can_be_fetched(four: Transport) -> None:
    """With its body, as long as it is there."""
    first, second, *_ = await dead_letters.look(four)
    dead = await dead_letters.fetch(four, first)
    assert dead is not None
    assert dead_letters.read_body(dead.message.body)[1] == validated("1.2")
    await dead_letters.drop(four, [second], ORDER)
    assert await dead_letters.fetch(four, second) is None


async def test_a_replay_puts_back_and_tells(four: Transport) -> None:
    """The chosen ones are on their queues as attempt 1; index is told which letters they were, and who did it."""
    chosen = await dead_letters.look(four, Selection(series=frozenset({"1.2"})))
    done = await dead_letters.replay(four, chosen, ORDER)
    assert done == Progress(total=2, done=2, gone=0)
    assert [letter.series_instance_uid for letter in await dead_letters.look(four)] == ["1.3", "1.1"]
    told = await notices(four)
    assert {(type(event), event.queue, event.handle, event.who) for _, event in told} == {  # type: ignore[attr-defined]
        (DeadLetterReplayed, letter.queue, letter.handle, "me@here") for letter in chosen
    }
    for envelope, event in told:
        assert isinstance(event, DeadLetterReplayed)
        (letter,) = [letter for letter in chosen if letter.handle == event.handle]
        assert letter.envelope is not None
        assert (envelope.trace_id, envelope.causationid) == (letter.envelope.trace_id, letter.envelope.id)
        assert (event.stage, event.error_class, event.series_instance_uid) == (
            letter.service,
            letter.error_class,
            "1.2",
        )
        assert "me@here" in envelope.source
    for queue in (THUMBNAIL, SEGMENT):
        (back,) = await take(four, queue)
        assert (back.headers[HEADER_ATTEMPT], back.headers[HEADER_REPLAYS]) == (1, 1)


async def test_a_drop_tells_too(four: Transport) -> None:
    """What is gone is on record."""
    letters = await dead_letters.look(four)
    assert (await dead_letters.drop(four, letters[:1], ORDER)).done == 1
    assert len(await dead_letters.look(four)) == 3
    ((_, event),) = await notices(four)
    assert isinstance(event, DeadLetterDropped)
    assert (event.handle, event.series_instance_uid) == (letters[0].handle, "1.2")
    assert await take(four, THUMBNAIL) == []


async def test_what_is_asked_twice_is_told_once(four: Transport) -> None:
    """A letter that somebody else has settled meanwhile is counted as gone, and nothing is told of it."""
    letters = await dead_letters.look(four)
    await dead_letters.replay(four, letters, ORDER)
    assert len(await notices(four)) == 4
    assert await dead_letters.drop(four, letters, ORDER) == Progress(total=4, done=0, gone=4)
    assert await notices(four) == []


async def test_no_letter_goes_without_a_record(tmp_path: Path) -> None:
    """Where index does not take such events yet, it is an error and everything stays."""
    transport = EmbeddedTransport(tmp_path / "older.db")
    await transport.declare(Topology((INGEST,)))
    await transport.publish([message(UPLOADED)])
    buried = asyncio.Event()

    async def callback(delivery: Delivery) -> None:
        await delivery.dead_letter({})
        buried.set()

    consumer = await transport.consume(INGEST, callback, prefetch=1)
    await asyncio.wait_for(buried.wait(), 20)
    await consumer.cancel()
    letters = await dead_letters.look(transport)
    for settle in (dead_letters.replay, dead_letters.drop):
        with pytest.raises(UnroutableError):
            await settle(transport, letters, ORDER)
    assert len(await dead_letters.look(transport)) == 1
    await transport.close()


async def test_a_replay_keeps_its_pace(transport: Transport) -> None:
    """Thirty letters at a hundred a second take not less than the time of all but the last batch."""
    await bury(transport, INGEST, *(message(UPLOADED) for _ in range(30)))
    letters = await dead_letters.look(transport)
    seen: list[int] = []
    started = time.monotonic()
    done = await dead_letters.replay(
        transport, letters, Order("me@here", 100, lambda progress: seen.append(progress.done))
    )
    assert time.monotonic() - started >= 0.19
    assert (done.done, seen) == (30, [0, 20, 30])


async def test_a_replay_that_is_cancelled_says_how_far_it_came(transport: Transport) -> None:
    """The batch that it is at is finished; the rest is where it was."""
    await bury(transport, INGEST, *(message(UPLOADED) for _ in range(30)))
    letters = await dead_letters.look(transport)
    states: list[Progress] = []
    begun = asyncio.Event()

    def told(progress: Progress) -> None:
        states[:] = [progress]
        if progress.done:
            begun.set()

    replaying = asyncio.create_task(dead_letters.replay(transport, letters, Order("me@here", 5, told)))
    await asyncio.wait_for(begun.wait(), 20)
    replaying.cancel()
    with suppress(asyncio.CancelledError):
        await replaying
    assert replaying.cancelled()
    left = len(await dead_letters.look(transport))
    assert 0 < states[0].done == 30 - left < 30
    assert len(await notices(transport)) == states[0].done
    assert len(await take(transport, INGEST)) == states[0].done
