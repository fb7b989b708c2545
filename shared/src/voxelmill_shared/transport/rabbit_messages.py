"""Our messages as AMQP messages and back.

A copy that goes to a rung, a dead-letter queue or back to its queue travels under that queue's name, so its own routing
key goes with it in a header. A dead letter gets a name of its own, by which `replay` finds it again. Neither header is
shown to anyone outside, and neither are those that the broker adds.

A dead letter that is replayed is carried back by the broker, which cannot change our headers but notes the way in its
own (`x-death`). From that note the reader takes that it is attempt 1 again, after one replay more.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pamqp.commands import Basic

from voxelmill_shared.transport.base import (
    HEADER_ATTEMPT,
    HEADER_DEAD_AT,
    HEADER_ERROR_CLASS,
    HEADER_REASON,
    HEADER_REPLAYS,
    DeadLetter,
    Message,
)
from voxelmill_shared.transport.headers import bounded, dead_at_of, replays_of
from voxelmill_shared.transport.topology import EVENTS_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiormq.abc import DeliveredMessage
    from pamqp.common import FieldTable

    from voxelmill_shared.transport.topology import QueueSpec

_ROUTING_KEY = "x-voxelmill-routing-key"
_DEAD_ID = "x-voxelmill-dead-id"
_PERSISTENT = 2
_OURS = frozenset({_ROUTING_KEY, _DEAD_ID})
# Left on a copy, `x-death` could make the broker take a rung for a dead-letter cycle and drop the message.
_BROKERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published, where to. `message_id` is never empty: by it alone the library knows what was returned."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    properties: Basic.Properties


def event_publication(message: Message) -> Publication:
    """Publish a message to the exchange of events."""
    return _publication(EVENTS_EXCHANGE, message.routing_key, message, dict(message.headers))


def copy_publication(
    message: Message, headers: Mapping[str, str | int], queue: str, *, exchange: str = "", dead_id: str = ""
) -> Publication:
    """Publish a copy that travels under a queue's name, with `headers` instead of the message's own."""
    extra: FieldTable = {**bounded(headers), _ROUTING_KEY: message.routing_key}
    if dead_id:
        extra[_DEAD_ID] = dead_id
    return _publication(exchange, queue, message, extra)


def _publication(exchange: str, routing_key: str, message: Message, headers: FieldTable) -> Publication:
    message_id = message.message_id or uuid.uuid4().hex
    properties = Basic.Properties(
        content_type=message.content_type, headers=headers, delivery_mode=_PERSISTENT, message_id=message_id
    )
    return Publication(exchange, routing_key, message.body, message_id, properties)


def from_amqp(incoming: DeliveredMessage) -> Message:
    """Give back the message that somebody published."""
    properties = incoming.header.properties
    found = properties.headers
    headers = (
        {
            name: value if isinstance(value, (str, int)) else _text(value)
            for name, value in found.items()
            if name not in _OURS and not name.startswith(_BROKERS)
        }
        if found
        else {}
    )
    message = Message(
        incoming.body,
        _routing_key(incoming),
        properties.message_id or "",
        headers,
        properties.content_type or "",
    )
    return _replayed(message, incoming) if found and "x-death" in found else message


def _replayed(message: Message, incoming: DeliveredMessage) -> Message:
    """Give a message its headers after the replays that only the broker knows of."""
    queue = incoming.routing_key or ""  # it has come from the dead letters, or gone there, under its queue's name
    replays = sum(_count(death) for death in _deaths(incoming) if _is_replay(death, queue))
    if not replays:
        return message
    record = _brokers_record(incoming, queue)
    again = {HEADER_ATTEMPT: 1, HEADER_REPLAYS: replays_of(message) + replays}
    return replace(message, headers={**message.headers, **record, **again})


def _is_replay(death: Mapping[str, Any], queue: str) -> bool:
    return death.get("queue") == f"{queue}.dlq" and death.get("reason") == "rejected"


def _count(death: Mapping[str, Any]) -> int:
    count = death.get("count")
    return count if isinstance(count, int) else 1


def _headers(incoming: DeliveredMessage) -> Mapping[str, Any]:
    return incoming.header.properties.headers or {}


def delivery_count(incoming: DeliveredMessage) -> int:
    """How often the broker has taken this message back from a consumer."""
    count = _headers(incoming).get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def dead_letter_of(incoming: DeliveredMessage, queue: QueueSpec) -> DeadLetter:
    """Describe a message in a dead-letter queue.

    One that the broker itself buried, because its consumers kept dying, has no headers from the runtime; the broker's
    own record takes their place.
    """
    message = from_amqp(incoming)
    dead_id = _headers(incoming).get(_DEAD_ID)
    # What the runtime has buried carries no record of the broker's. With one, the name is that of an earlier death.
    if dead_id and not _deaths(incoming):
        return DeadLetter(str(dead_id), queue.name, message, dead_at_of(message))
    headers = {**message.headers, **_brokers_record(incoming, queue.name)}
    message = Message(message.body, message.routing_key, message.message_id, headers, message.content_type)
    digest = hashlib.sha256(json.dumps([message.message_id, message.routing_key, headers]).encode() + message.body)
    return DeadLetter(digest.hexdigest(), queue.name, message, dead_at_of(message))


def _brokers_record(incoming: DeliveredMessage, queue: str) -> dict[str, str | int]:
    for death in _deaths(incoming):
        if death.get("queue") == queue:
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


def _routing_key(incoming: DeliveredMessage) -> str:
    kept = _headers(incoming).get(_ROUTING_KEY)
    if kept is not None:
        return _text(kept)
    for death in reversed(_deaths(incoming)):  # newest first, so the last one is nearest to the publisher
        keys = death.get("routing-keys")
        if isinstance(keys, list) and keys and not _is_replay(death, incoming.routing_key or ""):
            return _text(keys[0])
    return incoming.routing_key or ""


def _deaths(incoming: DeliveredMessage) -> list[dict[str, Any]]:
    deaths = _headers(incoming).get("x-death")
    return [death for death in deaths if isinstance(death, dict)] if isinstance(deaths, list) else []


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, (bytes, bytearray)) else str(value)
