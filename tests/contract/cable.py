"""Between a client and a broker: a connection that a test can cut."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aio_pika

_CONSUME = bytes((0, 60, 0, 20))
"""How the method `basic.consume` begins (AMQP 0-9-1, 1.8.3.3)."""


class Cable:
    """A TCP connection to the broker that a test can cut. `refused` counts who came while it was not plugged in."""

    def __init__(self, target: aio_pika.abc.URL) -> None:
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self.plugged_in = True
        self.refused = 0
        self.url = ""
        self.let_through = asyncio.Event()
        self.let_through.set()
        self.asked_to_consume = asyncio.Event()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        """Carry connections for the time of a block."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = str(self._target.with_port(server.sockets[0].getsockname()[1]))
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """End every connection at once, without a word to either side."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.plugged_in:
            self.refused += 1
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if _CONSUME in data and not self.let_through.is_set():
                    self.asked_to_consume.set()
                elif self.asked_to_consume.is_set():
                    await self.let_through.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
