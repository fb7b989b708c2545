"""A part of an open file, for those who send it without copying it."""

from __future__ import annotations

import os
from io import FileIO

from voxelmill_shared.errors import ObjectChangedError


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

    __slots__ = ("_state", "file", "length", "start")

    def __init__(self, handle: int, start: int, length: int) -> None:
        self.file = FileIO(handle)
        self.start = start
        self.length = length
        self._state = _state(handle)

    def check(self) -> None:
        """See that the file was not changed since it was opened. That another has taken its place changes nothing.

        Raises
        ------
        ObjectChangedError
            If it was.
        """
        if _state(self.file.fileno()) != self._state:
            raise ObjectChangedError("the file was changed in its place while it was read")

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __del__(self) -> None:
        self.file.close()


def _state(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_size, status.st_mtime_ns
