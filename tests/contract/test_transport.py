"""The contract of every transport: delivering, competing, routing, counting. Held by both (see `conftest`)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from contract.transport_kit import SHORT_LADDER, SOON, Broker, OtherProcess, counted, letters, other_process, subscribe
from voxelmill_shared.errors import BrokerUnavailableError, UnroutableError
from voxelmill_shared.transport.base import HEADER_ATTEMPT, HEADER_ERROR_CLASS, HEADER_REASON, Message, Transport
from voxelmill_shared.transport.topology import QueueSpec, Topology


async def test_a_message_arrives_as_it_was_published(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Body, routing key, id, content type and headers come through byte for byte; it is the first attempt."""
    message = Message(b"\x00\xff body", broker.key("a.b"), "id-1", {"text": "Größe 体積", "number": 2**40}, "x/y")
    await transport.publish([message])
    inbox, _ = await subscribe(transport, work)
    delivery = await inbox.next()
    assert delivery.message == message
    assert (delivery.queue, delivery.attempt, delivery.redelivered) == (work.name, 1, False)
    await delivery.ack()
    await counted(transport, work, ready=0, in_hand=0)


async def test_a_thousand_messages_in_one_call(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """All of them arrive, once, in the order in which they were published."""
    await transport.publish([broker.message(number) for number in range(1000)])
    inbox, _ = await subscribe(transport, work, prefetch=100)
    seen = []
    for _ in range(1000):
        delivery = await inbox.next()
        seen.append(int(delivery.message.message_id))
        await delivery.ack()
    assert seen == list(range(1000))
    await counted(transport, work, ready=0, in_hand=0)


async def test_a_message_that_comes_while_someone_waits(broker: Broker, work: QueueSpec) -> None:
    """A consumer that sits at an empty queue gets what another transport publishes then."""
    inbox, _ = await subscribe(broker.open(), work)
    await broker.open().publish([broker.message(1)])
    assert (await inbox.next()).message.message_id == "1"


async def test_equal_messages_are_all_delivered(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Deduplication is the consumers' business: the same id published twice is two messages."""
    await transport.publish([broker.message(1), broker.message(1)])
    inbox, _ = await subscribe(transport, work, prefetch=2)
    assert [delivery.message.message_id for delivery in await inbox.take(2)] == ["1", "1"]


async def test_prefetch_bounds_what_is_in_hand(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Two in hand, three wait; each settlement brings one more."""
    await transport.publish([broker.message(number) for number in range(5)])
    inbox, _ = await subscribe(transport, work, prefetch=2)
    first, second = await inbox.take(2)
    await counted(transport, work, ready=3, in_hand=2)
    assert len(inbox) == 0
    await first.ack()
    third = await inbox.next()
    await counted(transport, work, ready=2, in_hand=2)
    assert len(inbox) == 0
    assert [delivery.message.message_id for delivery in (first, second, third)] == ["0", "1", "2"]


async def test_competing_consumers_share_the_work(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Two transports with room for five each hold ten messages between them, none of them twice."""
    one, _ = await subscribe(broker.open(), work, prefetch=5)
    two, _ = await subscribe(broker.open(), work, prefetch=5)
    await transport.publish([broker.message(number) for number in range(10)])
    held = [*await one.take(5), *await two.take(5)]
    assert sorted(int(delivery.message.message_id) for delivery in held) == list(range(10))


async def test_competing_processes_get_nothing_twice(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Three processes take 300 messages from one queue: each message is seen by exactly one of them."""
    async with (
        other_process(broker, work, "ack", prefetch=3) as one,
        other_process(broker, work, "ack", prefetch=3) as two,
    ):
        mine, _ = await subscribe(transport, work, prefetch=3)
        await transport.publish([broker.message(number) for number in range(300)])
        seen: list[str] = []
        complete = asyncio.Event()

        def note(message_id: str) -> None:
            seen.append(message_id)
            if len(seen) == 300:
                complete.set()

        async def listen(other: OtherProcess) -> None:
            while True:
                note(await other.line())

        async def take() -> None:
            while True:
                delivery = await mine.next()
                await delivery.ack()
                note(delivery.message.message_id)

        tasks = [asyncio.create_task(task) for task in (listen(one), listen(two), take())]
        await asyncio.wait_for(complete.wait(), SOON)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(map(int, seen)) == list(range(300))


async def test_a_killed_process_loses_nothing(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """What a process had in hand when it was killed with SIGKILL comes again, soon, as the same attempt."""
    await transport.publish([broker.message(number, **{HEADER_ATTEMPT: 3}) for number in range(4)])
    async with other_process(broker, work, "hold", prefetch=3) as other:
        assert [await other.line() for _ in range(3)] == ["0", "1", "2"]
        inbox, _ = await subscribe(transport, work, prefetch=10)
        assert (await inbox.next()).message.message_id == "3"
        await other.kill()
        again = await inbox.take(3)
    assert [delivery.message.message_id for delivery in again] == ["0", "1", "2"]
    assert [(delivery.attempt, delivery.redelivered) for delivery in again] == [(3, True)] * 3


async def test_a_message_that_kills_its_consumers_is_buried(broker: Broker) -> None:
    """After more deaths than the limit allows it is a dead letter that says why, and the queue goes on."""
    broker.delivery_limit = 1
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    await transport.publish([broker.message("killer", key="a.b")])
    for _ in range(2):
        async with other_process(broker, queue, "hold", prefetch=1) as other:
            assert await other.line() == "killer"
    inbox, _ = await subscribe(transport, queue)
    await counted(transport, queue, dead=1, ready=0)
    (letter,) = await letters(transport, queue)
    assert letter.message.headers[HEADER_ERROR_CLASS] == "delivery-limit"
    assert letter.message.headers[HEADER_REASON]
    assert letter.dead_at is not None
    assert letter.message.routing_key == broker.key("a.b")
    assert await transport.replay(queue, [letter.handle]) == 1
    assert (await inbox.next()).message.message_id == "killer"


async def test_cancel_takes_nothing_more(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """After cancel nothing is delivered, what is in hand can be settled, and others get the rest."""
    inbox, consumer = await subscribe(transport, work, prefetch=2)
    await transport.publish([broker.message(1)])
    delivery = await inbox.next()
    await consumer.cancel()
    await consumer.cancel()
    await transport.publish([broker.message(2)])
    other, _ = await subscribe(broker.open(), work)
    assert (await other.next()).message.message_id == "2"
    assert len(inbox) == 0
    await delivery.ack()
    await counted(transport, work, in_hand=0 if not broker.is_embedded else 1, ready=0)


async def test_closing_gives_back_what_is_in_hand(broker: Broker, work: QueueSpec) -> None:
    """Deliveries of a closed transport come again elsewhere and cannot be settled any more."""
    closing = broker.open()
    inbox, _ = await subscribe(closing, work)
    await closing.publish([broker.message(1)])
    delivery = await inbox.next()
    await closing.close()
    other, _ = await subscribe(broker.open(), work)
    again = await other.next()
    assert (again.message.message_id, again.attempt, again.redelivered) == ("1", 1, True)
    with pytest.raises(BrokerUnavailableError):
        await delivery.ack()
    for call in (closing.check(), closing.publish([broker.message(2)]), closing.counts()):
        with pytest.raises(BrokerUnavailableError):
            await call


# Routing


async def test_topic_wildcards(broker: Broker, transport: Transport) -> None:
    """`*` is one word, `#` any number; a queue with two fitting bindings gets one copy."""
    one = broker.queue("one-word", "series.*.v1")
    any_number = broker.queue("any-number", "series.#")
    exact = broker.queue("exact", "series.meshed.v1", "#.v1")
    await transport.declare(Topology((one, any_number, exact)))
    await transport.publish(
        [broker.message(key, key=key) for key in ("series.meshed.v1", "series", "series.a.b.v1", "series.x.v1")]
    )
    expected = {
        one: ["series.meshed.v1", "series.x.v1"],
        any_number: ["series.meshed.v1", "series", "series.a.b.v1", "series.x.v1"],
        exact: ["series.meshed.v1", "series.a.b.v1", "series.x.v1"],
    }
    for queue, keys in expected.items():
        inbox, _ = await subscribe(transport, queue, prefetch=10)
        assert [delivery.message.message_id for delivery in await inbox.take(len(keys))] == keys
        await counted(transport, queue, ready=0, in_hand=len(keys))


async def test_an_unroutable_message_is_an_error(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Publishing what no queue wants fails, and says which message; so does a second one with the same id."""
    lost = Message(b"", f"nobody.{broker.prefix}.wants", "lost")
    with pytest.raises(UnroutableError, match="lost"):
        await transport.publish([lost])
    results = await asyncio.gather(
        *(transport.publish([message]) for message in (lost, lost, broker.message(1), lost)), return_exceptions=True
    )
    assert [type(result) for result in results] == [UnroutableError, UnroutableError, type(None), UnroutableError]
    await counted(transport, work, ready=1)


async def test_publishing_nothing(transport: Transport) -> None:
    """An empty list is published at once."""
    await transport.publish([])


# Declaring, counting, lasting


async def test_declaring_again_changes_nothing(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Queues that exist stay as they are, with their messages; a longer ladder adds rungs."""
    await transport.publish([broker.message(1)])
    longer = replace(work, ladder=(*SHORT_LADDER, timedelta(seconds=1)))
    broker.queues.append(longer)
    for queue in (work, longer, work):
        await transport.declare(Topology((queue,)))
    await counted(transport, work, ready=1, dead=0, waiting=0)


async def test_counts(broker: Broker, transport: Transport) -> None:
    """Every declared queue is counted: ready, in hand, waiting on a rung, dead."""
    queue = broker.queue("full", "x", ladder=(timedelta(minutes=5),))
    empty = broker.queue("empty", "y")
    await transport.declare(Topology((queue, empty)))
    await transport.publish([broker.message(number, key="x") for number in range(7)])
    inbox, consumer = await subscribe(transport, queue, prefetch=4)
    first, second, third, _ = await inbox.take(4)
    await consumer.cancel()
    await first.retry(0, {})
    await second.dead_letter({})
    await third.dead_letter({})
    await counted(transport, queue, ready=3, in_hand=1, waiting=1, dead=2)
    await counted(transport, empty, ready=0, in_hand=0, waiting=0, dead=0)


async def test_everything_outlives_the_transport(broker: Broker, work: QueueSpec) -> None:
    """Ready, waiting and dead messages are still there after everyone has closed; the wait goes on meanwhile."""
    first = broker.open()
    await first.publish([broker.message(number) for number in range(3)])
    inbox, _ = await subscribe(first, work, prefetch=2)
    one, two = await inbox.take(2)
    await one.retry(0, {HEADER_ATTEMPT: 2})
    await two.dead_letter({HEADER_REASON: "no use"})
    for transport in broker.transports:
        await transport.close()
    second = broker.open()
    await second.declare(Topology((work,)))
    (letter,) = await letters(second, work)
    assert (letter.message.message_id, letter.message.headers[HEADER_REASON]) == ("1", "no use")
    inbox, _ = await subscribe(second, work, prefetch=2)
    assert {(d.message.message_id, d.attempt) for d in await inbox.take(2)} == {("2", 1), ("0", 2)}


async def test_check(transport: Transport) -> None:
    """A broker that answers passes."""
    await transport.check()
