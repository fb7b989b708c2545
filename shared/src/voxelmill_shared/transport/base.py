"""What every transport can do. One contract suite (`tests/contract/test_transport.py`) holds them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from voxelmill_shared.transport.topology import QueueSpec, Topology

    Callback = Callable[["Delivery"], Awaitable[None]]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

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
    """A message in a dead-letter queue, seen without taking it out. `handle` names it for `replay` and `drop`."""

    handle: str
    queue: str
    message: Message
    dead_at: datetime | None


class DeadLettersHeldError(TransientError):
    """Somebody else has the dead letters of this queue in hand: they are to be seen again when that one has ended."""

    error_class = "dead-letters-held"


class DeadLetterHold(Protocol[T_co]):
    """The dead letters of one queue in our hand. What is not settled when the hold ends is where it was.

    Both settlements are durable when they return. A process that is killed in the middle has settled each letter or has
    not: none is lost, and none is put back twice.
    """

    @property
    def seen(self) -> Sequence[T_co]:
        """What the hold's `view` made of each letter, oldest first."""
        ...

    async def replay(self, handles: Sequence[str], notices: Mapping[str, Message] | None = None) -> int:
        """Put letters back onto the queue that they came from: attempt 1, replay count one up, history kept.

        Parameters
        ----------
        handles
            Which. One that names no letter of this hold is not counted, nor is one that is settled.
        notices
            By handle, a message that tells of it. It is published, and durable, no later than the letter goes.

        Returns
        -------
        int
            How many letters were put back.

        Raises
        ------
        UnroutableError
            If a notice is wanted by no queue. No letter has gone.
        """
        ...

    async def drop(self, handles: Sequence[str], notices: Mapping[str, Message] | None = None) -> int:
        """Give letters up: they are in no queue any more. Parameters and errors as `replay`."""
        ...


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

    def hold(self, queue: QueueSpec, view: Callable[[DeadLetter], T]) -> AbstractAsyncContextManager[DeadLetterHold[T]]:
        """Take the dead letters of a queue in hand for the time of a `with` block, to see or to settle them.

        A queue that does not exist has none. `view` is called with each letter and must not raise; only what it
        returns is kept, so a queue of any length and letters of any size need little memory. On RabbitMQ nobody else
        sees the letters meanwhile.

        Raises
        ------
        DeadLettersHeldError
            If another one has them in hand, and keeps them for longer than a look takes.
        """
        ...

    async def replay(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Put dead letters back onto their queue, see `DeadLetterHold.replay`."""
        ...

    async def drop(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Give dead letters up, see `DeadLetterHold.drop`."""
        ...

    async def check(self) -> None:
        """Return if the broker answers; raise `BrokerUnavailableError` with the reason if not."""
        ...

    async def close(self) -> None:
        """Let go of the broker. Deliveries in hand are delivered again to others."""
        ...
