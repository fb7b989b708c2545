"""The topology on a real RabbitMQ: what services declare and what the definitions import are the same thing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aio_pika
import pytest

from contract.transport_kit import Broker, counted, delete_queues
from servers.rabbitmq import CONTROL_SECONDS, PROGRAMS
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.declarations import declarations
from voxelmill_shared.transport.definitions import definitions, to_json
from voxelmill_shared.transport.rabbit import RabbitTransport
from voxelmill_shared.transport.topology import INDEX, MESH, TOPOLOGY, Topology, TopologyMismatchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.rabbitmq
ROOT = Path(__file__).parents[2]


class Control:
    """The command `rabbitmqctl` of the run's own broker."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._file = folder / "definitions.json"

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [PROGRAMS / "rabbitmqctl", "--quiet", *arguments],
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=CONTROL_SECONDS,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def load(self, document: dict[str, Any]) -> None:
        """Import definitions, as an operator does."""
        self._file.write_text(to_json(document))
        self.run("import_definitions", str(self._file))

    def standing(self, vhost: str) -> dict[str, list[Any]]:
        """Return what stands on a virtual host, in the form of the definitions."""
        self.run("export_definitions", str(self._file))
        exported = json.loads(self._file.read_text())
        return {
            kind: sorted((entry for entry in exported[kind] if entry["vhost"] == vhost), key=repr)
            for kind in ("policies", "exchanges", "queues", "bindings")
        }


@pytest.fixture
def control(rabbitmq: dict[str, str], tmp_path: Path) -> Control:
    """Give the tool of the run's broker; it must be our own."""
    if "environment" not in rabbitmq:
        pytest.skip("VOXELMILL_TEST_BROKER_URL: only a broker of the test run's own can be administered")
    return Control(json.loads(rabbitmq["environment"]), tmp_path)


def expected(vhost: str) -> dict[str, list[Any]]:
    """Return the definitions as `Control.standing` gives them."""
    document = definitions(vhost=vhost)
    return {kind: sorted(document[kind], key=repr) for kind in ("policies", "exchanges", "queues", "bindings")}


def same(standing: dict[str, list[Any]], wanted: dict[str, list[Any]]) -> None:
    """Compare without regard to the order of keys."""
    for kind, entries in wanted.items():
        assert {json.dumps(e, sort_keys=True) for e in standing[kind]} == {
            json.dumps(e, sort_keys=True) for e in entries
        }, kind


async def test_imported_definitions_are_what_services_declare(control: Control, rabbitmq_vhost_url: str) -> None:
    """Imported by RabbitMQ's own tool, then declared by a service: nothing is added, nothing contradicts."""
    vhost = urlsplit(rabbitmq_vhost_url).path[1:]
    await asyncio.to_thread(control.load, definitions(vhost=vhost))
    imported = await asyncio.to_thread(control.standing, vhost)
    same(imported, expected(vhost))
    transport = RabbitTransport(rabbitmq_vhost_url)
    await transport.declare(TOPOLOGY)
    assert await asyncio.to_thread(control.standing, vhost) == imported
    await transport.publish([Message(b"x", "series.segmented.v1", "1")])
    for queue in (MESH, INDEX):
        await counted(transport, queue, ready=1)
    await transport.close()


async def test_declared_queues_are_what_the_definitions_say(control: Control, rabbitmq_vhost_url: str) -> None:
    """On an empty broker, twice over, by two at a time: the same exchanges, queues and bindings."""
    transports = [RabbitTransport(rabbitmq_vhost_url) for _ in range(2)]
    for _ in range(2):
        await asyncio.gather(*(transport.declare(TOPOLOGY) for transport in transports))
    counts = await transports[0].counts()
    assert {count.queue for count in counts} == {queue.name for queue in TOPOLOGY.queues}
    vhost = urlsplit(rabbitmq_vhost_url).path[1:]
    same(await asyncio.to_thread(control.standing, vhost), {**expected(vhost), "policies": []})
    for transport in transports:
        await transport.close()


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[Broker]:
    """Give the run's broker, and take away what the test made on it."""
    broker = Broker(rabbitmq_url)
    yield broker
    for transport in broker.transports:
        await transport.close()
    await delete_queues(broker.url, broker.queues)


async def test_a_queue_with_another_argument(broker: Broker) -> None:
    """One line: the queue, the argument, what stands, what is wanted, and the command that removes it."""
    queue = broker.queue()
    await broker.open().declare(Topology((queue,)))
    other = RabbitTransport(broker.url, delivery_limit=7)
    broker.transports.append(other)
    with pytest.raises(TopologyMismatchError) as caught:
        await other.declare(Topology((queue,)))
    line = str(caught.value)
    assert "\n" not in line
    assert f"queue {queue.name} in vhost /: x-delivery-limit is 20 there and must be 7; " in line
    assert f"rabbitmqctl delete_queue --vhost / {queue.name}" in line
    await other.check()


async def test_a_queue_of_another_type(broker: Broker) -> None:
    """A classic queue, made by hand or by another program, is named and left alone, with what is in it."""
    queue = broker.queue()
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        await channel.declare_queue(queue.name, durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"kept"), queue.name)
        with pytest.raises(TopologyMismatchError) as caught:
            await broker.open().declare(Topology((queue,)))
        assert f"queue {queue.name} in vhost /: x-dead-letter-exchange is none there and must be" in str(caught.value)
        kept = await channel.declare_queue(queue.name, passive=True)
        assert kept.declaration_result.message_count == 1


async def test_an_argument_that_is_missing(broker: Broker) -> None:
    """What stands without an argument that is wanted is told so, whatever the words of the broker for nothing."""
    queue = broker.queue()
    arguments = dict(declarations([queue]).queues[1].arguments)
    del arguments["x-overflow"]
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        await channel.declare_queue(queue.name, durable=True, arguments=arguments)
    with pytest.raises(TopologyMismatchError, match="x-overflow is none there and must be reject-publish; when it is"):
        await broker.open().declare(Topology((queue,)))


async def test_a_service_ends_with_one_line(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """An exchange of another type: the process says which and what to do, and ends with exit code 3."""
    async with await aio_pika.connect(rabbitmq_vhost_url) as connection, connection.channel() as channel:
        await channel.declare_exchange("voxelmill.events", "fanout", durable=True)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "voxelmill_mesh"],
        env={
            **os.environ,
            "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
            "VOXELMILL_RESULTS_URL": str(tmp_path / "results"),
            "VOXELMILL_WORK_URL": str(tmp_path / "work"),
            "VOXELMILL_INBOX_URL": str(tmp_path / "inbox"),
            "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    *logged, line = done.stderr.splitlines()
    assert line.startswith("voxelmill-mesh: RabbitMQ at 127.0.0.1:"), done.stderr
    assert ": exchange voxelmill.events in vhost test-" in line
    assert ": type is fanout there and must be topic; delete it" in line
    assert all(json.loads(entry)["level"] == "info" for entry in logged)
    assert done.returncode == 3
