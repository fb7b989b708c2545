"""What the broker itself holds and has seen: queue lengths, dead letters, and every event, by a tap on the exchange."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import aio_pika
from aio_pika.exceptions import AMQPError
from yarl import URL

from voxelmill_shared.transport.topology import EVENTS_EXCHANGE, TOPOLOGY, rung_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from datetime import timedelta

    from aio_pika.abc import AbstractChannel

ResultT = TypeVar("ResultT")
TAP = "faults.tap"
PATIENCE_SECONDS = 60.0
logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # a broker that is killed is no news here
AWAY = (AMQPError, OSError, TimeoutError)


class LoopThread:
    """An event loop in a thread of its own, for tests that do one thing after the other."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="faults-loop")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, ResultT], seconds: float = PATIENCE_SECONDS) -> ResultT:
        """Do it there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def close(self) -> None:
        """End the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it lies there. `document` is empty if its body is no JSON object."""

    queue: str
    body: bytes
    headers: dict[str, Any]
    document: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def data(self) -> dict[str, Any]:
        """What the event says."""
        return self.document.get("data") or {}

    @property
    def object_key(self) -> str:
        """The key of the object that it is about, if it is about one."""
        return (self.data.get("object") or {}).get("key", "")


@dataclass(slots=True)
class Seen:
    """Every event that the tap was given, by its id: how often, and what it says."""

    times: Counter[str] = field(default_factory=Counter)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)


class Broker:
    """Asks a RabbitMQ, a connection for each question: it may have been killed since the last one."""

    def __init__(self, url: str, loop: LoopThread, ladder: Sequence[timedelta]) -> None:
        self._url = url
        self._loop = loop
        self._ladder = tuple(ladder)
        self.seen = Seen()

    def open_tap(self) -> None:
        """Let every event go into a queue of our own too. The exchange must be there."""

        async def declare(channel: AbstractChannel) -> None:
            queue = await channel.declare_queue(TAP, durable=True, arguments={"x-queue-type": "quorum"})
            await queue.bind(EVENTS_EXCHANGE, "#")

        self._ask(declare)

    def drain_tap(self) -> None:
        """Take what the tap holds into `seen`."""

        async def drain(channel: AbstractChannel) -> None:
            queue = await channel.get_queue(TAP, ensure=False)
            last = None
            while incoming := await queue.get(fail=False, timeout=5):
                last = incoming
                document = json_object(incoming.body)
                name = str(document.get("id", "")) or hashlib.sha256(incoming.body).hexdigest()
                self.seen.times[name] += 1
                self.seen.documents.setdefault(name, document)
            if last is not None:
                await last.ack(multiple=True)

        self._ask(drain)

    def lengths(self) -> dict[str, int]:
        """How many messages wait in each queue and each rung of Voxelmill's, dead letters left out."""
        names = [
            name
            for queue in TOPOLOGY.queues
            for name in (queue.name, *(f"{queue.name}.retry.{rung_name(wait)}" for wait in self._ladder))
        ]
        return self._lengths(names)

    def dead(self) -> dict[str, int]:
        """How many dead letters each queue has."""
        return self._lengths([queue.dead_letters for queue in TOPOLOGY.queues])

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters, left where they are."""

        async def look(channel: AbstractChannel) -> list[DeadLetter]:
            found = []
            for spec in TOPOLOGY.queues:
                queue = await channel.get_queue(spec.dead_letters, ensure=False)
                while incoming := await queue.get(fail=False, timeout=5):
                    letter = DeadLetter(spec.name, incoming.body, dict(incoming.headers), json_object(incoming.body))
                    found.append(letter)
            return found  # not acknowledged: with the channel's end they are back

        return self._ask(look)

    def drop_dead_letters(self) -> None:
        """Empty the dead-letter queues."""

        async def drop(channel: AbstractChannel) -> None:
            for spec in TOPOLOGY.queues:
                await (await channel.get_queue(spec.dead_letters, ensure=False)).purge()

        self._ask(drop)

    def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Publish bodies to Voxelmill's exchange under routing keys, confirmed."""

        async def publish(channel: AbstractChannel) -> None:
            exchange = await channel.get_exchange(EVENTS_EXCHANGE, ensure=False)
            for routing_key, body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, routing_key, timeout=30)

        self._ask(publish)

    def _lengths(self, names: Sequence[str]) -> dict[str, int]:
        async def count(channel: AbstractChannel) -> dict[str, int]:
            found = {}
            for name in names:
                queue = await channel.declare_queue(name, passive=True, timeout=10)
                found[name] = queue.declaration_result.message_count or 0
            return found

        return self._ask(count)

    def _ask(self, question: Callable[[AbstractChannel], Awaitable[ResultT]]) -> ResultT:
        async def ask() -> ResultT:
            connection = aio_pika.Connection(URL(self._url))
            try:
                await connection.connect(timeout=5)
                async with connection.channel() as channel:
                    return await question(channel)
            finally:
                await connection.close()

        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._loop.run(ask())
            except AWAY:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)


def json_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; anything else is an empty one."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
