"""Sending files from the disk to a connection by the system itself: no byte of them passes through this process.

A few threads of their own open and send one file after the other, a moment for each connection at a time, so that
clients who read slowly keep none from others; between two moments the event loop waits for the connection.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

import anyio

from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.storage.extent import Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES: Final = "voxelmill.response.files"
"""The type of the ASGI message whose `files` are a `Files`. `connection.Connection` takes it."""
MOMENT_SECONDS: Final = 0.02
"""How long a thread works for one connection at a time."""
PIECE: Final = 4 << 20
"""The most that one call sends: it would go on as long as the client takes what comes."""
_COPIED: Final = 1 << 20
"""How much is read at a time from a file system that cannot send."""
_CANNOT_SEND: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_PAUSE_MILLISECONDS: Final = 2
"""How long it waits for a connection that takes no more before it leaves that to the event loop."""
_LOOK_SECONDS: Final = 1.0
"""How often the event loop looks whether a client is still there that takes nothing."""
_THREADS: Final = ThreadPoolExecutor(4, thread_name_prefix="sending")


class CutShortError(VoxelmillError):
    """What is there is not what was said, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Files:
    """What stands in a body in a row: bytes and parts of files.

    Attributes
    ----------
    length
        How many bytes they are together.
    pieces
        Gives them; it may block, and raise errors.
    """

    length: int
    pieces: Iterator[bytes | Extent]

    def between(self, before: bytes, behind: bytes) -> Files:
        """Return them with something before and behind them."""
        if not before and not behind:
            return self
        return Files(len(before) + self.length + len(behind), chain([before], self.pieces, [behind]))


class Sender:
    """Sends files over a connection that does not block.

    Parameters
    ----------
    connection
        The socket's own handle. Nobody else may write to it meanwhile.
    files
        What to send.
    has_gone
        Whether the client has gone.
    """

    def __init__(self, connection: int, files: Files, has_gone: Callable[[], bool]) -> None:
        self._connection = socket.socket(fileno=os.dup(connection))
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLOUT)
        self._pieces = files.pieces
        self._left = files.length
        self._has_gone = has_gone
        self._is_over = False
        self._copies = False
        self._now: memoryview | Extent | None = None

    async def send(self) -> None:
        """Send all.

        Raises
        ------
        CutShortError
            If what is there is not as long as was said, was changed meanwhile, or cannot be read.
        ConnectionError
            If the client has gone.
        VoxelmillError
            What `pieces` raises.
        """
        try:
            while not await self._moment():
                await self._until_writable()
        finally:
            self._connection.close()
            self._let_go()

    async def _moment(self) -> bool:
        """Work for a moment in a thread.

        It is waited for also if the task is cancelled, however often: its handles must not be somebody else's by then.
        """
        # A plain future: what ends the loop cancels its tasks, and then would not know when the thread is done.
        working = asyncio.get_running_loop().run_in_executor(_THREADS, copy_context().run, self._work)
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):  # else anyio cancels anew in every turn of the loop
            while not working.done():
                try:
                    await asyncio.wait({working})
                except asyncio.CancelledError as error:
                    self._is_over = True
                    cancelled = error
        if cancelled is not None:
            working.exception()  # looked at: the cancellation is what the task ends with
            raise cancelled
        return working.result()

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._connection, writable.set)
        try:
            while not writable.is_set() and not self._has_gone():
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await writable.wait()
                except TimeoutError:
                    continue
        finally:
            loop.remove_writer(self._connection)

    # Below this line everything blocks, and runs in a thread.

    def _work(self) -> bool:
        """Send for a moment; return whether all is sent."""
        until = time.monotonic() + MOMENT_SECONDS
        while self._now is not None or self._take():
            if self._is_over or self._has_gone():
                raise ConnectionAbortedError("the client has gone")
            try:
                self._send_some()
            except BlockingIOError:
                if not self._poll.poll(_PAUSE_MILLISECONDS):
                    return False
            except OSError as error:
                if error.errno == errno.EIO:
                    raise CutShortError(f"a file cannot be read: {error.strerror}") from error
                raise ConnectionAbortedError(error.strerror) from error  # however its network was lost
            if time.monotonic() > until:
                return False
        return True

    def _take(self) -> bool:
        """Take up the next piece; return whether there is one."""
        for piece in self._pieces:
            length = piece.length if isinstance(piece, Extent) else len(piece)
            self._now = piece if isinstance(piece, Extent) else memoryview(piece)
            if length > self._left:
                raise CutShortError(f"{length - self._left} bytes more are there than was said")
            if length:
                return True
            self._let_go()
        if self._left:
            raise CutShortError(f"{self._left} bytes are missing of what was to be sent")
        return False

    def _send_some(self) -> None:
        now = self._now
        if isinstance(now, memoryview):
            sent = self._connection.send(now, socket.MSG_MORE)  # a part's head goes with its bytes
            self._now = now[sent:] if sent < len(now) else None
        elif now is not None:
            sent = self._send_part(now)
            if not sent:
                raise CutShortError(f"a file ended {now.length} bytes too early")
            now.start += sent
            now.length -= sent
            if not now.length:
                now.check()
                self._let_go()
        self._left -= sent

    def _send_part(self, now: Extent) -> int:
        now.check()
        handle, wanted = now.file.fileno(), min(now.length, PIECE)
        if self._copies:
            return self._connection.send(os.pread(handle, min(wanted, _COPIED), now.start))
        try:
            return os.sendfile(self._connection.fileno(), handle, now.start, wanted)
        except OSError as error:
            if error.errno not in _CANNOT_SEND:
                raise
        self._copies = True
        return self._send_part(now)

    def _let_go(self) -> None:
        """Have done with a piece."""
        if isinstance(self._now, Extent):
            self._now.close()
        self._now = None
