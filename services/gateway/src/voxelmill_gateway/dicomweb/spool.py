"""One part of a request as it arrives: small ones stay in memory, large ones go into a file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from voxelmill_shared.errors import NO_ROOM, DiskFullError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

IN_MEMORY: Final = 1 << 20
"""Bytes of a part that stay in memory; a CT slice has half of that."""


class Spool:
    """Takes the bytes of one part.

    Parameters
    ----------
    place
        Called for the file's path, if there must be one.
    """

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place = place
        self._pieces: list[memoryview] = []
        self._held = 0
        self._file: BinaryIO | None = None
        self.head = b""
        """All of a part in memory, the first `IN_MEMORY` bytes of one in a file; once it has ended."""
        self.path: Path | None = None
        """The file, whole once the part has ended; none of a part in memory."""

    async def add(self, piece: memoryview) -> None:
        """Take some bytes.

        Raises
        ------
        DiskFullError
            If they must go into a file, and there is no room for it.
        """
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= IN_MEMORY:
            await self._spill()

    async def end(self) -> None:
        """Say that the part is whole.

        Raises
        ------
        DiskFullError
            As `add`.
        """
        if self._file is None:
            self.head = self._joined()
        else:
            await self._spill()
            self._file.close()

    def discard(self) -> None:
        """Let go of everything."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    async def _spill(self) -> None:
        body = self._joined()
        try:
            if self._file is None:
                self.head, self.path = body, self._place()
                self._file = await asyncio.to_thread(self.path.open, "wb", 0)
            await asyncio.to_thread(self._file.write, body)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFullError(f"the scratch folder: {error.strerror}") from error
            raise

    def _joined(self) -> bytes:
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return body
