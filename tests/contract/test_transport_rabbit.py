"""What only the RabbitMQ transport promises: connections are lost and come back, and the broker is what we think."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import aio_pika
import pytest

from contract.cable import Cable
from contract.transport_kit import SOON, Broker, counted, delete_queues, letters, subscribe
from servers.rabbitmq import RabbitMQServer, start
from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError
from voxelmill_shared.transport.base import HEADER_ATTEMPT, HEADER_REASON
from voxelmill_shared.transport.rabbit import RabbitTransport
from voxelmill_shared.transport.topology import EVENTS_EXCHANGE, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_shared.transport.topology import QueueSpec

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[Broker]:
    """Give the run's broker, and take away what the test made on it."""
    broker = Broker(rabbitmq_url)
    yield broker
    for transport in broker.transports:
        await transport.close()
    await delete_queues(broker.url, broker.queues)


@pytest.fixture
async def cable(broker: Broker) -> AsyncIterator[Cable]:
    """Lay a cable to the broker."""
    async with Cable(aio_pika.connection.make_url(broker.url)).laid() as cable:
        yield cable


@pytest.fixture
async def remote(broker: Broker, cable: Cable) -> RabbitTransport:
    """Give a transport behind the cable."""
    transport = RabbitTransport(cable.url)
    broker.transports.append(transport)
    return transport


@pytest.fixture
async def local(broker: Broker) -> RabbitTransport:
    """Give a transport with a connection that nobody cuts."""
    transport = RabbitTransport(broker.url)
    broker.transports.append(transport)
    return transport


@pytest.fixture
async def work(broker: Broker, local: RabbitTransport) -> QueueSpec:
    """Give a declared queue."""
    queue = broker.queue()
    await local.declare(Topology((queue,)))
    return queue


async def test_a_consumer_comes_back_by_itself(
    broker: Broker, cable: Cable, local: RabbitTransport, remote: RabbitTransport, work: QueueSpec
) -> None:
    """After a cut it goes on, and what it had in hand comes again, not to be settled under the old connection."""
    inbox, consumer = await subscribe(remote, work, prefetch=2)
    await local.publish([broker.message(1), broker.message(2)])
    old = await inbox.take(2)
    cable.cut()
    again = await inbox.take(2)
    assert [(d.message.message_id, d.redelivered, d.attempt) for d in again] == [("1", True, 1), ("2", True, 1)]
    for delivery in old:
        for settlement in (delivery.ack(), delivery.release(), delivery.retry(0, {}), delivery.dead_letter({})):
            with pytest.raises(DeliveryLostError, match="delivers it again"):
                await settlement
    for delivery in again:
        await delivery.ack()
    await counted(remote, work, ready=0, in_hand=0, waiting=0, dead=0)
    await consumer.cancel()


async def test_work_that_outlives_its_connection_counts(
    broker: Broker, cable: Cable, local: RabbitTransport, remote: RabbitTransport, work: QueueSpec
) -> None:
    """While a callback still works on a lost delivery, no more callbacks run than the prefetch allows."""
    started: asyncio.Queue[str] = asyncio.Queue()
    finish = asyncio.Event()
    running, most = 0, 0

    async def callback(delivery: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        started.put_nowait(delivery.message.message_id)  # type: ignore[attr-defined]
        await finish.wait()
        with suppress(BrokerUnavailableError):
            await delivery.ack()  # type: ignore[attr-defined]
        running -= 1

    await remote.consume(work, callback, prefetch=1)
    await remote.publish([broker.message(1)])
    assert await asyncio.wait_for(started.get(), 20) == "1"
    cable.cut()
    await counted(local, work, ready=0)  # it was ready for a moment, and is in hand again
    finish.set()
    assert await asyncio.wait_for(started.get(), 20) == "1"
    await counted(local, work, ready=0)
    assert most == 1


async def test_publishing_over_a_cut_cable(
    broker: Broker, cable: Cable, local: RabbitTransport, remote: RabbitTransport, work: QueueSpec
) -> None:
    """It fails at once while the broker is out of reach, and works again when it is not."""
    await remote.publish([broker.message(1)])
    cable.plugged_in = False
    cable.cut()
    many = [broker.message(number) for number in range(500)]
    for call in (remote.publish(many), remote.declare(Topology((work,))), remote.replay(work, ["any"])):
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(call, 15)
    with pytest.raises(BrokerUnavailableError, match=r"RabbitMQ at 127\.0\.0\.1:"):
        await remote.check()
    cable.plugged_in = True
    await remote.publish([broker.message(2)])
    await counted(local, work, ready=2)


async def test_cancelling_while_the_cable_is_cut(
    broker: Broker, cable: Cable, local: RabbitTransport, remote: RabbitTransport, work: QueueSpec
) -> None:
    """Cancel returns, and the consumer does not come back."""
    inbox, consumer = await subscribe(remote, work)
    cable.plugged_in = False
    cable.cut()
    await asyncio.wait_for(consumer.cancel(), 15)
    cable.plugged_in = True
    await local.publish([broker.message(1)])
    other, _ = await subscribe(broker.open(), work)
    assert (await other.next()).message.message_id == "1"
    assert len(inbox) == 0


async def test_a_subscription_that_is_given_up_while_it_is_made(
    broker: Broker, cable: Cable, local: RabbitTransport, remote: RabbitTransport, work: QueueSpec
) -> None:
    """Cancelled between the question and the answer: the broker has no consumer that nobody knows of."""
    await remote.check()
    cable.let_through.clear()
    consuming = asyncio.create_task(subscribe(remote, work))
    await asyncio.wait_for(cable.asked_to_consume.wait(), SOON)
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        async with asyncio.timeout(SOON):
            while await _consumers(channel, work.name) != 1:  # noqa: ASYNC110 - the broker has no bell for this
                await asyncio.sleep(0.05)
        consuming.cancel()
        cable.let_through.set()
        with pytest.raises(asyncio.CancelledError):
            await consuming
        async with asyncio.timeout(SOON):
            while await _consumers(channel, work.name) != 0:  # noqa: ASYNC110 - nor for this
                await asyncio.sleep(0.05)
    await local.publish([broker.message(1)])
    other, _ = await subscribe(local, work)
    assert (await other.next()).message.message_id == "1"


async def _consumers(channel: aio_pika.abc.AbstractChannel, queue: str) -> int:
    """How many consumers a queue has; a queue that does not exist has none."""
    try:
        declared = await channel.declare_queue(queue, passive=True)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        await channel.reopen()
        return 0
    return declared.declaration_result.consumer_count or 0


async def test_a_deleted_queue_is_made_again(broker: Broker, local: RabbitTransport, work: QueueSpec) -> None:
    """The broker ends the subscription of a deleted queue; the consumer declares the queue and goes on."""
    inbox, _ = await subscribe(local, work)
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        await channel.queue_delete(work.name)
        async with asyncio.timeout(SOON):
            while await _consumers(channel, work.name) != 1:  # noqa: ASYNC110 - the broker has no bell for this
                await asyncio.sleep(0.05)
    await local.publish([broker.message(1)])
    assert (await inbox.next()).message.message_id == "1"


async def test_acknowledgements_leave_gaps_alone(broker: Broker, local: RabbitTransport, work: QueueSpec) -> None:
    """Acknowledged together in one turn, in any order, beside what is handed back or still in hand: that comes again."""
    await local.publish([broker.message(number) for number in range(9)])
    transport = broker.open()
    inbox, _ = await subscribe(transport, work, prefetch=9)
    taken = await inbox.take(9)
    await asyncio.gather(*(taken[number].ack() for number in (5, 0, 1)), taken[2].release(), taken[4].ack())
    await asyncio.gather(taken[7].ack())
    assert (await inbox.next()).message.message_id == "2"
    await transport.close()
    other, _ = await subscribe(local, work, prefetch=9)
    assert {delivery.message.message_id for delivery in await other.take(4)} == {"2", "3", "6", "8"}
    await counted(local, work, ready=0, in_hand=4, dead=0)


async def test_what_is_acknowledged_stays_so_when_the_transport_closes_at_once(
    broker: Broker, local: RabbitTransport, work: QueueSpec
) -> None:
    """The last acknowledgement goes out before the channel is closed."""
    await local.publish([broker.message(number) for number in range(20)])
    transport = broker.open()
    inbox, consumer = await subscribe(transport, work, prefetch=20)
    taken = await inbox.take(20)
    await consumer.cancel()
    for delivery in taken:
        await delivery.ack()
    await transport.close()
    await counted(local, work, ready=0)
    await local.publish([broker.message("next")])
    other, _ = await subscribe(local, work)
    assert (await other.next()).message.message_id == "next"


async def test_messages_of_strangers(broker: Broker, local: RabbitTransport, work: QueueSpec) -> None:
    """A message that somebody else published, with headers of any type, is delivered, retried and buried unharmed."""
    key = broker.key("object.uploaded.v1")
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        exchange = await channel.get_exchange(EVENTS_EXCHANGE, ensure=False)
        headers = {"bytes": bytearray(b"\xff"), "number": 1, "fraction": 0.5, "list": [1], "nothing": None}
        await exchange.publish(aio_pika.Message(b"\xff\x00", headers=headers), key)
    inbox, _ = await subscribe(local, work)
    delivery = await inbox.next()
    assert (delivery.message.body, delivery.message.routing_key, delivery.attempt) == (b"\xff\x00", key, 1)
    await delivery.retry(0, {HEADER_ATTEMPT: "no number"})
    delivery = await inbox.next()
    assert (delivery.message.body, delivery.message.routing_key, delivery.attempt) == (b"\xff\x00", key, 1)
    await delivery.dead_letter({HEADER_REASON: "strange"})
    (letter,) = await letters(local, work)
    assert letter.message.headers["number"] == 1
    assert letter.message.headers["fraction"] == "0.5"


@pytest.mark.parametrize("url", ["amqp://user:secret@127.0.0.1:{closed}/", "amqp://user:secret@127.0.0.1:{real}/"])
async def test_no_broker_or_no_entry(broker: Broker, url: str) -> None:
    """Nobody listens, or the password is wrong: one line that names the place and not the password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        real = aio_pika.connection.make_url(broker.url).port
        transport = RabbitTransport(url.format(closed=unused.getsockname()[1], real=real))
        with pytest.raises(BrokerUnavailableError, match=r"RabbitMQ at 127\.0\.0\.1:\d+: ") as caught:
            await transport.check()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        await transport.close()


def _until_remembered(data: Path, queues: list[QueueSpec]) -> None:
    """Wait until the broker has written down which queues there are; it does so half a second after they are made.

    A quorum queue younger than that does not outlive a kill -9 (seen with RabbitMQ 3.10.8: ra's `names.dets`).
    """
    (names,) = data.glob("mnesia/*/quorum/*/names.dets")
    wanted = [name for q in queues for name in (q.name, q.dead_letters, q.rung(len(q.ladder) - 1))]
    until = time.monotonic() + SOON
    while not all(name.encode() in names.read_bytes() for name in wanted):
        assert time.monotonic() < until, "the broker has not written down its queues"
        time.sleep(0.05)


@pytest.mark.usefixtures("rabbitmq_installed")
async def test_a_broker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """After kill -9 and a new start everything confirmed is there, and consumers have come back by themselves."""
    server = await asyncio.to_thread(start, tmp_path / "data")
    transport = RabbitTransport(server.url)
    try:
        broker = Broker(server.url)
        queue, long = broker.queue("a", "a"), broker.queue("b", "b", ladder=(timedelta(seconds=1),))
        await transport.declare(Topology((queue, long)))
        await asyncio.to_thread(_until_remembered, tmp_path / "data", [queue, long])
        await transport.publish([broker.message(number, key="a") for number in range(100)])
        await transport.publish([broker.message("waits", key="b"), broker.message("dies", key="b")])
        held, _ = await subscribe(transport, queue)
        await held.next()
        inbox, _ = await subscribe(transport, long, prefetch=2)
        waits, dies = await inbox.take(2)
        await waits.retry(0, {HEADER_ATTEMPT: 2})
        await dies.dead_letter({HEADER_REASON: "no use"})
        await asyncio.to_thread(server.stop)
        with pytest.raises(BrokerUnavailableError):
            await transport.check()
        server = RabbitMQServer(tmp_path / "data", server.port)
        await asyncio.to_thread(server.wait)
        came = set()
        while ("waits", 2) not in came:
            delivery = await inbox.next()
            with suppress(BrokerUnavailableError):  # it came while the broker was being killed, and comes again
                await delivery.ack()
                came.add((delivery.message.message_id, delivery.attempt))
        # An acknowledgement is not confirmed: the originals may come again, never anything else.
        assert came <= {("waits", 1), ("waits", 2), ("dies", 1)}
        seen = set()
        for _ in range(100):  # also the one that was in hand, and each once
            delivery = await held.next()
            seen.add(delivery.message.message_id)
            await delivery.ack()
        assert seen == {str(number) for number in range(100)}
        (letter,) = await letters(transport, long)
        assert (letter.message.message_id, letter.message.headers[HEADER_REASON]) == ("dies", "no use")
        await counted(transport, queue, ready=0, in_hand=0)
    finally:
        await transport.close()
        await asyncio.to_thread(server.stop)
