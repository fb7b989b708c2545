"""Notifications from RabbitMQ: the queue behind the exchange that MinIO, RustFS or Ceph RGW publishes to.

A message is acknowledged once what it tells of is announced and confirmed; N replicas share the queue. One that is not
understood goes into the queue's dead letters, byte for byte. While a broker is away messages stay where they are.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from voxelmill_ingest.triggers.normaliser import load
from voxelmill_ingest.triggers.notification import UnknownNotificationError
from voxelmill_ingest.triggers.reach import NOT_ANNOUNCED, Reach
from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError, VoxelmillError
from voxelmill_shared.metrics import NOTIFICATIONS
from voxelmill_shared.transport import base
from voxelmill_shared.transport.topology import TopologyMismatchError
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from voxelmill_ingest.triggers.announcer import Announcer
    from voxelmill_shared.transport.topology import QueueSpec

log = structlog.get_logger("voxelmill")

SOURCE = "amqp"
PREFETCH = 64
"""How many messages are in hand at a time: each waits for a confirmation, and those are confirmed in batches."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries while a broker is away; they double."""
LAST_SECONDS = 5.0
"""How long the end of the process may take to settle what is in hand. The broker keeps the rest."""


class WrongExchangeError(VoxelmillError, ValueError):
    """The exchange stands on the broker, but is not what the settings say."""


class AmqpSource:
    """Announces what a queue of notifications tells of.

    Parameters
    ----------
    announcer
        Where that goes.
    transport
        An open transport on the broker that the store publishes to. It stays the caller's.
    queue
        `NOTIFICATIONS`, with the exchange that it is bound to.
    """

    def __init__(self, announcer: Announcer, transport: base.Transport, queue: QueueSpec) -> None:
        self._announcer = announcer
        self._transport = transport
        self._queue = queue
        self._reach = Reach(f"AMQP queue {queue.name}")
        self._broker = Reach("broker of the events")
        self._subscribed = False

    async def run(self) -> None:
        """Take notifications until cancelled. A broker that is away is waited for.

        Raises
        ------
        WrongExchangeError
            If the exchange is of another type than the settings say, or is not durable.
        TopologyMismatchError
            If the queue stands in another form.
        """
        in_hand: set[asyncio.Task[None]] = set()
        # An error that nobody foresaw ends the process: the broker hands the message to another one, and buries it when
        # it has ended twenty.
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(task: asyncio.Task[None]) -> None:
            in_hand.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not failed.done():
                failed.set_exception(error)

        async def callback(delivery: base.Delivery) -> None:
            task = asyncio.create_task(self._settle(delivery))
            in_hand.add(task)
            task.add_done_callback(ended)
            await asyncio.wait([task])

        consumer = await self._subscribe(callback)
        try:
            await failed
        finally:
            await consumer.cancel()
            if in_hand:
                _, late = await asyncio.wait(in_hand, timeout=LAST_SECONDS)
                for task in late:
                    task.cancel()

    async def check(self) -> None:
        """Return if the queue is being read and its broker answers.

        Raises
        ------
        SourceUnavailableError
            If the queue has not been subscribed to.
        BrokerUnavailableError
            If its broker does not answer.
        """
        await self._reach.check()
        await self._transport.check()

    async def _subscribe(self, callback: base.Callback) -> base.Consumer:
        pause = FIRST_PAUSE
        while True:
            try:
                consumer = await self._transport.consume(self._queue, callback, prefetch=PREFETCH)
            except TopologyMismatchError as error:
                raise self._explained(error) from error
            except BrokerUnavailableError as error:
                self._reach.lost(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._reach.found()
                return consumer

    def _explained(self, error: TopologyMismatchError) -> VoxelmillError:
        """Say what to do: a queue of ours may be made anew, an exchange of theirs is for the settings to follow."""
        if not any(f"exchange {exchange.name} " in str(error) for exchange in self._queue.foreign):
            return error
        found, _, _ = str(error).partition(";")
        step = (
            "set VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE_TYPE to the type it has; one that is not durable must be deleted"
        )
        return WrongExchangeError(f"{found}; {step}")

    async def _settle(self, delivery: base.Delivery) -> None:
        """Announce, then acknowledge, however long that takes; or bury what is not understood."""
        try:
            told = self._announcer.read(load(delivery.message.body), SOURCE)
        except UnknownNotificationError as error:
            NOTIFICATIONS.labels(SOURCE, "undecodable").inc()
            log.error("notification not understood, it is in the dead letters", queue=delivery.queue, reason=str(error))
            headers = _headers(error)

            async def end() -> None:
                await delivery.dead_letter(headers)
        else:

            async def end() -> None:
                await self._announcer.announce(told, SOURCE)
                await delivery.ack()

        pause = FIRST_PAUSE
        while True:
            try:
                await end()
            except DeliveryLostError:
                return  # the broker delivers it again; what was announced twice has one id
            except NOT_ANNOUNCED as error:
                self._broker.lost(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._broker.found()
                return


def _headers(error: UnknownNotificationError) -> dict[str, str | int]:
    return {
        base.HEADER_ERROR_CLASS: "undecodable",
        base.HEADER_REASON: str(error)[:1000],
        base.HEADER_SERVICE_VERSION: __version__,
        base.HEADER_DEAD_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
