"""Our messages as AMQP messages and back.

A copy that goes to a rung, a dead-letter queue or back to its queue travels under that queue's name, so its own routing
key goes with it in a header. A dead letter gets a name of its own, by which `replay` finds it again. Neither header is
shown to anyone outside, and neither are those that the broker adds.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aio_pika

from voxelmill_shared.transport.base import (
    HEADER_DEAD_AT,
    HEADER_ERROR_CLASS,
    HEADER_REASON,
    DeadLetter,
    Message,
)
from voxelmill_shared.transport.headers import dead_at_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aio_pika.abc import AbstractIncomingMessage

    from voxelmill_shared.transport.topology import QueueSpec

_ROUTING_KEY = "x-voxelmill-routing-key"
_DEAD_ID = "x-voxelmill-dead-id"
_OURS = frozenset({_ROUTING_KEY, _DEAD_ID})
# Left on a copy, `x-death` could make the broker take a rung for a dead-letter cycle and drop the message.
_BROKERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")


def to_amqp(message: Message) -> aio_pika.Message:
    """Give a message as it is published to the exchange of events."""
    return _amqp(message, message.headers)


def to_amqp_copy(message: Message, headers: Mapping[str, str | int], *, dead_id: str = "") -> aio_pika.Message:
    """Give a copy that travels under a queue's name, with `headers` instead of the message's own."""
    extra: dict[str, str | int] = {_ROUTING_KEY: message.routing_key}
    if dead_id:
        extra[_DEAD_ID] = dead_id
    return _amqp(message, {**headers, **extra})


def _amqp(message: Message, headers: Mapping[str, str | int]) -> aio_pika.Message:
    return aio_pika.Message(
        message.body,
        headers=dict(headers),
        content_type=message.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message.message_id or None,
    )


def from_amqp(incoming: AbstractIncomingMessage) -> Message:
    """Give back the message that somebody published."""
    headers = {
        name: value if isinstance(value, (str, int)) else _text(value)
        for name, value in incoming.headers.items()
        if name not in _OURS and not name.startswith(_BROKERS)
    }
    return Message(
        incoming.body,
        _routing_key(incoming),
        incoming.message_id or "",
        headers,
        incoming.content_type or "",
    )


def delivery_count(incoming: AbstractIncomingMessage) -> int:
    """How often the broker has taken this message back from a consumer."""
    count = incoming.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def dead_letter_of(incoming: AbstractIncomingMessage, queue: QueueSpec) -> DeadLetter:
    """Describe a message in a dead-letter queue.

    One that the broker itself buried, because its consumers kept dying, has no headers from the runtime; the broker's
    own record takes their place.
    """
    message = from_amqp(incoming)
    dead_id = incoming.headers.get(_DEAD_ID)
    if dead_id:
        return DeadLetter(str(dead_id), queue.name, message, dead_at_of(message))
    headers = {**message.headers, **_brokers_record(incoming, queue)}
    message = Message(message.body, message.routing_key, message.message_id, headers, message.content_type)
    digest = hashlib.sha256(json.dumps([message.message_id, message.routing_key, headers]).encode() + message.body)
    return DeadLetter(digest.hexdigest(), queue.name, message, dead_at_of(message))


def _brokers_record(incoming: AbstractIncomingMessage, queue: QueueSpec) -> dict[str, str | int]:
    for death in _deaths(incoming):
        if death.get("queue") == queue.name:
            reason = _text(death.get("reason")).replace("_", "-")
            record: dict[str, str | int] = {
                HEADER_ERROR_CLASS: reason,
                HEADER_REASON: f"buried by the broker: {reason}",
            }
            moment = death.get("time")
            if isinstance(moment, datetime):
                record[HEADER_DEAD_AT] = moment.replace(tzinfo=moment.tzinfo or UTC).isoformat()
            return record
    return {}


def _routing_key(incoming: AbstractIncomingMessage) -> str:
    kept = incoming.headers.get(_ROUTING_KEY)
    if kept is not None:
        return _text(kept)
    for death in reversed(_deaths(incoming)):  # newest first, so the last one is nearest to the publisher
        keys = death.get("routing-keys")
        if isinstance(keys, list) and keys:
            return _text(keys[0])
    return incoming.routing_key or ""


def _deaths(incoming: AbstractIncomingMessage) -> list[dict[str, Any]]:
    deaths = incoming.headers.get("x-death")
    return [death for death in deaths if isinstance(death, dict)] if isinstance(deaths, list) else []


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, (bytes, bytearray)) else str(value)
