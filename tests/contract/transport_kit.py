"""What the tests of the transports share: queues of their own, an inbox, consumers in other processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika

from voxelmill_shared.transport.base import DeadLetter, Delivery, Message, QueueCount, Transport
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.rabbit import RabbitTransport
from voxelmill_shared.transport.topology import DELIVERY_LIMIT, QueueSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_shared.transport.base import Consumer

SOON = 20.0
"""Seconds within which everything must have happened, also on a machine that is busy with other things."""
SHORT_LADDER = (timedelta(milliseconds=200), timedelta(milliseconds=500))


def open_with_limit(url: str, delivery_limit: int) -> Transport:
    """Open a transport whose patience with messages that kill consumers is not the usual one."""
    if url.startswith("embedded:"):
        return EmbeddedTransport(Path(url.removeprefix("embedded://")), delivery_limit=delivery_limit)
    return RabbitTransport(url, delivery_limit=delivery_limit)


@dataclass
class Broker:
    """A broker under test, and names on it that no other test uses."""

    url: str
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    delivery_limit: int = DELIVERY_LIMIT
    transports: list[Transport] = field(default_factory=list)
    queues: list[QueueSpec] = field(default_factory=list)

    @property
    def is_embedded(self) -> bool:
        """Whether there is no server behind it."""
        return self.url.startswith("embedded:")

    def open(self) -> Transport:
        """Open one more transport; it is closed at the end of the test."""
        if self.delivery_limit == DELIVERY_LIMIT:
            transport = open_transport(self.url)
        else:
            transport = open_with_limit(self.url, self.delivery_limit)
        self.transports.append(transport)
        return transport

    def key(self, suffix: str) -> str:
        """Give a routing key of this test's own."""
        return f"{self.prefix}.{suffix}"

    def queue(self, name: str = "work", *bindings: str, ladder: tuple[timedelta, ...] = SHORT_LADDER) -> QueueSpec:
        """Describe a queue of this test's own; without bindings it wants every message of the test."""
        spec = QueueSpec(f"{self.prefix}.{name}", tuple(self.key(b) for b in bindings or ("#",)), ladder)
        self.queues.append(spec)
        return spec

    def message(self, number: int | str = 0, key: str = "series.validated.v1", **headers: str | int) -> Message:
        """Make a small message whose id is `number`."""
        return Message(f"body {number}".encode(), self.key(key), str(number), headers)


class Inbox:
    """A callback that lays deliveries aside, for a test to take one by one."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    async def __call__(self, delivery: Delivery) -> None:
        self._arrived.put_nowait(delivery)

    async def next(self) -> Delivery:
        """Wait for the next delivery."""
        return await asyncio.wait_for(self._arrived.get(), SOON)

    async def take(self, count: int) -> list[Delivery]:
        """Wait for that many deliveries."""
        return [await self.next() for _ in range(count)]

    def __len__(self) -> int:
        return self._arrived.qsize()


async def subscribe(transport: Transport, queue: QueueSpec, *, prefetch: int = 1) -> tuple[Inbox, Consumer]:
    """Consume a queue into an inbox."""
    inbox = Inbox()
    return inbox, await transport.consume(queue, inbox, prefetch=prefetch)


async def counted(transport: Transport, queue: QueueSpec, **expected: int) -> QueueCount:
    """Wait until a queue's counts are as expected, and return them; fail with what they are instead."""
    until = time.monotonic() + SOON
    while True:
        (count,) = [count for count in await transport.counts() if count.queue == queue.name]
        if all(getattr(count, name) == value for name, value in expected.items()):
            return count
        assert time.monotonic() < until, f"expected {expected}, found {count}"
        await asyncio.sleep(0.02)


class OtherProcess:
    """A consumer in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Wait for the next thing that it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), SOON)
        assert line, "the other process has ended"
        return line.decode().strip()

    def go_on(self) -> None:
        """Give it the line that it waits for."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def replaying_process(broker: Broker, queue: QueueSpec) -> AsyncIterator[OtherProcess]:
    """Replay dead letters of a queue in another process: a batch each time it is told to go on, and then it says so."""
    async with other_process(broker, queue, "replay", prefetch=10) as other:
        yield other


@asynccontextmanager
async def other_process(broker: Broker, queue: QueueSpec, manner: str, *, prefetch: int) -> AsyncIterator[OtherProcess]:
    """Consume a queue in another process, which lasts at most as long as the block."""
    tests = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("transport_process.py")),
        *(broker.url, queue.name, str(prefetch), str(broker.delivery_limit), manner),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    other = OtherProcess(process)
    try:
        assert await other.line() == "ready"
        yield other
    finally:
        await other.kill()


async def letters(transport: Transport, queue: QueueSpec) -> list[DeadLetter]:
    """Look through all dead letters of a queue."""
    return [letter async for letter in transport.dead_letters(queue)]


async def delete_queues(url: str, queues: list[QueueSpec]) -> None:
    """Delete queues with their rungs and dead letters from a RabbitMQ broker."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        for queue in queues:
            for name in (queue.name, queue.dead_letters, *(queue.rung(n) for n in range(len(queue.ladder)))):
                await channel.queue_delete(name)
