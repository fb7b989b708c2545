"""Taking messages from a RabbitMQ queue, and going on by itself after the connection was lost."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError, VoxelmillError
from voxelmill_shared.transport.base import HEADER_ATTEMPT, Message
from voxelmill_shared.transport.headers import attempt_of, dead_headers
from voxelmill_shared.transport.rabbit_line import Line
from voxelmill_shared.transport.rabbit_link import RabbitLink, answer_in_time, one_line
from voxelmill_shared.transport.rabbit_messages import copy_publication, delivery_count, from_amqp
from voxelmill_shared.transport.topology import DEAD_LETTER_EXCHANGE, TopologyMismatchError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from aiormq.abc import DeliveredMessage

    from voxelmill_shared.transport.base import Callback
    from voxelmill_shared.transport.topology import QueueSpec

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

log = structlog.get_logger("voxelmill")


class RabbitConsumer:
    """A running subscription, on a channel of its own.

    When the connection is lost, what was in hand is no longer ours: the broker delivers it again, settling it here
    raises `DeliveryLostError`. Callbacks that still run count against the prefetch, so no more of them run at a
    time than were asked for.
    """

    def __init__(self, link: RabbitLink, queue: QueueSpec, callback: Callback, prefetch: int) -> None:
        self.link = link
        self.spec = queue
        self._callback = callback
        self._prefetch = prefetch
        self._slots = asyncio.Semaphore(prefetch)
        self._line: Line | None = None
        self._tag = ""
        self._dropped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._cancelled = False
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._in_hand: set[RabbitDelivery] = set()

    @property
    def in_hand(self) -> int:
        """How many deliveries are not settled and still can be."""
        return sum(not delivery.lost for delivery in self._in_hand)

    async def start(self) -> None:
        """Take messages from now on; return when the broker has agreed.

        Raises
        ------
        BrokerUnavailableError
            If it has not.
        """
        await self._subscribe()
        self._keeper = asyncio.create_task(self._keep())

    async def cancel(self) -> None:
        """Take no more messages. Those in hand stay in hand and can still be settled."""
        if self._cancelled:
            return
        self._cancelled = True
        await self.stop()
        line = self._line
        if line is not None and not line.lost:
            # If the connection is gone the subscription is gone too, which is all that was asked for.
            with suppress(BrokerUnavailableError), self.link.errors():
                async with answer_in_time():
                    await line.underlay.basic_cancel(self._tag)
            await self._close_if_done(line)

    async def stop(self) -> None:
        """Do not subscribe again when the connection is lost."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    async def close(self) -> None:
        """Let go of everything. Acknowledgements that are on their way go out before the channel does."""
        await self.stop()
        lines = {delivery.line for delivery in self._in_hand}
        if self._line is not None:
            lines.add(self._line)
        for line in lines:
            await line.close()

    async def _subscribe(self) -> None:
        # Always on a new channel: the broker's side of one that has seen its queue deleted never gets another message.
        # What is in hand on the old one can still be settled if it is open.
        before, self._line = self._line, None
        if before is not None:
            await self._close_if_done(before)
        await self.link.declare([self.spec])
        channel = await self.link.channel()
        dropped: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def drop(reason: str) -> None:
            if not dropped.done():
                dropped.set_result(reason)

        try:
            with self.link.errors():
                async with answer_in_time():
                    await channel.set_qos(prefetch_count=self._prefetch)
                underlay = await channel.get_underlay_channel()
                underlay.on_consumer_cancel_callbacks.add(
                    lambda _: drop("cancelled by the broker: queue deleted or moved")
                )
                channel.close_callbacks.add(lambda _, error: drop(one_line(error)))
                line = Line(self.link, channel, underlay)
                # Below aio-pika, whose messages take time to make and hold much that is not asked for here.
                async with answer_in_time():
                    answer = await underlay.basic_consume(self.spec.name, partial(self._receive, line))
                self._tag = answer.consumer_tag or ""
        except BaseException:
            # Also when cancelled: the broker may have the subscription already, and would send to nobody.
            await self.link.close_channel(channel)
            raise
        self._line, self._dropped = line, dropped

    async def _keep(self) -> None:
        """Subscribe again, whenever the channel is lost or the broker cancels the subscription (queue deleted)."""
        while True:
            lost = await self._dropped
            log.warning("subscription lost, subscribing again", queue=self.spec.name, reason=lost)
            pause, told = _FIRST_PAUSE, VoxelmillError
            while True:
                try:
                    await self._subscribe()
                    break
                except (BrokerUnavailableError, TopologyMismatchError) as error:
                    if told is not type(error):  # an outage is one event, however often we try
                        told = type(error)
                        log.warning("not subscribed, trying again", queue=self.spec.name, reason=str(error))
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # many consumers: not all at once
                    pause = min(pause * 2, _LONGEST_PAUSE)
            log.info("subscribed again", queue=self.spec.name)

    async def _receive(self, line: Line, incoming: DeliveredMessage) -> None:
        delivery = RabbitDelivery(self, line, incoming)
        self._in_hand.add(delivery)
        # In a task of our own: the library cancels those that it has started when their channel is lost.
        self._spawn(self._hand_over(delivery))

    async def _hand_over(self, delivery: RabbitDelivery) -> None:
        async with self._slots:
            if delivery.lost:
                self._in_hand.discard(delivery)
            elif self._cancelled:
                with suppress(BrokerUnavailableError):
                    await delivery.release()
            else:
                await self._callback(delivery)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, delivery: RabbitDelivery) -> None:
        """Count a delivery as settled; close its channel if that was the last one on a channel without use."""
        self._in_hand.discard(delivery)
        if self._cancelled or delivery.line is not self._line:
            self._spawn(self._close_if_done(delivery.line))

    async def _close_if_done(self, line: Line) -> None:
        self._in_hand = {delivery for delivery in self._in_hand if not delivery.lost}
        if all(delivery.line is not line for delivery in self._in_hand):
            await line.close()


class RabbitDelivery:
    """A message in hand."""

    __slots__ = ("_consumer", "_incoming", "_message", "_settled", "_tag", "line")

    def __init__(self, consumer: RabbitConsumer, line: Line, incoming: DeliveredMessage) -> None:
        self.line = line
        self._consumer = consumer
        self._incoming = incoming
        self._tag: int = incoming.delivery_tag or 0
        self._message = from_amqp(incoming)
        self._settled = False
        line.delivered(self._tag)

    @property
    def message(self) -> Message:
        """The message, byte for byte as published."""
        return self._message

    @property
    def queue(self) -> str:
        """The queue that it was consumed from."""
        return self._consumer.spec.name

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return attempt_of(self._message)

    @property
    def redelivered(self) -> bool:
        """Whether the broker has delivered this before."""
        return bool(self._incoming.redelivered)

    @property
    def lost(self) -> bool:
        """Whether the channel that brought it is closed: the broker delivers it again, here or elsewhere."""
        return self.line.lost

    async def ack(self) -> None:
        """Settle: the work is done."""
        self._check()
        self._acknowledge()

    async def retry(self, rung: int, headers: Mapping[str, str | int]) -> None:
        """Settle: a copy goes to the rung; when the broker holds it, the original is acknowledged."""
        self._check()
        merged = {HEADER_ATTEMPT: self.attempt, **self._message.headers, **headers}
        await self._consumer.link.publish([copy_publication(self._message, merged, self._consumer.spec.rung(rung))])
        self._acknowledge()

    async def dead_letter(self, headers: Mapping[str, str | int]) -> None:
        """Settle: a copy goes to the dead-letter queue; when the broker holds it, the original is acknowledged."""
        self._check()
        merged = dead_headers(self._message, headers)
        copy = copy_publication(
            self._message, merged, self.queue, exchange=DEAD_LETTER_EXCHANGE, dead_id=uuid.uuid4().hex
        )
        await self._consumer.link.publish([copy])
        self._acknowledge()

    async def release(self) -> None:
        """Settle: hand the message back at once, unchanged.

        RabbitMQ 3.x counts it as if a consumer had died. Before that count could bury a message that was only handed
        back, a fresh copy takes its place at the end of the queue.
        """
        self._check()
        if delivery_count(self._incoming) >= self._consumer.link.delivery_limit // 2:
            await self._consumer.link.publish([copy_publication(self._message, self._message.headers, self.queue)])
            self._acknowledge()
            return
        with self._consumer.link.errors():
            async with answer_in_time():
                await self.line.release(self._tag)
        self._done()

    def _acknowledge(self) -> None:
        self.line.acknowledge(self._tag)
        self._done()

    def _check(self) -> None:
        if self._settled:
            raise RuntimeError(f"{self.queue}: message {self._message.message_id} is settled already")
        if self.lost:
            raise DeliveryLostError(
                f"{self._consumer.link.name}: the connection that brought message {self._message.message_id}"
                " is lost; the broker delivers it again"
            )

    def _done(self) -> None:
        self._settled = True
        self._consumer.forget(self)
