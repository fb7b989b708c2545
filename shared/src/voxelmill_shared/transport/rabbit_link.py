"""One connection to RabbitMQ: made when needed, made anew when lost, its errors turned into ours.

Connections are plain ones: whoever uses the link decides what a loss means. A publisher is told at once and asks again;
a consumer subscribes again by itself (`rabbit_consumer`). Nothing here waits without a bound.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import aio_pika
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from yarl import URL

from voxelmill_shared.errors import BrokerUnavailableError, UnroutableError
from voxelmill_shared.transport.declarations import EXCHANGES, declarations
from voxelmill_shared.transport.mismatch import mismatch
from voxelmill_shared.transport.rabbit_log import leave_out_what_is_told
from voxelmill_shared.transport.topology import TopologyMismatchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from types import TracebackType

    from aio_pika.abc import AbstractChannel, AbstractConnection
    from aiormq import Channel

    from voxelmill_shared.transport.declarations import Declarations, ExchangeDeclaration
    from voxelmill_shared.transport.rabbit_messages import Publication
    from voxelmill_shared.transport.topology import QueueSpec

ANSWER_SECONDS = 10.0
"""How long the broker may take to answer anything but a publication."""
CONFIRM_SECONDS = 30.0
"""How long the broker may take to confirm a publication (it stops reading while its disk or memory is short)."""
IN_FLIGHT = 200
"""How many publications may wait for their confirmation at a time."""
_HEARTBEAT_SECONDS = "30"


def one_line(error: BaseException | None) -> str:
    """Say what an error of the client library is, in one line; none is a connection that ended without one."""
    return "ended" if error is None else " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")


def answer_in_time() -> asyncio.Timeout:
    """Bound what the broker is asked. The library's own `timeout` loses a cancellation that meets the answer.

    It is `asyncio.wait_for`, which does so on Python 3.11: whoever was cancelled would go on for ever, and a drain
    would wait for it.
    """
    return asyncio.timeout(ANSWER_SECONDS)


@contextmanager
def cancellation_heeded() -> Iterator[None]:
    """Raise the cancellation that came inside the block, where the library has raised something else instead."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def connect(url: URL) -> AbstractConnection:
    """Connect to a broker, in time or not at all."""
    connection = aio_pika.Connection(url)
    try:
        async with answer_in_time():
            await connection.connect()
    except BaseException:
        # Thrown away unclosed it would close itself later, perhaps where no event loop runs any more.
        await connection.close()
        raise
    return connection


class Explained:
    """A context that turns the client library's errors into `BrokerUnavailableError`, with one reason in one line.

    It is entered for every message, several times, so it is no generator and keeps no state.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise another error in place of the library's own."""
        if error is None:
            return
        if isinstance(error, CONNECTION_EXCEPTIONS):
            raise BrokerUnavailableError(f"{self._name}: {one_line(error)}") from error
        if isinstance(error, asyncio.CancelledError):
            # The library cancels its own tasks when a connection ends, and so whoever waits for them.
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise BrokerUnavailableError(f"{self._name}: the connection ended") from error


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
        leave_out_what_is_told()
        parsed = URL(url)
        self._url = parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=_HEARTBEAT_SECONDS)
        self.name = f"RabbitMQ at {parsed.host}:{parsed.port or (5671 if parsed.scheme == 'amqps' else 5672)}"
        self.delivery_limit = delivery_limit
        self._explained = Explained(self.name)
        self._connection: AbstractConnection | None = None
        self._connecting = asyncio.Lock()
        self._publisher: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._outlet: Channel | None = None
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._flying: dict[str, asyncio.Future[None]] = {}
        self._closed = False

    def errors(self) -> Explained:
        """Turn the client library's errors into `BrokerUnavailableError`, with the broker's name and one reason."""
        return self._explained

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
            async with answer_in_time():
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
                with self.errors(), cancellation_heeded():
                    self._connection = await connect(self._url)
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
            async with answer_in_time():
                await connection.close()

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Close a channel, if the connection has not done so already."""
        with suppress(BrokerUnavailableError), self.errors():
            async with answer_in_time():
                await channel.close()

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Publish, and wait until each publication is confirmed.

        Raises
        ------
        UnroutableError
            If the broker has no queue for one of them. All others are confirmed.
        BrokerUnavailableError
            If one of them was not confirmed.
        """
        # One channel for the whole call: when it is lost, all that is left of the call fails at once.
        outlet = self._outlet if self._outlet is not None and not self._outlet.is_closed else await self._open_outlet()
        if len(publications) == 1:
            await self._publish(outlet, publications[0])
            return
        results = await asyncio.gather(
            *(self._publish(outlet, publication) for publication in publications), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        unexpected = [error for error in errors if not isinstance(error, UnroutableError)]
        for error in (*unexpected, *errors):
            raise error

    async def _publish(self, outlet: Channel, publication: Publication) -> None:
        # The library finds out which publication was returned by its message id alone. So two with one id never fly
        # together: else the wrong one would be taken for returned, and the other for confirmed.
        name = publication.message_id
        while (other := self._flying.get(name)) is not None:
            await asyncio.wait({other})
        self._flying[name] = landed = asyncio.get_running_loop().create_future()
        try:
            async with self._window:
                await self._publish_alone(outlet, publication)
        finally:
            del self._flying[name]
            landed.set_result(None)

    async def _publish_alone(self, outlet: Channel, publication: Publication) -> None:
        with self._explained:
            try:
                # Straight to the channel below aio-pika's: its messages and exchanges add nothing to what is known
                # here but time. What waits is the confirmation, not (wait=True) the socket, one after the other.
                await outlet.basic_publish(
                    publication.body,
                    exchange=publication.exchange,
                    routing_key=publication.routing_key,
                    properties=publication.properties,
                    mandatory=True,
                    timeout=CONFIRM_SECONDS,
                    wait=False,
                )
            except PublishError:
                key, name = publication.routing_key, publication.message_id
                raise UnroutableError(f"{key}: no queue wants message {name} ({self.name})") from None
            except DeliveryError:
                raise BrokerUnavailableError(f"{self.name}: refused message {publication.message_id}") from None

    async def _open_outlet(self) -> Channel:
        async with self._opening:
            if self._outlet is None or self._outlet.is_closed:
                publisher = await self.channel(confirms=True)
                await self._declare_exchanges(publisher)
                with self._explained:
                    self._outlet = cast("Channel", await publisher.get_underlay_channel())
                self._publisher = publisher  # it closes the channel below when nobody holds it
            return self._outlet

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make sure that the exchanges and the queues with their rungs and dead-letter queues exist.

        Raises
        ------
        TopologyMismatchError
            If one exists with other arguments.
        """
        await self._declare(declarations(queues, self.delivery_limit))

    async def declare_dead_letters(self, queue: QueueSpec) -> None:
        """Make sure that the dead-letter queue of a queue exists in the form that a replay relies on.

        Raises
        ------
        TopologyMismatchError
            If it exists with other arguments.
        """
        wanted = declarations([queue], self.delivery_limit)
        dead = tuple(declared for declared in wanted.queues if declared.name == queue.dead_letters)
        await self._declare(replace(wanted, queues=dead, bindings=()))

    async def _declare(self, wanted: Declarations) -> None:
        channel = await self.channel()
        try:
            await self._declare_exchanges(channel, wanted.exchanges)
            declared = {}
            for queue in wanted.queues:
                async with self._declaring(f"queue {queue.name}"):
                    declared[queue.name] = await channel.declare_queue(
                        queue.name, durable=True, arguments=dict(queue.arguments)
                    )
            for binding in wanted.bindings:
                with self.errors():
                    async with answer_in_time():
                        await declared[binding.queue].bind(binding.exchange, binding.routing_key)
        finally:
            await self.close_channel(channel)

    async def _declare_exchanges(
        self, channel: AbstractChannel, exchanges: Sequence[ExchangeDeclaration] = EXCHANGES
    ) -> None:
        for exchange in exchanges:
            async with self._declaring(f"exchange {exchange.name}"):
                await channel.declare_exchange(exchange.name, exchange.kind, durable=True)

    @asynccontextmanager
    async def _declaring(self, what: str) -> AsyncIterator[None]:
        with self.errors():
            try:
                async with answer_in_time():
                    yield
            except ChannelPreconditionFailed as error:
                raise TopologyMismatchError(f"{self.name}: {mismatch(what, str(error))}") from error
