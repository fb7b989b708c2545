"""What every transport can do. One contract suite (`tests/contract/test_transport.py`) holds them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from voxelmill_shared.transport.topology import QueueSpec, Topology

    Callback = Callable[["Delivery"], Awaitable[None]]

HEADER_ATTEMPT = "x-voxelmill-attempt"
"""Which attempt this delivery is, from 1."""
HEADER_HISTORY = "x-voxelmill-history"
"""JSON list of earlier attempts: `{"attempt", "at", "error_class", "reason"}`."""
HEADER_ERROR_CLASS = "x-voxelmill-error-class"
HEADER_REASON = "x-voxelmill-reason"
HEADER_SERVICE_VERSION = "x-voxelmill-service-version"
HEADER_TRACE_ID = "x-voxelmill-trace-id"
HEADER_DEAD_AT = "x-voxelmill-dead-at"
"""When the message was dead-lettered, ISO 8601 in UTC."""
HEADER_REPLAYS = "x-voxelmill-replays"
"""How often the message was replayed out of a dead-letter queue."""


@dataclass(frozen=True, slots=True)
class Message:
    """A body with its headers. Header values are strings or integers."""

    body: bytes
    routing_key: str
    message_id: str
    headers: Mapping[str, str | int] = field(default_factory=dict)
    content_type: str = "application/cloudevents+json"


class Delivery(Protocol):
    """A message in hand. Exactly one of the four settlements ends it; the runtime alone calls them.

    What a settlement puts somewhere (a rung, the dead letters) is durable there when it returns. If the consumer dies
    before, the message is delivered again; AMQP confirms no acknowledgement, so if the broker dies just after, too.

    A settlement that raises `BrokerUnavailableError` may be tried again, but for `DeliveryLostError`: then the message
    is no longer in hand, whatever becomes of it.
    """

    @property
    def message(self) -> Message:
        """The message, byte for byte as published."""
        ...

    @property
    def queue(self) -> str:
        """The queue that it was consumed from."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1 (`HEADER_ATTEMPT`; never a broker's redelivery count)."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether this may have been delivered before (a hint)."""
        ...

    async def ack(self) -> None:
        """Settle: the work is done."""
        ...

    async def retry(self, rung: int, headers: Mapping[str, str | int]) -> None:
        """Settle: put the message, with `headers` over its own, onto a rung; it comes back after the rung's wait."""
        ...

    async def dead_letter(self, headers: Mapping[str, str | int]) -> None:
        """Settle: put the message, byte for byte and with `headers` over its own, into the dead-letter queue."""
        ...

    async def release(self) -> None:
        """Settle: hand the message back at once, unchanged; another consumer may take it."""
        ...


class Consumer(Protocol):
    """A running subscription."""

    async def cancel(self) -> None:
        """Take no more messages. Those in hand stay in hand and can still be settled."""
        ...


@dataclass(frozen=True, slots=True)
class QueueCount:
    """How full a queue is.

    `ready` waits for a consumer, `in_hand` is delivered and not settled, `waiting` is on a rung.
    """

    queue: str
    ready: int
    in_hand: int
    waiting: int
    dead: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue, seen without taking it out. `handle` names it for `replay`."""

    handle: str
    queue: str
    message: Message
    dead_at: datetime | None


class Transport(Protocol):
    """Durable queues behind one topic exchange.

    Errors: `BrokerUnavailableError` when the broker is out of reach, `UnroutableError` when no queue wants a message.
    """

    async def declare(self, topology: Topology) -> None:
        """Make sure that every queue with its rungs and its dead-letter queue exists. Idempotent."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish and wait until the broker holds every message durably.

        Raises
        ------
        UnroutableError
            If a message is wanted by no queue. Others of the same call may have been published.
        BrokerUnavailableError
            If the broker did not confirm. Any of the messages may or may not have been published.
        """
        ...

    async def consume(self, queue: QueueSpec, callback: Callback, *, prefetch: int) -> Consumer:
        """Call `callback` for every message, at most `prefetch` at a time in hand. Consumers of one queue compete.

        The callback settles the delivery and does not raise.
        """
        ...

    async def counts(self) -> list[QueueCount]:
        """How full every declared queue is."""
        ...

    def dead_letters(self, queue: QueueSpec) -> AsyncIterator[DeadLetter]:
        """Look through a dead-letter queue, oldest first, without consuming."""
        ...

    async def replay(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Put dead letters back onto the queue that they came from: attempt 1, replay count one up, history kept.

        Returns how many were put back. A crash in the middle loses none.
        """
        ...

    async def check(self) -> None:
        """Return if the broker answers; raise `BrokerUnavailableError` with the reason if not."""
        ...

    async def close(self) -> None:
        """Let go of the broker. Deliveries in hand are delivered again to others."""
        ...
