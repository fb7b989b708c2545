"""Serving the application while a context is open."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from voxelmill_gateway.application import application
from voxelmill_shared.health import PortTakenError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from voxelmill_shared.health import Checks


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: signals belong to the process that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)  # from here on a connection waits instead of being refused
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; stop what listens there or choose another port"
        ) from None
    return listener


@asynccontextmanager
async def serve(checks: Checks, host: str, port: int) -> AsyncIterator[int]:
    """Serve the gateway while the context is open; yield the port (of use when `port` is 0).

    Raises
    ------
    PortTakenError
        If the address cannot be listened on.
    """
    listener = _listen(host, port)
    server = _Server(uvicorn.Config(application(checks), log_level="warning", access_log=False, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()
