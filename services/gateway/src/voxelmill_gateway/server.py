"""Serving the application while a context is open."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from voxelmill_gateway.access.policy import refuse_open_door
from voxelmill_gateway.application import application
from voxelmill_gateway.connection import Connection
from voxelmill_shared.health import PortTakenError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from voxelmill_gateway.gateway import Gateway


CLOSE_SECONDS = 5
"""How long the end of the process waits for answers that are under way; then their connections are cut."""


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: signals belong to the process that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the socket says that it is TCP; with it on, an answer of head and
    # body waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
async def serve(gateway: Gateway, host: str, port: int) -> AsyncIterator[int]:
    """Serve the gateway while the context is open; yield the port (of use when `port` is 0).

    Raises
    ------
    OpenDoorError
        If other machines could reach the address while there is no access control.
    PortTakenError
        If the address cannot be listened on.
    """
    refuse_open_door(gateway.settings, host)
    listener = _listen(host, port)
    server = _Server(
        uvicorn.Config(
            application(gateway),
            # A line for every request that is none would let anybody fill the log.
            log_level="error",
            access_log=False,
            http=Connection,
            ws="none",
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        gateway.stopping.set()
        server.should_exit = True
        await task
        listener.close()
