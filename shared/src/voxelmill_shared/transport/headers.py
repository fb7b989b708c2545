"""Reading what the runtime wrote into a message's headers. A header that makes no sense counts as missing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from voxelmill_shared.transport.base import HEADER_ATTEMPT, HEADER_DEAD_AT, HEADER_HISTORY, HEADER_REPLAYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxelmill_shared.transport.base import Message

MOST_ATTEMPTS = 50
"""How many attempts a history tells of."""
MOST_REASON = 1000
"""How many characters of an attempt's reason its history keeps."""
MOST_HISTORY = 64 * 1024
"""How many bytes a history has at most; a letter that is not ASCII takes six or twelve."""
MOST_COUNTED = 1_000_000
"""How far attempts and replays are counted: whoever writes more into a header means no number of ours."""
MOST_BYTES = 96 * 1024
"""How large a message's headers may be together. The broker needs room for its own beside them."""


def attempt_of(message: Message) -> int:
    """Which attempt a message is on, from 1."""
    return max(1, _number(message, HEADER_ATTEMPT, 1))


def replays_of(message: Message) -> int:
    """How often a message was replayed out of a dead-letter queue."""
    return max(0, _number(message, HEADER_REPLAYS, 0))


def history_of(message: Message) -> list[dict[str, Any]]:
    """Give a message's earlier attempts, oldest first; none if the header is not what the runtime writes."""
    try:
        history = json.loads(str(message.headers.get(HEADER_HISTORY, "[]")))
    except (ValueError, RecursionError):
        return []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        return []
    return history


def replay_headers(message: Message) -> dict[str, str | int]:
    """Give the headers of a message that is put back onto its queue: attempt 1, one replay more, the rest kept."""
    return {**message.headers, HEADER_ATTEMPT: 1, HEADER_REPLAYS: replays_of(message) + 1}


def lengthened(history: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> str:
    """Give the header of a history with one attempt more; the newest are kept, as many as there is room for.

    A message keeps its history when it is replayed, and it may be replayed every night.
    """
    kept = [*history, {**entry, "reason": str(entry.get("reason", ""))[:MOST_REASON]}][-MOST_ATTEMPTS:]
    while len(written := json.dumps(kept)) > MOST_HISTORY and len(kept) > 1:
        del kept[0]
    return written


def bounded(headers: Mapping[str, str | int]) -> dict[str, str | int]:
    """Leave out the largest headers until the rest fits into `MOST_BYTES`.

    AMQP sends all headers of a message in one frame. A larger one than was agreed upon (128 KiB with RabbitMQ) ends the
    connection, with every other message that is in hand.
    """
    kept = dict(headers)
    sizes = {name: len(name.encode()) + len(str(value).encode("utf-8", "replace")) for name, value in kept.items()}
    while sum(sizes.values()) > MOST_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        del kept[largest], sizes[largest]
    return kept


def dead_headers(message: Message, headers: Mapping[str, str | int]) -> dict[str, str | int]:
    """Give the headers of a message that is dead-lettered now, which it says unless `headers` know better."""
    return {**message.headers, HEADER_DEAD_AT: datetime.now(UTC).isoformat(), **headers}


def dead_at_of(message: Message) -> datetime | None:
    """When a message was dead-lettered, if it says so."""
    try:
        moment = datetime.fromisoformat(str(message.headers.get(HEADER_DEAD_AT, "")))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(message: Message, name: str, default: int) -> int:
    try:
        return min(int(message.headers.get(name, default)), MOST_COUNTED)
    except (ValueError, TypeError, OverflowError):  # a queue file may hold any JSON
        return default
