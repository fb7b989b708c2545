"""The documents that are generated from the topology, and the reading of the broker's refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from voxelmill_shared.transport.declarations import declarations
from voxelmill_shared.transport.mismatch import mismatch
from voxelmill_shared.transport.topology import TOPOLOGY, ForeignExchange, QueueSpec

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("document", "path"), [("json", "deploy/rabbitmq/definitions.json"), ("markdown", "docs/topology.md")]
)
def test_documents_are_up_to_date(document: str, path: str) -> None:
    """The files in the repository are what the command prints.

    If not: `python -m voxelmill_shared.transport.definitions json > deploy/rabbitmq/definitions.json`, and the same
    with `markdown > docs/topology.md`.
    """
    command = [sys.executable, "-m", "voxelmill_shared.transport.definitions", document]
    assert (ROOT / path).read_bytes() == subprocess.run(command, check=True, capture_output=True).stdout


def test_definitions_hold_no_secret() -> None:
    """No users, no permissions, no passwords: who may enter is the installation's business."""
    document = json.loads((ROOT / "deploy/rabbitmq/definitions.json").read_text())
    assert set(document) == {"vhosts", "policies", "exchanges", "queues", "bindings"}
    assert document["vhosts"] == [{"name": "/"}]


def test_every_queue_is_fit_for_any_version_of_the_broker() -> None:
    """Quorum, with a limit of deliveries that is said; what moves messages by itself loses none on the way."""
    wanted = declarations(TOPOLOGY.queues)
    names = {queue.name for queue in wanted.queues}
    assert len(names) == len(wanted.queues) == 6 * len(TOPOLOGY.queues)
    for queue in wanted.queues:
        assert queue.arguments["x-queue-type"] == "quorum"
        assert "x-delivery-limit" in queue.arguments
        if "x-dead-letter-exchange" in queue.arguments:
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
            assert queue.arguments["x-overflow"] == "reject-publish"
    assert all(re.search(policy.pattern, name) for policy in wanted.policies for name in names)


def test_every_dead_letter_has_a_place() -> None:
    """What the broker buries is bound to a queue, and what leaves one falls into one that is declared before it.

    But for the circle: what is replayed out of a dead-letter queue goes back into the queue that it came from.
    """
    wanted = declarations(TOPOLOGY.queues)
    order = [queue.name for queue in wanted.queues]
    bound = {(binding.exchange, binding.routing_key): binding.queue for binding in wanted.bindings}
    for queue in wanted.queues:
        exchange = queue.arguments.get("x-dead-letter-exchange")
        key = queue.arguments.get("x-dead-letter-routing-key")
        if exchange is not None:
            target = bound[exchange, key] if exchange else key
            replayed = queue.name.removesuffix(".dlq") == target
            assert order.index(target) < order.index(queue.name) or replayed


def test_rungs_of_one_length_are_one_queue() -> None:
    """A ladder may hold the same wait twice."""
    second = timedelta(seconds=1)
    spec = QueueSpec("a.b", ("c",), (second, second, 2 * second))
    assert [queue.name for queue in declarations([spec]).queues] == ["a.b.dlq", "a.b", "a.b.retry.1s", "a.b.retry.2s"]


REFUSALS = {
    "inequivalent arg 'x-message-ttl' for queue 'a.retry.5s' in vhost 'v': received the value '5000' of type 'signedint' "
    "but current is the value '7000' of type 'long'": (
        "queue a.retry.5s in vhost v: x-message-ttl is 7000 there and must be 5000; when it is empty, delete it "
        "(rabbitmqctl delete_queue --vhost v a.retry.5s) and start again: it is declared anew"
    ),
    "inequivalent arg 'durable' for exchange 'e' in vhost '/': received 'true' but current is 'false'": (
        "exchange e in vhost /: durable is false there and must be true; delete it (in the management interface, or "
        "with rabbitmqadmin) and start again: it is declared anew"
    ),
    "inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received the value '' of type 'longstr' but "
    "current is none": (
        "queue q in vhost /: x-dead-letter-exchange is none there and must be empty; when it is empty, delete it "
        "(rabbitmqctl delete_queue --vhost / q) and start again: it is declared anew"
    ),
    "something\nnew": (
        "queue q exists in another form (PRECONDITION_FAILED - something new); delete it and start again"
    ),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_becomes_one_line(reason: str) -> None:
    """The argument, what stands, what is wanted and the next step; an unknown text is passed on."""
    assert mismatch("queue q", f"PRECONDITION_FAILED - {reason}") == REFUSALS[reason]


def test_foreign_exchanges_are_declared_and_bound() -> None:
    """An exchange that object stores publish to: once, of the type that they insist on."""
    source = ForeignExchange("bucket-events", "fanout", "")
    wanted = declarations([QueueSpec("a.b", (), foreign=(source,)), QueueSpec("c.d", (), foreign=(source,))])
    assert [(e.name, e.kind) for e in wanted.exchanges[2:]] == [("bucket-events", "fanout")]
    assert [b.queue for b in wanted.bindings if b.exchange == "bucket-events"] == ["a.b", "c.d"]
