"""The transport on RabbitMQ (3.10 or later): quorum queues, publisher confirms, nothing thrown away.

One topic exchange for the events. Each queue has a rung queue for every step of its ladder, whose messages fall back
into the queue when their time is over, and a dead-letter queue behind a direct exchange. A message in hand is moved by
publishing a copy, with confirmation, and only then acknowledging the original: a crash in between makes two of it,
never none. Dead letters are carried back by the broker itself (`rabbit_dead_letters`).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from voxelmill_shared.transport.base import QueueCount
from voxelmill_shared.transport.rabbit_consumer import RabbitConsumer
from voxelmill_shared.transport.rabbit_dead_letters import RabbitHold
from voxelmill_shared.transport.rabbit_link import RabbitLink, answer_in_time
from voxelmill_shared.transport.rabbit_messages import event_publication
from voxelmill_shared.transport.topology import DELIVERY_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from aio_pika.abc import AbstractChannel

    from voxelmill_shared.transport.base import Callback, DeadLetter, Message, T
    from voxelmill_shared.transport.topology import QueueSpec, Topology


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
        self._holding: dict[str, asyncio.Lock] = {}

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
        """Look through the dead letters of a queue, oldest first. They are laid back before the first is given out."""
        async with self.hold(queue, _itself) as hold:
            found = hold.seen
        for letter in found:
            yield letter

    @asynccontextmanager
    async def hold(self, queue: QueueSpec, view: Callable[[DeadLetter], T]) -> AsyncIterator[RabbitHold[T]]:
        """Take the dead letters of a queue in hand: nobody else sees them until the block ends.

        Raises
        ------
        DeadLettersHeldError
            If another process has them in hand.
        TopologyMismatchError
            If the dead-letter queue stands on the broker in a form out of which a replay would lose what it takes.
        """
        async with self._holding.setdefault(queue.name, asyncio.Lock()):
            hold = RabbitHold(self._link, queue, view)
            try:
                await hold.take()
                yield hold
            finally:
                await hold.lay_back()

    async def replay(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Put dead letters back onto their queue. The broker carries them: it lets go of one when the queue has it."""
        return await self._settle(queue, handles, lambda hold: hold.replay(handles))

    async def drop(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Give dead letters up."""
        return await self._settle(queue, handles, lambda hold: hold.drop(handles))

    async def _settle(
        self, queue: QueueSpec, handles: Sequence[str], settle: Callable[[RabbitHold[None]], Awaitable[int]]
    ) -> int:
        if not handles:
            return 0
        async with self.hold(queue, _nothing) as hold:
            return await settle(hold)

    async def check(self) -> None:
        """Return if the broker opens a channel."""
        await self._link.close_channel(await self._link.channel())

    async def close(self) -> None:
        """Close the connection. Deliveries in hand are delivered again to others."""
        for consumer in self._consumers:
            await consumer.close()
        await self._link.close()


def _itself(letter: DeadLetter) -> DeadLetter:
    return letter


def _nothing(_: DeadLetter) -> None:
    return None
