"""What headers may be: as large as somebody makes them, and as long as a history grows, nothing else suffers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from contract.transport_kit import Broker, counted, letters, subscribe
from voxelmill_shared.transport.base import HEADER_ATTEMPT, HEADER_HISTORY, HEADER_REASON, Message, Transport
from voxelmill_shared.transport.headers import (
    MOST_ATTEMPTS,
    MOST_BYTES,
    MOST_COUNTED,
    MOST_HISTORY,
    MOST_REASON,
    attempt_of,
    bounded,
    lengthened,
)

if TYPE_CHECKING:
    from voxelmill_shared.transport.topology import QueueSpec

LARGE = 130_500
"""Characters of a header that RabbitMQ just takes, in a frame of 128 KiB."""


async def test_a_message_with_large_headers_is_settled(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """It is tried again and dead-lettered with its own body and our reason, and what else is in hand stays in hand."""
    await transport.publish([broker.message(0, **{"x-theirs": "y" * LARGE}), broker.message(1)])
    inbox, _ = await subscribe(transport, work, prefetch=2)
    large, other = sorted(await inbox.take(2), key=lambda delivery: delivery.message.message_id)
    await large.retry(0, {HEADER_ATTEMPT: 2, HEADER_REASON: "busy " * 300})
    again = await inbox.next()
    assert (again.message.message_id, again.attempt) == ("0", 2)
    await again.dead_letter({HEADER_REASON: "no use " * 100})
    (letter,) = await letters(transport, work)
    assert (letter.message.body, letter.message.headers[HEADER_REASON]) == (b"body 0", "no use " * 100)
    await other.ack()
    await counted(transport, work, ready=0, in_hand=0, dead=1)


@pytest.mark.parametrize(
    ("said", "counted"), [(10**12, MOST_COUNTED), (float("inf"), 1), ("many", 1), (-3, 1), ("7", 7)]
)
def test_a_count_without_sense_ends_nothing(said: Any, counted: int) -> None:
    """Anybody may publish: what no attempt can be is none, and no table meets a number that it cannot hold."""
    assert attempt_of(Message(b"", "a.b", "1", {HEADER_ATTEMPT: said})) == counted


def test_the_largest_header_goes_first() -> None:
    """What fits is left as it is."""
    small = {"a": 1, "b": "c" * 1000}
    assert bounded(small) == small
    assert bounded({**small, "large": "é" * MOST_BYTES, "larger": "x" * 3 * MOST_BYTES}) == small


def test_a_history_ends_somewhere() -> None:
    """However often a message is replayed, it tells of the newest attempts, and they fit beside all else."""
    history = "[]"
    for number in range(3 * MOST_ATTEMPTS):
        history = lengthened(json.loads(history), {"attempt": number, "reason": "r" * 1000})
    assert [entry["attempt"] for entry in json.loads(history)] == list(range(2 * MOST_ATTEMPTS, 3 * MOST_ATTEMPTS))
    assert HEADER_HISTORY in bounded({HEADER_HISTORY: history})


def test_reasons_in_any_script_leave_a_history_that_fits() -> None:
    """What JSON writes in six bytes a letter is bounded too: else the whole history would be left out as too large."""
    history = "[]"
    for number in range(MOST_ATTEMPTS):
        history = lengthened(json.loads(history), {"attempt": number, "reason": "\u75c5" * 5000})
    kept = json.loads(history)
    assert len(history) <= MOST_HISTORY
    assert [entry["attempt"] for entry in kept] == list(range(MOST_ATTEMPTS - len(kept), MOST_ATTEMPTS))
    assert {len(entry["reason"]) for entry in kept} == {MOST_REASON}
    assert HEADER_HISTORY in bounded({HEADER_HISTORY: history, "x-other": "y" * 20_000})
