"""Notifications from RabbitMQ, as MinIO, RustFS and Ceph publish them, on a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from integration.trigger_kit import Announced, Cable, announcer, is_well, listening, running, until, until_answered
from unit.ingest.notification_bodies import TEST_EVENT, ceph, minio, rustfs
from voxelmill_ingest.triggers import amqp
from voxelmill_ingest.triggers.amqp import AmqpSource, WrongExchangeError
from voxelmill_shared.transport.base import HEADER_ERROR_CLASS, HEADER_REASON
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import NOTIFICATIONS, ForeignExchange, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.rabbitmq

EXCHANGE = ForeignExchange("bucket.events")
QUEUE = replace(NOTIFICATIONS, foreign=(EXCHANGE,))


class Store:
    """What an object store does with a broker."""

    def __init__(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        self._exchange = exchange

    async def publish(self, *bodies: Any, routing_key: str = "uploads") -> None:
        """Publish notifications as Ceph does: persistent, without id or content type, returned if nobody wants them."""
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            await self._exchange.publish(aio_pika.Message(raw, delivery_mode=2), routing_key, mandatory=True)


@asynccontextmanager
async def store(url: str, exchange: ForeignExchange = EXCHANGE) -> AsyncIterator[Store]:
    """Connect a store, which insists that its exchange is of the type that it knows (MinIO declares it itself)."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        yield Store(await channel.declare_exchange(exchange.name, exchange.kind, durable=True))


@asynccontextmanager
async def source(folder: Path, events: str, notifications: str | None = None) -> AsyncIterator[AmqpSource]:
    """Run a source between two addresses of brokers."""
    transport = open_transport(events)
    theirs = open_transport(notifications) if notifications else transport
    found = AmqpSource(announcer(folder, transport), theirs, QUEUE)
    try:
        async with running(found.run):
            yield found
    finally:
        await transport.close()
        await theirs.close()


async def subscribed(found: AmqpSource) -> None:
    await until_answered(lambda: is_well(found.check), "the source did not subscribe")


async def left(url: str) -> tuple[int, int]:
    """How many notifications wait, and how many are dead."""
    transport = open_transport(url)
    try:
        await transport.declare(Topology((QUEUE,)))
        (count,) = await transport.counts()
    finally:
        await transport.close()
    return count.ready, count.dead


async def test_what_the_stores_publish_is_announced_and_acknowledged(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """MinIO, RustFS and Ceph in one queue; what is no upload or outside of the inbox is acknowledged too."""
    async with listening(rabbitmq_vhost_url) as heard, source(tmp_path, rabbitmq_vhost_url) as found:
        await subscribed(found)
        async with store(rabbitmq_vhost_url) as publisher:
            await publisher.publish(
                TEST_EVENT, minio("p/deleted", event="s3:ObjectRemoved:Delete"), ceph("x", bucket="b")
            )
            await publisher.publish(minio("p/a b+é.dcm"), rustfs("p/c d"), ceph("p/%2B+"), routing_key="any.key.at.all")
        await until(lambda: len(heard.keys) == 3, "not all was announced")
    assert sorted(heard.keys) == ["p/%2B+", "p/a b+é.dcm", "p/c d"]
    assert {event.found_by for event in heard.events} == {"notification"}
    assert await left(rabbitmq_vhost_url) == (0, 0)


async def test_what_is_not_understood_is_among_the_dead_letters_as_it_came(
    rabbitmq_vhost_url: str, tmp_path: Path
) -> None:
    """Byte for byte, with the reason, where `voxelmill dlq` looks; what comes after it goes on."""
    bad = b'{"Records": [{"eventSource": "\xff"}]} '
    async with listening(rabbitmq_vhost_url) as heard, source(tmp_path, rabbitmq_vhost_url) as found:
        await subscribed(found)
        async with store(rabbitmq_vhost_url) as publisher:
            await publisher.publish(bad, ceph("good"))
        await until(lambda: heard.keys == ["good"], "the good one was not announced")
    transport = open_transport(rabbitmq_vhost_url)
    letters = [letter async for letter in transport.dead_letters(NOTIFICATIONS)]
    await transport.close()
    assert [letter.message.body for letter in letters] == [bad]
    assert letters[0].message.headers[HEADER_ERROR_CLASS] == "undecodable"
    assert letters[0].message.headers[HEADER_REASON] == "the body is not UTF-8"
    assert letters[0].dead_at is not None
    assert await left(rabbitmq_vhost_url) == (0, 1)


async def test_replicas_share_the_queue(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """Each notification is announced by one of them."""
    keys = [f"p/{number}" for number in range(200)]
    async with (
        listening(rabbitmq_vhost_url) as heard,
        source(tmp_path, rabbitmq_vhost_url) as one,
        source(tmp_path, rabbitmq_vhost_url) as other,
    ):
        await subscribed(one)
        await subscribed(other)
        async with store(rabbitmq_vhost_url) as publisher:
            await publisher.publish(*(ceph(key) for key in keys))
        await until(lambda: len(heard.keys) >= len(keys), "not all was announced")
    assert sorted(heard.keys) == sorted(keys)


async def test_a_broker_that_is_away_is_waited_for(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """Away at the start, and away later: readiness says so, and what was published meanwhile is announced."""
    cable = Cable(rabbitmq_vhost_url)
    async with listening(rabbitmq_vhost_url) as heard, cable.laid(), store(rabbitmq_vhost_url) as publisher:
        await cable.cut()
        async with source(tmp_path, rabbitmq_vhost_url, cable.url) as found:
            assert not await is_well(found.check)
            await cable.mend()
            await subscribed(found)
            await publisher.publish(ceph("first"))
            await until(lambda: heard.keys == ["first"], "nothing was announced")
            await cable.cut()
            assert not await is_well(found.check)
            await publisher.publish(ceph("second"))
            await cable.mend()
            await until(lambda: "second" in heard.keys, "it did not come back")
            await subscribed(found)
    # The acknowledgement of the first may have been on the cable when it was cut: then it came, and was told, again.
    assert set(heard.keys) == {"first", "second"}
    assert len(set(heard.ids)) == 2


async def test_nothing_is_acknowledged_before_it_is_announced(
    rabbitmq_vhost_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the events' broker is away the queue keeps the message, also when the process ends meanwhile."""
    monkeypatch.setattr(amqp, "LAST_SECONDS", 0.1)
    cable = Cable(rabbitmq_vhost_url)
    async with listening(rabbitmq_vhost_url) as heard, cable.laid(), store(rabbitmq_vhost_url) as publisher:
        async with source(tmp_path, cable.url, rabbitmq_vhost_url) as found:
            await subscribed(found)
            await cable.cut()
            await publisher.publish(ceph("kept"))
            await until(lambda: found._broker.away, "it did not try to announce")
            assert heard.keys == []
        assert await left(rabbitmq_vhost_url) == (1, 0)
        await cable.mend()
        async with source(tmp_path, cable.url, rabbitmq_vhost_url):
            await until(lambda: heard.keys == ["kept"], "it was not announced")
    assert await left(rabbitmq_vhost_url) == (0, 0)


async def test_an_outage_while_a_message_is_in_hand_is_sat_out(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """The same process announces what it had in hand."""
    cable = Cable(rabbitmq_vhost_url)
    async with (
        listening(rabbitmq_vhost_url) as heard,
        cable.laid(),
        store(rabbitmq_vhost_url) as publisher,
        source(tmp_path, cable.url, rabbitmq_vhost_url) as found,
    ):
        await subscribed(found)
        await cable.cut()
        await publisher.publish(ceph("kept"))
        await until(lambda: found._broker.away, "it did not try to announce")
        await cable.mend()
        await until(lambda: heard.keys == ["kept"], "it was not announced")


async def test_an_exchange_of_another_type_is_one_line(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """It names the exchange, what it is, and the setting."""
    async with store(rabbitmq_vhost_url, ForeignExchange(EXCHANGE.name, "fanout")):
        transport = open_transport(rabbitmq_vhost_url)
        found = AmqpSource(announcer(tmp_path, transport), transport, QUEUE)
        with pytest.raises(WrongExchangeError) as refused:
            await found.run()
        await transport.close()
    assert "bucket.events" in str(refused.value)
    assert "fanout" in str(refused.value)
    assert "set VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE_TYPE" in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_process_with_a_wrong_exchange_ends_with_one_line(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """Exit code 2, for the settings are wrong, and no traceback."""
    async with store(rabbitmq_vhost_url, ForeignExchange(EXCHANGE.name, "fanout")):
        environment = {
            **os.environ,
            "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
            "VOXELMILL_INBOX_URL": str(tmp_path / "inbox"),
            "VOXELMILL_WORK_URL": str(tmp_path / "work"),
            "VOXELMILL_RESULTS_URL": str(tmp_path / "results"),
            "VOXELMILL_DATABASE_URL": f"sqlite:///{tmp_path}/v.db",
            "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
            "VOXELMILL_LOG_LEVEL": "ERROR",
            "VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE": EXCHANGE.name,
        }
        command = [sys.executable, "-m", "voxelmill_ingest"]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "EXCHANGE_TYPE" in ended.stderr


async def test_a_direct_exchange_with_its_key(rabbitmq_vhost_url: str, tmp_path: Path) -> None:
    """MinIO can be set up so: what is published with the key of the settings is taken."""
    direct = ForeignExchange("direct.events", "direct", "uploads")
    transport = open_transport(rabbitmq_vhost_url)
    found = AmqpSource(announcer(tmp_path, transport), transport, replace(NOTIFICATIONS, foreign=(direct,)))
    heard: Announced
    async with listening(rabbitmq_vhost_url) as heard, running(found.run):
        await subscribed(found)
        async with store(rabbitmq_vhost_url, direct) as publisher:
            await publisher.publish(minio("k"), routing_key="uploads")
        await until(lambda: heard.keys == ["k"], "it was not announced")
    await transport.close()
