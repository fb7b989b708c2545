"""What the tests of stores have in common: lists and digests, and servers that come between a store and S3."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from servers.seaweedfs import S3Server
    from voxelmill_shared.storage.base import ObjectStat, ObjectStore

MIB = 1 << 20


async def listed(store: ObjectStore, prefix: str = "") -> dict[str, ObjectStat]:
    """List by key, and make sure that no object comes twice."""
    found = [stat async for stat in store.list(prefix)]
    by_key = {stat.key: stat for stat in found}
    assert len(by_key) == len(found)
    return by_key


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class Relay:
    """Stands between a store and the real server, counts what passes, and disturbs it where a test wants that.

    `down` is given each piece of the answers and returns what is passed on: changed bytes, or None to cut the
    connection there.
    """

    def __init__(self, server: S3Server) -> None:
        host, port = server.endpoint.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self.requests: list[str] = []
        self.bytes_up = 0
        self.bytes_down = 0
        self.open = 0
        self.most_open = 0
        self.idle = asyncio.Event()
        self.down: Callable[[bytes], bytes | None] = lambda data: data
        self.endpoint = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def count(self, method: str, part: str = "") -> int:
        """Count the requests of a method whose target holds `part`."""
        return sum(request.startswith(f"{method} ") and part in request for request in self.requests)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.open += 1
        self.idle.clear()
        self.most_open = max(self.most_open, self.open)
        server_reader, server_writer = await asyncio.open_connection(*self._server)

        async def up() -> None:
            while data := await reader.read(1 << 16):
                self.bytes_up += len(data)
                line = data.split(b"\r\n", 1)[0]
                if line.endswith(b" HTTP/1.1"):
                    self.requests.append(line.removesuffix(b" HTTP/1.1").decode())
                server_writer.write(data)
                await server_writer.drain()
            server_writer.close()

        upward = asyncio.create_task(up())
        try:
            while data := await server_reader.read(1 << 16):
                passed = self.down(data)
                if passed is None:
                    break
                self.bytes_down += len(passed)
                writer.write(passed)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the store has hung up, or the test is over
        finally:
            self.open -= 1
            if not self.open:
                self.idle.set()
            upward.cancel()
            for end in (writer, server_writer):
                end.close()
            await asyncio.gather(writer.wait_closed(), server_writer.wait_closed(), upward, return_exceptions=True)

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relayed(server: S3Server) -> AsyncIterator[Relay]:
    """Put a relay before the real server."""
    relay = Relay(server)
    listener = await asyncio.start_server(relay.pass_on, "127.0.0.1", 0)
    relay.endpoint = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        listener.close()
        await relay.end()
        await listener.wait_closed()


@asynccontextmanager
async def answering(answer: Callable[[str, str], tuple[int, dict[str, str], bytes]]) -> AsyncIterator[str]:
    """Be a server of which only the answers matter: `answer` is given a request's method and target.

    For what no real server does on request, like ignoring a range. Gives the address.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = request.splitlines()[0].split(" ")
        status, headers, body = answer(method, target)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await listener.wait_closed()
