"""Reading an object piece by piece without knowing where it lies.

A reader is a generator: it yields the byte range that it wants and is sent the bytes. So the rules of a file format
stand apart from the store, a test feeds them from memory, and nothing is read that no rule asked for.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")

FIRST_READ = 16 << 10
"""Bytes of the first read: the pixels of 95 in 100 real objects begin before 6.3 KB."""
AFTER_JUMP = 4 << 10
"""Bytes of the first read after a jump. A gap that is not longer is none."""
GROWTH = 4
LARGEST_READ = 1 << 20
MOST_READ = 32 << 20
"""A header that is longer is refused."""


class ByteRange(NamedTuple):
    """Which bytes a reader wants next."""

    start: int
    length: int


Reading: TypeAlias = "Generator[ByteRange, bytes, T]"


class HeaderTooLongError(Exception):
    """The reader asked for more bytes than any header has."""


class PackedEndError(Exception):
    """A packed stream ends before its own end."""


async def drive(reading: Reading[T], read: Callable[[int, int], Awaitable[bytes]]) -> T:
    """Run a reader to its end, fetching each range with `read(start, length)`."""
    try:
        wanted = next(reading)
        while True:
            wanted = reading.send(await read(wanted.start, wanted.length))
    except StopIteration as end:
        result: T = end.value
        return result


class Window:
    """A stretch of an object that moves forward over it.

    Each miss reads four times as much as the last, up to a megabyte. After a jump over something large it begins
    small again, for what comes next is mostly the pixels; but each jump makes twice as much of it. So no header,
    however it is made, takes more than some sixty reads.

    Attributes
    ----------
    data
        The bytes in hand.
    start
        Offset of `data[0]` in the object.
    position
        Offset in the object at which the reader stands; it may lie outside of the window after a jump.
    read
        How many bytes have been asked for, those in hand at the beginning included.
    """

    def __init__(self, size: int, data: bytes = b"", read: int = 0) -> None:
        self.size = size
        self.data = data
        self.start = 0
        self.position = 0
        self._step = FIRST_READ * GROWTH if data else FIRST_READ
        self._after_jump = AFTER_JUMP
        self.read = read or len(data)

    def need(self, length: int) -> Reading[bool]:
        """Bring `length` bytes from `position` on into the window; false if the object ends before.

        Raises
        ------
        HeaderTooLongError
            If more than `MOST_READ` bytes have been read.
        """
        offset = self.position - self.start
        if offset >= 0 and offset + length <= len(self.data):
            return True
        if self.position + length > self.size:
            return False
        return (yield from self._move(offset, length))

    def _move(self, offset: int, length: int) -> Reading[bool]:
        kept = self.data[offset:] if 0 <= offset < len(self.data) else b""
        if offset > len(self.data) + AFTER_JUMP:
            self._step = self._after_jump
            self._after_jump = min(2 * self._after_jump, LARGEST_READ)
        start = self.position + len(kept)
        wanted = min(max(self._step, length - len(kept)), self.size - start)
        self._step = min(self._step * GROWTH, LARGEST_READ)
        self.read += wanted
        if self.read > MOST_READ:
            raise HeaderTooLongError
        self.data = kept + (yield ByteRange(start, wanted))
        self.start = self.position
        return len(self.data) >= length


class InflatedWindow(Window):
    """A window over the raw deflate stream that begins where another window stands (PS3.5 A.5).

    Its size is not known before its end, and a jump inflates what it jumps over.
    """

    def __init__(self, packed: Window) -> None:
        super().__init__(size=1 << 62)
        self._packed = packed
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    def _move(self, offset: int, length: int) -> Reading[bool]:  # noqa: ARG002 - inflated bytes have no random access
        """See `Window.need`. Raises `zlib.error` if the stream is damaged, and `PackedEndError` if it is cut."""
        while (end := self.start + len(self.data)) < self.position + length:
            if self._inflate.eof:
                return False
            packed = self._inflate.unconsumed_tail
            if not packed:
                if not (yield from self._packed.need(1)):
                    raise PackedEndError
                packed = self._packed.data[self._packed.position - self._packed.start :]
                self._packed.position += len(packed)
            fresh = self._inflate.decompress(packed, LARGEST_READ)
            self.read += len(fresh)
            if self.read > MOST_READ:
                raise HeaderTooLongError
            keep_from = min(max(self.position, self.start), end)
            self.data = self.data[keep_from - self.start :] + fresh
            self.start = keep_from
        return True
