"""The contract of every transport: the ladder, dead letters, replay, release. Held by both (see `conftest`)."""

from __future__ import annotations

import json
import os
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from contract.transport_kit import Broker, counted, letters, subscribe
from voxelmill_shared.transport.base import (
    HEADER_ATTEMPT,
    HEADER_DEAD_AT,
    HEADER_ERROR_CLASS,
    HEADER_HISTORY,
    HEADER_REASON,
    HEADER_REPLAYS,
    Message,
    Transport,
)
from voxelmill_shared.transport.topology import Topology

if TYPE_CHECKING:
    from voxelmill_shared.transport.topology import QueueSpec


async def bury(transport: Transport, queue: QueueSpec, *messages: Message) -> None:
    """Publish messages and put each one into the dead-letter queue."""
    await transport.publish(messages)
    inbox, consumer = await subscribe(transport, queue)
    for _ in messages:
        await (await inbox.next()).dead_letter({HEADER_REASON: "no use"})
    await consumer.cancel()


# The ladder


@pytest.mark.parametrize(("rung", "seconds"), [(0, 0.2), (1, 0.5)])
async def test_a_rung_holds_a_message_for_its_time(
    broker: Broker, transport: Transport, work: QueueSpec, rung: int, seconds: float
) -> None:
    """It comes back not earlier than the rung says, unchanged but for the headers that were given."""
    message = Message(b"\x80body", broker.key("a.b"), "id", {"kept": "yes", "changed": "old"}, "x/y")
    await transport.publish([message])
    inbox, _ = await subscribe(transport, work)
    delivery = await inbox.next()
    started = time.monotonic()
    await delivery.retry(rung, {"changed": "new", HEADER_ATTEMPT: 2, HEADER_HISTORY: "[1]"})
    again = await inbox.next()
    assert time.monotonic() - started >= seconds
    headers = {"kept": "yes", "changed": "new", HEADER_ATTEMPT: 2, HEADER_HISTORY: "[1]"}
    assert again.message == Message(b"\x80body", broker.key("a.b"), "id", headers, "x/y")
    assert again.attempt == 2
    await again.ack()
    await counted(transport, work, ready=0, waiting=0, in_hand=0)


async def test_each_rung_waits_for_itself(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """A message on a short rung overtakes one that was put on a longer rung before it."""
    await transport.publish([broker.message("long"), broker.message("short")])
    inbox, _ = await subscribe(transport, work, prefetch=2)
    slow, quick = await inbox.take(2)
    await slow.retry(1, {})
    await quick.retry(0, {})
    assert [delivery.message.message_id for delivery in await inbox.take(2)] == ["short", "long"]


async def test_a_rung_keeps_the_order(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Messages come back in the order in which they were put on the rung."""
    await transport.publish([broker.message(number) for number in range(5)])
    inbox, _ = await subscribe(transport, work, prefetch=5)
    for delivery in await inbox.take(5):
        await delivery.retry(0, {})
    assert [delivery.message.message_id for delivery in await inbox.take(5)] == ["0", "1", "2", "3", "4"]


async def test_up_the_whole_ladder(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """A message climbs rung after rung, the same rung twice too, and loses nothing on the way."""
    await transport.publish([broker.message("climber", key="a.b")])
    inbox, _ = await subscribe(transport, work)
    for attempt, rung in enumerate((0, 0, 1, 0), start=1):
        delivery = await inbox.next()
        assert (delivery.attempt, delivery.message.routing_key) == (attempt, broker.key("a.b"))
        await delivery.retry(rung, {HEADER_ATTEMPT: attempt + 1})
    assert (await inbox.next()).attempt == 5


async def test_a_retry_without_an_attempt_spends_none(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """The attempt is what the header says, and nothing else counts."""
    await transport.publish([broker.message(1, **{HEADER_ATTEMPT: 3})])
    inbox, _ = await subscribe(transport, work)
    for _ in range(2):
        delivery = await inbox.next()
        assert delivery.attempt == 3
        await delivery.retry(0, {})


# Handing back


async def test_release_hands_back_at_once(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """The message comes again, ahead of younger ones, as the same attempt."""
    await transport.publish([broker.message(number, **{HEADER_ATTEMPT: 2}) for number in range(3)])
    inbox, consumer = await subscribe(transport, work)
    first = await inbox.next()
    await consumer.cancel()
    await first.release()
    other, _ = await subscribe(broker.open(), work)
    again = await other.next()
    assert (again.message.message_id, again.attempt, again.redelivered) == ("0", 2, True)
    assert again.message == first.message


async def test_release_never_buries(broker: Broker) -> None:
    """A message that is handed back more often than consumers may die with it is not taken for a killer."""
    broker.delivery_limit = 4
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    await transport.publish([broker.message(1, key="a.b", kept="yes", **{HEADER_ATTEMPT: 2})])
    inbox, _ = await subscribe(transport, queue)
    for _ in range(12):
        delivery = await inbox.next()
        assert delivery.message == broker.message(1, key="a.b", kept="yes", **{HEADER_ATTEMPT: 2})
        await delivery.release()
    await (await inbox.next()).ack()
    await counted(transport, queue, ready=0, in_hand=0, dead=0)


async def test_a_message_is_settled_once(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """A second settlement is a mistake in the program, and says so."""
    await transport.publish([broker.message(1)])
    inbox, _ = await subscribe(transport, work)
    delivery = await inbox.next()
    await delivery.ack()
    for settlement in (delivery.ack(), delivery.release(), delivery.retry(0, {}), delivery.dead_letter({})):
        with pytest.raises(RuntimeError, match="settled already"):
            await settlement
    await counted(transport, work, ready=0, in_hand=0, waiting=0, dead=0)


# Dead letters


async def test_a_dead_letter_keeps_every_byte(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """An undecodable body lies in the dead-letter queue as it came, with the given headers beside its own."""
    message = Message(os.urandom(4096), broker.key("a.b"), "broken", {"kept": "yes", "number": 7}, "x/y")
    dead_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    history = json.dumps([{"attempt": 1, "reason": "kein Körper"}])
    headers = {
        HEADER_ERROR_CLASS: "undecodable",
        HEADER_REASON: "no CloudEvents document",
        HEADER_HISTORY: history,
        HEADER_DEAD_AT: dead_at.isoformat(),
    }
    await transport.publish([message])
    inbox, _ = await subscribe(transport, work)
    await (await inbox.next()).dead_letter(headers)
    (letter,) = await letters(transport, work)
    assert letter.message == Message(
        message.body, message.routing_key, "broken", {"kept": "yes", "number": 7, **headers}, "x/y"
    )
    assert (letter.queue, letter.dead_at) == (work.name, dead_at)


async def test_a_dead_letter_says_when_it_died(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Where nobody gives the time of death, it is the time of the settlement, a second death's too."""
    for _ in range(2):
        started = datetime.now(UTC)
        await bury(transport, work, broker.message(1))
        (letter,) = await letters(transport, work)
        assert letter.dead_at is not None
        assert started <= letter.dead_at <= datetime.now(UTC)
        await transport.replay(work, [letter.handle])
        inbox, consumer = await subscribe(transport, work)
        await (await inbox.next()).ack()
        await consumer.cancel()


async def test_looking_consumes_nothing(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Two looks see the same letters under the same handles, oldest first, and they are all still there."""
    await bury(transport, work, *(broker.message(number) for number in range(4)))
    first = await letters(transport, work)
    assert [letter.message.message_id for letter in first] == ["0", "1", "2", "3"]
    await counted(transport, work, dead=4)
    assert await letters(transport, work) == first
    assert len({letter.handle for letter in first}) == 4


async def test_a_look_that_is_broken_off(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Nothing stays hidden from the next one who looks."""
    await bury(transport, work, *(broker.message(number) for number in range(3)))
    async with aclosing(transport.dead_letters(work)) as look:  # type: ignore[type-var]
        assert (await anext(look)).message.message_id == "0"
    await counted(transport, work, dead=3)
    assert [letter.message.message_id for letter in await letters(transport, work)] == ["0", "1", "2"]


async def test_more_dead_letters_than_a_page(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """A long dead-letter queue is seen and replayed to its end."""
    await bury(transport, work, *(broker.message(number) for number in range(250)))
    found = await letters(transport, work)
    assert [int(letter.message.message_id) for letter in found] == list(range(250))
    assert await transport.replay(work, [letter.handle for letter in found]) == 250
    await counted(transport, work, ready=250, dead=0)


# Replay


async def test_replay_puts_a_letter_back(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """The chosen one comes back as attempt 1, counted, with its history; the others stay where they are."""
    message = Message(b"\x80", broker.key("a.b"), "chosen", {HEADER_ATTEMPT: 5, HEADER_HISTORY: "[1, 2]"}, "x/y")
    await bury(transport, work, broker.message("before"), message, broker.message("after"))
    chosen = (await letters(transport, work))[1]
    assert await transport.replay(work, [chosen.handle]) == 1
    inbox, _ = await subscribe(transport, work)
    again = await inbox.next()
    assert again.attempt == 1
    headers = {**chosen.message.headers, HEADER_ATTEMPT: 1, HEADER_REPLAYS: 1}
    assert again.message == Message(b"\x80", broker.key("a.b"), "chosen", headers, "x/y")
    assert (headers[HEADER_HISTORY], headers[HEADER_REASON]) == ("[1, 2]", "no use")
    assert [letter.message.message_id for letter in await letters(transport, work)] == ["before", "after"]
    await counted(transport, work, dead=2, ready=0)


async def test_replays_are_counted(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """A letter that dies again and is replayed again says 2."""
    await bury(transport, work, broker.message(1))
    for replays in (1, 2):
        (letter,) = await letters(transport, work)
        assert await transport.replay(work, [letter.handle]) == 1
        inbox, consumer = await subscribe(transport, work)
        delivery = await inbox.next()
        assert delivery.message.headers[HEADER_REPLAYS] == replays
        await consumer.cancel()
        await delivery.dead_letter({})


async def test_replaying_what_is_not_there(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Unknown, repeated and spent handles put nothing back, and are not counted."""
    await bury(transport, work, broker.message(1), broker.message(2))
    first, _ = await letters(transport, work)
    assert await transport.replay(work, []) == 0
    assert await transport.replay(work, ["unknown", "4711", "9" * 40]) == 0
    assert await transport.replay(work, [first.handle, first.handle]) == 1
    assert await transport.replay(work, [first.handle]) == 0
    await counted(transport, work, ready=1, dead=1)


async def test_queues_keep_their_letters_apart(broker: Broker, transport: Transport) -> None:
    """A letter goes back to the queue that it came from, and to no other that wanted the same message."""
    one, two = broker.queue("one"), broker.queue("two", ladder=(timedelta(seconds=1),))
    await transport.declare(Topology((one, two)))
    await bury(transport, one, broker.message(1))
    assert await letters(transport, two) == []
    (letter,) = await letters(transport, one)
    assert await transport.replay(two, [letter.handle]) == 0
    assert await transport.replay(one, [letter.handle]) == 1
    await counted(transport, one, ready=1, dead=0)
    await counted(transport, two, ready=1, dead=0)
