"""One connection to RabbitMQ: made when needed, made anew when lost, its errors turned into ours.

Connections are plain ones: whoever uses the link decides what a loss means. A publisher is told at once and asks again;
a consumer subscribes again by itself (`rabbit_consumer`). Nothing here waits without a bound.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import aio_pika
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from yarl import URL

from voxelmill_shared.errors import BrokerUnavailableError, UnroutableError
from voxelmill_shared.transport.topology import DEAD_LETTER_EXCHANGE, EVENTS_EXCHANGE, TopologyMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
    from pamqp.common import FieldTable

    from voxelmill_shared.transport.topology import QueueSpec

ANSWER_SECONDS = 10.0
"""How long the broker may take to answer anything but a publication."""
CONFIRM_SECONDS = 30.0
"""How long the broker may take to confirm a publication (it stops reading while its disk or memory is short)."""
IN_FLIGHT = 200
"""How many publications may wait for their confirmation at a time."""
_HEARTBEAT_SECONDS = "30"
# No message may ever leave a dead-letter queue by being looked at: the limit that RabbitMQ 4 sets by itself is 20, and
# 3.x knows no word for "none".
_NEVER = 2_000_000_000


class RabbitLink:
    """A connection to one broker, and its publisher.

    Parameters
    ----------
    url
        `amqp://` or `amqps://`, with the vhost as its path.
    delivery_limit
        See `DELIVERY_LIMIT`.
    """

    def __init__(self, url: str, delivery_limit: int) -> None:
        parsed = URL(url)
        self._url = parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=_HEARTBEAT_SECONDS)
        self.name = f"RabbitMQ at {parsed.host}:{parsed.port or (5671 if parsed.scheme == 'amqps' else 5672)}"
        self.delivery_limit = delivery_limit
        self._connection: AbstractConnection | None = None
        self._connecting = asyncio.Lock()
        self._publisher: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._exchanges: dict[str, AbstractExchange] = {}
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._ids: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closed = False

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the client library's errors into `BrokerUnavailableError`, with the broker's name and one reason."""
        try:
            yield
        except CONNECTION_EXCEPTIONS as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise BrokerUnavailableError(f"{self.name}: {reason}") from error
        except asyncio.CancelledError as error:
            # The library cancels its own tasks when a connection ends, and so whoever waits for them.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BrokerUnavailableError(f"{self.name}: the connection ended") from error

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel, on a new connection if need be.

        Raises
        ------
        BrokerUnavailableError
            If there is no connection to be had.
        """
        connection = await self._connect()
        with self.errors():
            channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.initialize()
        return channel

    async def _connect(self) -> AbstractConnection:
        async with self._connecting:
            if self._closed:
                raise BrokerUnavailableError(f"{self.name}: this transport is closed")
            if self._connection is not None and not self._connection.connected.is_set():
                await self._drop(self._connection)
                self._connection = None
            if self._connection is None:
                with self.errors():
                    self._connection = await aio_pika.connect(self._url, timeout=ANSWER_SECONDS)
            return self._connection

    async def close(self) -> None:
        """Close the connection; what consumers have in hand goes back to its queues."""
        self._closed = True
        async with self._connecting:
            if self._connection is not None:
                await self._drop(self._connection)
                self._connection = None

    async def _drop(self, connection: AbstractConnection) -> None:
        with suppress(BrokerUnavailableError), self.errors():
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.close()

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel, if the connection has not done so already."""
        with suppress(BrokerUnavailableError), self.errors():
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.close()

    async def publish(self, messages: Sequence[tuple[str, str, aio_pika.Message]]) -> None:
        """Publish messages, given as (exchange, routing key, message), and wait until each one is confirmed.

        Raises
        ------
        UnroutableError
            If the broker has no queue for one of them. All others are confirmed.
        BrokerUnavailableError
            If one of them was not confirmed.
        """
        # One channel for the whole call: when it is lost, all that is left of the call fails at once.
        exchanges = await self._open_exchanges()
        results = await asyncio.gather(
            *(self._publish(exchanges[exchange], key, message) for exchange, key, message in messages),
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        unexpected = [error for error in errors if not isinstance(error, UnroutableError)]
        for error in (*unexpected, *errors):
            raise error

    async def _publish(self, exchange: AbstractExchange, routing_key: str, message: aio_pika.Message) -> None:
        # The library finds out which publication was returned by its message id alone. So two with one id never fly
        # together: else the wrong one would be taken for returned, and the other for confirmed.
        message.message_id = message.message_id or uuid.uuid4().hex
        unique = self._ids.setdefault(message.message_id, asyncio.Lock())
        async with self._window, unique:
            with self.errors():
                try:
                    await exchange.publish(message, routing_key, mandatory=True, timeout=CONFIRM_SECONDS)
                except PublishError:
                    reason = f"{routing_key}: no queue wants message {message.message_id} ({self.name})"
                    raise UnroutableError(reason) from None
                except DeliveryError:
                    raise BrokerUnavailableError(f"{self.name}: refused message {message.message_id}") from None

    async def _open_exchanges(self) -> dict[str, AbstractExchange]:
        async with self._opening:
            if self._publisher is None or self._publisher.is_closed:
                publisher = await self.channel(confirms=True)
                self._exchanges = await self._declare_exchanges(publisher)
                self._exchanges[""] = publisher.default_exchange
                self._publisher = publisher
            return self._exchanges

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make sure that the exchanges and the queues with their rungs and dead-letter queues exist.

        Raises
        ------
        TopologyMismatchError
            If one exists with other arguments.
        """
        channel = await self.channel()
        try:
            await self._declare_exchanges(channel)
            for queue in queues:
                await self._declare(channel, queue)
        finally:
            await self.close_channel(channel)

    async def _declare_exchanges(self, channel: AbstractChannel) -> dict[str, AbstractExchange]:
        exchanges = {}
        for name, kind in ((EVENTS_EXCHANGE, "topic"), (DEAD_LETTER_EXCHANGE, "direct")):
            with self._declaring(name):
                exchanges[name] = await channel.declare_exchange(name, kind, durable=True, timeout=ANSWER_SECONDS)
        return exchanges

    async def _declare(self, channel: AbstractChannel, queue: QueueSpec) -> None:
        buried: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": _NEVER}
        safe: FieldTable = {
            "x-queue-type": "quorum",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        main: FieldTable = {
            **safe,
            "x-delivery-limit": self.delivery_limit,
            "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
            "x-dead-letter-routing-key": queue.name,
        }
        with self._declaring(queue.dead_letters):
            dead = await channel.declare_queue(
                queue.dead_letters, durable=True, arguments=buried, timeout=ANSWER_SECONDS
            )
            await dead.bind(DEAD_LETTER_EXCHANGE, queue.name, timeout=ANSWER_SECONDS)
        with self._declaring(queue.name):
            declared = await channel.declare_queue(queue.name, durable=True, arguments=main, timeout=ANSWER_SECONDS)
            for pattern in queue.bindings:
                await declared.bind(EVENTS_EXCHANGE, pattern, timeout=ANSWER_SECONDS)
        for number, wait in enumerate(queue.ladder):
            rung: FieldTable = {
                **safe,
                "x-message-ttl": int(wait.total_seconds() * 1000),
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue.name,
            }
            with self._declaring(queue.rung(number)):
                await channel.declare_queue(queue.rung(number), durable=True, arguments=rung, timeout=ANSWER_SECONDS)

    @contextmanager
    def _declaring(self, name: str) -> Iterator[None]:
        with self.errors():
            try:
                yield
            except ChannelPreconditionFailed as error:
                raise TopologyMismatchError(
                    f"{self.name}: {name} exists with other arguments; empty and delete it first ({error})"
                ) from error
