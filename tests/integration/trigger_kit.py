"""What the tests of the sources of notifications share: a source that runs, what it announced, a cable that can be cut."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from voxelmill_ingest.triggers.announcer import Announcer
from voxelmill_shared.events import Envelope, ObjectUploaded, open_envelope
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INGEST, TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from voxelmill_shared.transport.base import Delivery, Transport

SOON = 30.0


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail, with what was expected, if it does not come true."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


async def until_answered(ask: Callable[[], Coroutine[Any, Any, object]], what: str) -> None:
    """Wait for a condition that must be asked for."""
    end = time.monotonic() + SOON
    while not await ask():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.05)


class Announced:
    """What ingest would hear."""

    def __init__(self) -> None:
        self.events: list[ObjectUploaded] = []
        self.ids: list[str] = []

    async def __call__(self, delivery: Delivery) -> None:
        """Take one announcement."""
        envelope = Envelope.decode(delivery.message.body)
        event = open_envelope(envelope)
        assert isinstance(event, ObjectUploaded)
        self.events.append(event)
        self.ids.append(str(envelope.id))
        await delivery.ack()

    @property
    def keys(self) -> list[str]:
        """The keys, in the order in which they were announced."""
        return [event.object.key for event in self.events]


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Announced]:
    """Hear what is announced on a broker."""
    transport = open_transport(url)
    await transport.declare(TOPOLOGY)
    heard = Announced()
    consumer = await transport.consume(INGEST, heard, prefetch=100)
    try:
        yield heard
    finally:
        await consumer.cancel()
        await transport.close()


def announcer(folder: Path, transport: Transport) -> Announcer:
    """Make an announcer for an inbox whose bucket is `inbox`."""
    return Announcer(LocalStore(folder / "inbox", "inbox"), transport, "voxelmill/ingest/test")


@asynccontextmanager
async def running(run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a source; it is cancelled at the end and must not have ended by itself."""
    task = asyncio.create_task(run())
    try:
        yield task
    finally:
        ended = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not ended, "the source ended by itself"


async def is_well(check: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Whether a readiness check passes."""
    from voxelmill_shared.errors import VoxelmillError

    try:
        await check()
    except VoxelmillError:
        return False
    return True


class Cable:
    """A TCP connection to a server that a test can cut. While it is cut, the server's address refuses connections."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._port = 0
        self.url = ""

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        """Carry connections for the time of a block; `url` is then the server's address through the cable."""
        await self.mend()
        credentials, at, _ = self._target.netloc.rpartition("@")
        self.url = urlunsplit(self._target._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))
        try:
            yield self
        finally:
            await self.cut()

    async def cut(self) -> None:
        """End every connection at once, and take no new one until `mend`."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()
            await self._server.wait_closed()
            self._server = None

    async def mend(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname
        assert self._target.port
        far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, far_writer]
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()
