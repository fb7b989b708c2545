"""Answers whose bytes come out of a store while they are sent."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from starlette.responses import StreamingResponse

from voxelmill_gateway.problems import Problem
from voxelmill_gateway.sending import FILES, Files
from voxelmill_shared.errors import ObjectChangedError, VoxelmillError
from voxelmill_shared.privacy import describe
from voxelmill_shared.storage.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from typing import BinaryIO

    from starlette.types import Send

    from voxelmill_shared.storage.base import ObjectStore

log = structlog.get_logger("voxelmill")

Piece = TypeVar("Piece", bound=bytes | Files)
PIECE: Final = 1 << 20
"""How many bytes are in hand for one answer at a time."""


class Stream(StreamingResponse):
    """An answer that is made while it is sent.

    When the client goes away, whatever makes the bytes is ended before anything else happens. When they cannot be made
    to the end, the connection is cut: a client must not take a part for the whole. That is one line in the log.

    Files are sent by the connection (`Connection`).
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes | Files, None],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__((), status_code, headers, media_type)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send the answer."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in self._pieces:
                if isinstance(piece, bytes):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                else:
                    await send({"type": FILES, "files": piece})
                # Sending to nobody never waits: without this, bytes that are there at once would keep us from hearing
                # that the client has gone.
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (VoxelmillError, Problem) as error:
            reason = str(error) if isinstance(error, Problem) else describe(error)
            log.warning("answer.cut", error=type(error).__name__, reason=reason)
        finally:
            # Who has gone may be noticed again while this waits: then the end goes on without us.
            await asyncio.shield(asyncio.ensure_future(self._pieces.aclose()))


async def pieces_of(
    store: ObjectStore, key: str, start: int = 0, length: int | None = None, *, size: int | None = None
) -> AsyncGenerator[bytes, None]:
    """Give an object's bytes from `start`, `length` of them or all, at most 1 MiB at a time and all of one content.

    Parameters
    ----------
    size
        How many bytes the object must have altogether, if that is known.

    Raises
    ------
    ObjectMissingError, ObjectUnreadableError, StoreUnavailableError
        As the store's `read`.
    ObjectChangedError
        If the object has not `size` bytes, or is replaced meanwhile.
    """
    if isinstance(store, S3Store):
        stream = await store.stream(key, start, length)
        async with aclosing(stream.pieces()) as pieces:
            async for piece in pieces:
                if size is not None and stream.content.size != size:
                    raise ObjectChangedError(key)
                yield piece
        return
    # The file itself: once it is open it stays the same, also when another takes its place.
    path = await store.fetch(key, Path())
    file = await asyncio.to_thread(path.open, "rb")
    try:
        left = await asyncio.to_thread(_seek, file, key, start, length, size)
        while left and (piece := await asyncio.to_thread(file.read, min(left, PIECE))):
            left -= len(piece)
            yield piece
        if left:
            raise ObjectChangedError(key)
    finally:
        file.close()  # nothing was written, so there is nothing to wait for


def _seek(file: BinaryIO, key: str, start: int, length: int | None, size: int | None) -> int:
    """Go to where the bytes begin and return how many there are to read."""
    there = os.fstat(file.fileno()).st_size
    if size is not None and there != size:
        raise ObjectChangedError(key)
    file.seek(start)
    left = max(0, there - start)
    return left if length is None else min(length, left)


async def begun(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """Wait for the first piece, so that what is wrong from the beginning is answered as an error; give them all."""
    first = await anext(pieces, None)

    async def joined() -> AsyncGenerator[Piece, None]:
        async with aclosing(pieces):
            if first is not None:
                yield first
            async for piece in pieces:
                yield piece

    return joined()
