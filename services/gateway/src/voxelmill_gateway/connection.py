"""Connections that nobody keeps open by saying what they want as slowly as they like, and that send files.

The latter is an extension of ASGI, as "Zero Copy Send" is one, which Uvicorn does not have: see `sending`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from voxelmill_gateway.sending import FILES, CutShortError, Files, Sender

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Message, Receive, Scope, Send

HEAD_SECONDS: Final = 20.0
"""How long the head of a request may take, from the connection or from its first byte on (CWE-400, Slowloris)."""


class _Promise:
    """Stands in the place of bytes that are sent behind h11's back (https://h11.readthedocs.io, "sendfile")."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


class Connection(H11Protocol):
    """Uvicorn's, which also sends files, with a bound where it has none.

    Uvicorn ends only connections that are silent between two requests.
    """

    seconds: float = HEAD_SECONDS
    _waiting: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._application = self.app
        self.app = self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take in what has come: of a request, or after an answer that did not wait for all of it."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.seconds, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application send files too."""
        cycle = self.cycle

        async def sending(message: Message) -> None:
            if message["type"] == FILES:
                await self._send_files(cycle, message["files"])
            else:
                await send(message)

        await self._application(scope, receive, sending)

    async def _send_files(self, cycle: RequestResponseCycle, files: Files) -> None:
        """Send files. Does nothing when the client has gone, as `send`.

        Raises
        ------
        VoxelmillError
            If they cannot be sent to their end: then the answer is cut.
        """
        self.transport.set_write_buffer_limits(0)  # what has been written before must be away
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        self.transport.set_write_buffer_limits()
        if cycle.disconnected or self.transport.is_closing() or cycle.scope["method"] == "HEAD":
            return
        promise = cast("bytes", _Promise(files.length))
        around = cycle.conn.send_with_data_passthrough(h11.Data(data=promise)) or [promise]
        files = files.between(*(b"".join(some) for some in _parted(around, promise)))
        connection = self.transport.get_extra_info("socket").fileno()
        try:
            sender = Sender(connection, files, lambda: cycle.disconnected or self.transport.is_closing())
        except OSError as error:
            raise CutShortError(f"nothing can be sent: {error.strerror}") from error
        try:
            await sender.send()
        except ConnectionError:
            self.transport.abort()


def _parted(pieces: list[bytes], promise: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return what h11 sends before a promise and behind it: the frame of a chunk, where an answer has no length."""
    place = next(number for number, piece in enumerate(pieces) if piece is promise)
    return pieces[:place], pieces[place + 1 :]
