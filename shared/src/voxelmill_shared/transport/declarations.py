"""What stands on a RabbitMQ broker for a list of queues: exchanges, queues with their arguments, bindings, policies.

This module alone decides it. The transport declares from it, and `definitions` writes the documents from it.

Every queue is durable and of the type quorum, on every version of the broker (a classic queue is not replicated any
more from 4.0 on). Arguments are fixed when a queue is made; the limit of deliveries is always given, because its
default differs between versions (none before 4.0, 20 since).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from voxelmill_shared.transport.topology import DEAD_LETTER_EXCHANGE, DELIVERY_LIMIT, EVENTS_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxelmill_shared.transport.topology import QueueSpec

NO_DELIVERY_LIMIT = 2_000_000_000
"""For dead letters: none may ever leave its queue by being looked at. 3.x has no word for "none"."""


@dataclass(frozen=True, slots=True)
class ExchangeDeclaration:
    """A durable exchange."""

    name: str
    kind: Literal["topic", "direct", "fanout"]


@dataclass(frozen=True, slots=True)
class QueueDeclaration:
    """A durable queue and its arguments."""

    name: str
    arguments: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class BindingDeclaration:
    """Which routing keys of an exchange go to a queue."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class PolicyDeclaration:
    """What an operator, but no AMQP client, can set: it may be changed on a running broker without a mismatch."""

    name: str
    pattern: str
    definition: Mapping[str, str | int]
    purpose: str


@dataclass(frozen=True, slots=True)
class Declarations:
    """All that stands on a broker, in an order in which it can be declared."""

    exchanges: tuple[ExchangeDeclaration, ...] = ()
    queues: tuple[QueueDeclaration, ...] = ()
    bindings: tuple[BindingDeclaration, ...] = ()
    policies: tuple[PolicyDeclaration, ...] = ()


EXCHANGES = (
    ExchangeDeclaration(EVENTS_EXCHANGE, "topic"),
    ExchangeDeclaration(DEAD_LETTER_EXCHANGE, "direct"),
)

_SAFE: Mapping[str, str | int] = {
    # What expires or is buried leaves its queue only when the next one holds it; that asks for reject-publish.
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def declarations(queues: Sequence[QueueSpec], delivery_limit: int = DELIVERY_LIMIT) -> Declarations:
    """Say what stands on a broker for these queues, with their rungs and their dead-letter queues.

    Parameters
    ----------
    queues
        The services' queues.
    delivery_limit
        How many consumers may die with a message in hand before the broker itself puts it into the dead letters.
    """
    return Declarations(
        exchanges=(*EXCHANGES, *_foreign(queues)),
        queues=tuple(declared for queue in queues for declared in _queues(queue, delivery_limit)),
        bindings=tuple(binding for queue in queues for binding in _bindings(queue)),
        policies=_policies(queues),
    )


def _foreign(queues: Sequence[QueueSpec]) -> tuple[ExchangeDeclaration, ...]:
    sources = dict.fromkeys((source.name, source.kind) for queue in queues for source in queue.foreign)
    return tuple(ExchangeDeclaration(name, kind) for name, kind in sources)


def _queues(queue: QueueSpec, delivery_limit: int) -> tuple[QueueDeclaration, ...]:
    # Each one after those that it dead-letters to, but for the circle: a dead letter that a client rejects is replayed,
    # back into the queue that it came from, by the broker itself (see `rabbit_dead_letters`).
    dead = QueueDeclaration(
        queue.dead_letters,
        {
            **_SAFE,
            "x-delivery-limit": NO_DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue.name,
        },
    )
    main = QueueDeclaration(
        queue.name,
        {
            **_SAFE,
            "x-delivery-limit": delivery_limit,
            "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
            "x-dead-letter-routing-key": queue.name,
        },
    )
    # Two rungs of one length share a queue.
    waits = {queue.rung(number): wait for number, wait in enumerate(queue.ladder)}
    rungs = (
        QueueDeclaration(
            name,
            {
                **_SAFE,
                "x-message-ttl": int(wait.total_seconds() * 1000),
                "x-delivery-limit": delivery_limit,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue.name,
            },
        )
        for name, wait in waits.items()
    )
    return (dead, main, *rungs)


def _bindings(queue: QueueSpec) -> tuple[BindingDeclaration, ...]:
    return (
        BindingDeclaration(DEAD_LETTER_EXCHANGE, queue.dead_letters, queue.name),
        *(BindingDeclaration(EVENTS_EXCHANGE, queue.name, pattern) for pattern in queue.bindings),
        *(BindingDeclaration(source.name, queue.name, source.routing_key) for source in queue.foreign),
    )


def _policies(queues: Sequence[QueueSpec]) -> tuple[PolicyDeclaration, ...]:
    if not queues:
        return ()
    services = "|".join(sorted({queue.consumer for queue in queues}))
    return (
        PolicyDeclaration(
            "voxelmill-leaders",
            rf"^({services})\.",
            {"queue-leader-locator": "balanced"},
            "the leaders of new queues are spread over the nodes of a cluster, instead of lying on the declaring one",
        ),
    )
