"""The broker's configuration of docker-compose.yml, tried on a real broker."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import pytest
import yaml

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder
from servers.rabbitmq import TRIES
from stack.rabbitmq import PORTS, RabbitMQ
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import TOPOLOGY

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "rabbitmq"
IN_THE_IMAGE = "/etc/rabbitmq/definitions.d"
PASSWORD = "letters4nd5digits"  # noqa: S105 - of a broker that lives as long as this test


def configure(broker: RabbitMQ) -> None:
    """Give a private broker the files that compose mounts; only its port and its folders are its own."""
    broker.configure()
    definitions = broker.folder / "definitions.d"
    definitions.mkdir(exist_ok=True)
    shutil.copy(DEPLOY / "definitions.json", definitions)
    shutil.copy(DEPLOY / "advanced.config", broker.folder)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    access = re.sub(r"\$\{RABBITMQ_PASSWORD[^}]*\}", PASSWORD, compose["configs"]["broker-access"]["content"])
    (definitions / "access.json").write_text(json.dumps(json.loads(access)))
    settings = (DEPLOY / "rabbitmq.conf").read_text()
    assert IN_THE_IMAGE in settings
    settings = settings.replace(IN_THE_IMAGE, str(definitions)) + f"listeners.tcp.1 = 127.0.0.1:{broker.port}\n"
    (broker.folder / "rabbitmq.conf").write_text(settings)


def start(data: Path) -> tuple[RabbitMQ, list[PrivateServer]]:
    """Start the broker on free ports; another process may take one first, so try again."""
    for tries_left in reversed(range(TRIES)):
        broker = RabbitMQ(data, free_ports(PORTS))
        configure(broker)
        servers = [PrivateServer(broker.port_mapper().as_arguments(), fresh_folder("epmd"))]
        servers.insert(0, PrivateServer(broker.broker().as_arguments(), fresh_folder("rabbitmq"), goodbye="SIGKILL"))
        try:
            servers[0].wait_until(broker.broker().is_ready)
        except BaseException as error:
            for server in servers:
                server.stop()
            if not tries_left or not isinstance(error, ServerEndedError):
                raise
        else:
            return broker, servers
    raise AssertionError("the last try raises or returns")


@pytest.fixture
def deployed_url(rabbitmq_installed, tmp_path):
    """The address of a broker with the configuration of compose."""
    broker, servers = start(tmp_path / "broker")
    try:
        parts = urlsplit(broker.url)
        yield urlunsplit(parts._replace(netloc=f"voxelmill:{PASSWORD}@127.0.0.1:{parts.port}"))
    finally:
        for server in servers:
            server.stop()


@pytest.mark.rabbitmq
async def test_the_broker_has_user_queues_and_bindings_before_any_service_starts(deployed_url):
    """The definitions are read, the user of `.env` may enter, and the services find nothing that contradicts them."""
    async with await aio_pika.connect(deployed_url) as connection:
        channel = await connection.channel()
        for queue in TOPOLOGY.queues:
            for name in (queue.name, queue.dead_letters, *(queue.rung(number) for number in range(len(queue.ladder)))):
                await channel.declare_queue(name, passive=True)
    transport = open_transport(deployed_url)
    try:
        await transport.declare(TOPOLOGY)  # raises on a mismatch
        event = ObjectUploaded(object=ObjectRef(bucket="inbox", key="k", etag="e", size=1), found_by="command")
        envelope = Envelope.wrap(event, "test")
        await transport.publish([Message(envelope.encode(), envelope.routing_key, str(envelope.id))])
    finally:
        await transport.close()
    async with await aio_pika.connect(deployed_url) as connection:
        queue = await (await connection.channel()).declare_queue("ingest.object-uploaded", passive=True)
        assert queue.declaration_result.message_count == 1

    guest = urlunsplit(urlsplit(deployed_url)._replace(netloc=f"guest:guest@127.0.0.1:{urlsplit(deployed_url).port}"))
    with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):  # RabbitMQ's own default user was not made
        await aio_pika.connect(guest)
