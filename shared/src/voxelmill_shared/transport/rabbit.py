"""The transport on RabbitMQ (3.10 or later): quorum queues, publisher confirms, nothing thrown away.

One topic exchange for the events. Each queue has a rung queue for every step of its ladder, whose messages fall back
into the queue when their time is over, and a dead-letter queue behind a direct exchange. A message is moved by
publishing a copy, with confirmation, and only then acknowledging the original: a crash in between makes two of it,
never none.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.transport.base import DeadLetter, Message, QueueCount
from voxelmill_shared.transport.headers import replay_headers
from voxelmill_shared.transport.rabbit_consumer import RabbitConsumer
from voxelmill_shared.transport.rabbit_link import RabbitLink, answer_in_time
from voxelmill_shared.transport.rabbit_messages import copy_publication, dead_letter_of, event_publication
from voxelmill_shared.transport.topology import DELIVERY_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import aiormq.abc
    from aio_pika.abc import AbstractChannel
    from aiormq.abc import DeliveredMessage

    from voxelmill_shared.transport.base import Callback
    from voxelmill_shared.transport.topology import QueueSpec, Topology

_AT_A_TIME = 16
"""How many dead letters are put back before the next one is fetched.

A quorum queue's channel holds back acknowledgements while more than 32 are under way, and forgets them when it is
closed. Fetching a letter goes through the same log as they do, so what was acknowledged before it is known to be gone.
"""


class RabbitTransport:
    """Durable queues on a RabbitMQ broker. See `transport.base.Transport` for what each method promises.

    Parameters
    ----------
    url
        `amqp://user:password@host:port/vhost` or `amqps://…`. The first call connects.
    delivery_limit
        After how many deaths of its consumers the broker puts a message into the dead-letter queue.
    """

    def __init__(self, url: str, *, delivery_limit: int = DELIVERY_LIMIT) -> None:
        self._link = RabbitLink(url, delivery_limit)
        self._declared: dict[str, QueueSpec] = {}
        self._consumers: list[RabbitConsumer] = []

    async def declare(self, topology: Topology) -> None:
        """Make sure that every queue exists. Idempotent; bindings are added, never taken away.

        Raises
        ------
        TopologyMismatchError
            If a queue exists with other arguments (another ladder keeps its queues, so this is rare).
        """
        await self._link.declare(topology.queues)
        self._declared.update((queue.name, queue) for queue in topology.queues)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish and wait for the broker's confirmations, up to 200 of them at a time.

        Raises
        ------
        UnroutableError
            If a message is wanted by no queue. The others are published.
        BrokerUnavailableError
            If the broker did not confirm. Any of the messages may or may not have been published.
        """
        await self._link.publish([event_publication(message) for message in messages])

    async def consume(self, queue: QueueSpec, callback: Callback, *, prefetch: int) -> RabbitConsumer:
        """Call `callback` for every message of a queue, at most `prefetch` at a time in hand.

        After a lost connection the consumer subscribes again by itself, for as long as it takes.
        """
        consumer = RabbitConsumer(self._link, queue, callback, prefetch)
        await consumer.start()
        self._declared[queue.name] = queue
        self._consumers.append(consumer)
        return consumer

    async def counts(self) -> list[QueueCount]:
        """How full every queue is that was declared through this transport.

        The broker does not tell how many messages consumers have in hand: `in_hand` is what this transport holds.
        """
        if not self._declared:
            return []
        channel = await self._link.channel()
        try:
            return [await self._count(channel, queue) for queue in self._declared.values()]
        finally:
            await self._link.close_channel(channel)

    async def _count(self, channel: AbstractChannel, queue: QueueSpec) -> QueueCount:
        rungs = {queue.rung(number) for number in range(len(queue.ladder))}
        return QueueCount(
            queue.name,
            ready=await self._length(channel, queue.name),
            in_hand=sum(consumer.in_hand for consumer in self._consumers if consumer.spec.name == queue.name),
            waiting=sum([await self._length(channel, rung) for rung in sorted(rungs)]),
            dead=await self._length(channel, queue.dead_letters),
        )

    async def _length(self, channel: AbstractChannel, name: str) -> int:
        with self._link.errors():
            async with answer_in_time():
                queue = await channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0

    async def dead_letters(self, queue: QueueSpec) -> AsyncIterator[DeadLetter]:
        """Look through the dead letters of a queue, oldest first.

        They are fetched without being acknowledged, all of them, and laid back before the first is given out: for
        that time nobody else sees them. The broker puts back what was fetched in no order of its own, so they are
        sorted by when they died.
        """
        channel = await self._link.channel()
        try:
            dead = await self._open_dead(channel, queue)
            found = []
            while incoming := await self._get(dead, queue):
                found.append(dead_letter_of(incoming, queue))
        finally:
            await self._lay_back(channel)
        for letter in sorted(found, key=_age):
            yield letter

    async def _open_dead(self, channel: AbstractChannel, queue: QueueSpec) -> aiormq.abc.AbstractChannel:
        await self._link.declare([queue])
        with self._link.errors():
            return await channel.get_underlay_channel()

    async def _get(self, dead: aiormq.abc.AbstractChannel, queue: QueueSpec) -> DeliveredMessage | None:
        with self._link.errors():
            async with answer_in_time():
                incoming = await dead.basic_get(queue.dead_letters)
        return incoming if incoming.delivery_tag else None

    async def replay(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Put dead letters back onto their queue: confirmed there before they are acknowledged here."""
        wanted = set(handles)
        if not wanted:
            return 0
        replayed = 0
        batch: list[tuple[DeliveredMessage, Message]] = []
        channel = await self._link.channel()
        try:
            dead = await self._open_dead(channel, queue)
            while True:
                incoming = await self._get(dead, queue)
                if incoming is not None and (letter := dead_letter_of(incoming, queue)).handle in wanted:
                    wanted.discard(letter.handle)
                    batch.append((incoming, letter.message))
                done = incoming is None or not wanted
                if batch and (done or len(batch) == _AT_A_TIME):
                    replayed += await self._put_back(queue, batch)
                    batch = []
                elif done:  # and this was fetched after the last acknowledgement
                    return replayed
        finally:
            await self._lay_back(channel)

    async def _lay_back(self, channel: AbstractChannel) -> None:
        """Let others see what was fetched. Closing alone does it too, but some time after it has been confirmed."""
        with suppress(BrokerUnavailableError), self._link.errors():
            async with answer_in_time():
                underlay = await channel.get_underlay_channel()
                await underlay.basic_nack(0, multiple=True, requeue=True)  # 0: everything that is not acknowledged
        await self._link.close_channel(channel)

    async def _put_back(self, queue: QueueSpec, batch: list[tuple[DeliveredMessage, Message]]) -> int:
        await self._link.publish(
            [copy_publication(message, replay_headers(message), queue.name) for _, message in batch]
        )
        with self._link.errors():
            async with answer_in_time():
                for incoming, _ in batch:
                    await incoming.channel.basic_ack(incoming.delivery_tag or 0)
        return len(batch)

    async def check(self) -> None:
        """Return if the broker opens a channel."""
        await self._link.close_channel(await self._link.channel())

    async def close(self) -> None:
        """Close the connection. Deliveries in hand are delivered again to others."""
        for consumer in self._consumers:
            await consumer.close()
        await self._link.close()


def _age(letter: DeadLetter) -> datetime:
    return letter.dead_at or datetime.min.replace(tzinfo=UTC)
