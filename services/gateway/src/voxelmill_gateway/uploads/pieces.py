"""The body of a request, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_GATHERED: Final = 1 << 20
"""Bytes that are written at a time: for every 64 KiB from the network a thread would cost more than the writing."""


class TooLongError(Exception):
    """More came than was to come."""


async def bounded(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Pass on a body of at most so many bytes.

    Raises
    ------
    TooLongError
        If more come; the piece with the first one too many is not passed on.
    """
    left = most
    async for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise TooLongError
        yield piece


async def gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass on a body in pieces of about a MiB; what came before the client hung up is passed on first."""
    held = bytearray()
    try:
        async for piece in pieces:
            held += piece
            if len(held) >= _GATHERED:
                ready, held = bytes(held), bytearray()
                yield ready
    except ClientDisconnect:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


async def after(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass on what was read ahead, and then the rest."""
    if head:
        yield head
    async for piece in pieces:
        yield piece


async def read_ahead(pieces: AsyncIterator[bytes], length: int) -> bytes:
    """Read at least so many bytes of a body, or all that there is; what is over is passed on with it."""
    held = bytearray()
    while len(held) < length:
        try:
            held += await anext(pieces)
        except StopAsyncIteration:
            break
    return bytes(held)
