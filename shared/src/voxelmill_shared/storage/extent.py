"""A part of an open file, for those who send it without copying it."""

from __future__ import annotations

import os
from io import FileIO


class Extent:
    """A part of a file that is open, and stays the same also when another file takes its place.

    Attributes
    ----------
    file
        The file. It is closed by `close`, at the latest when nobody has the extent any more.
    start, length
        Which bytes.

    Parameters
    ----------
    handle
        The open file. The extent owns it.
    """

    __slots__ = ("file", "length", "start")

    def __init__(self, handle: int, start: int, length: int) -> None:
        self.file = FileIO(handle)
        self.start = start
        self.length = length

    def read(self) -> bytes:
        """Read all of it; less where the file ends earlier. Blocks."""
        pieces: list[bytes] = []
        there = 0
        while there < self.length and (piece := os.pread(self.file.fileno(), self.length - there, self.start + there)):
            pieces.append(piece)
            there += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __del__(self) -> None:
        self.file.close()
