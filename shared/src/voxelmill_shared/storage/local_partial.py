"""Objects of a local store on their way in, piece by piece: each goes on where it stopped, and stands whole or not.

What has come lies in the store's folder for unfinished files, under a name made from the key. Who writes holds a lock
on it (flock), so that two writers of one object never mix, whichever processes they are in; a writer that dies gives
it up. The file is moved into its place when it is whole.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.storage.durable import move, writing
from voxelmill_shared.storage.keys import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from voxelmill_shared.storage.etags import EtagCache


class PartialBusyError(VoxelmillError):
    """Somebody else is writing this object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{printable(key)}: somebody else is writing it")


class PartialGapError(VoxelmillError):
    """What is to be written does not begin where that ends which is there; `received` says where it does, in bytes."""

    def __init__(self, key: str, received: int) -> None:
        super().__init__(f"{printable(key)}: {received} bytes are there, go on after them")
        self.received = received


@dataclass(frozen=True, slots=True)
class PartialFile:
    """One object on its way in.

    Parameters
    ----------
    key
        Its key.
    path
        Where it lies until it is whole.
    target
        Finds its place, and refuses unsafe keys. Blocks.
    prepare
        Makes the folder of `path`. Blocks.
    etags
        Is told the MD5 of an object that has got into its place.
    """

    key: str
    path: Path
    target: Callable[[], Path]
    prepare: Callable[[], object]
    etags: EtagCache

    async def received(self) -> int:
        """Return how many bytes have come; 0 also if none ever did, or if it is whole."""
        return await asyncio.to_thread(self._received)

    async def drop(self) -> None:
        """Throw away what has come. Who is writing it notices at the end, when there is nothing to put in place."""
        await asyncio.to_thread(self.path.unlink, missing_ok=True)

    @asynccontextmanager
    async def writing(self, start: int) -> AsyncIterator[PartialWriter]:
        """Write from byte `start` on; from 0 all anew. What was written stays when the context is left by an error.

        Raises
        ------
        PartialBusyError
            If somebody else is writing it.
        PartialGapError
            If another number of bytes than `start` has come, and `start` is not 0.
        StoreUnavailableError
            If the disk does not take it: it is full, say.
        """
        writer = PartialWriter(self, start, hashlib.md5(usedforsecurity=False) if start == 0 else None)
        try:
            await _to_its_end(writer.open)
            yield writer
        finally:
            await _to_its_end(writer.close)

    def _received(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, start: int) -> int:
        """Open and lock the file for writing from byte `start` on. Blocks."""
        self.target()  # an unsafe key is refused before anything is written
        self.prepare()
        with writing(self.key):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            self._lock(handle)
            self._check_start(handle, start)
            with writing(self.key):
                os.truncate(handle, start)
                os.lseek(handle, start, os.SEEK_SET)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PartialBusyError(self.key) from None
        if not self.is_there(handle):  # between opening and locking it was finished by somebody else, or dropped
            raise PartialBusyError(self.key)

    def _check_start(self, handle: int, start: int) -> None:
        size = os.fstat(handle).st_size
        if start not in {0, size}:
            raise PartialGapError(self.key, size)

    def is_there(self, handle: int) -> bool:
        """Whether the open file is still the one that lies there."""
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False


@dataclass(slots=True)
class PartialWriter:
    """Writes one piece after the other, and puts the object into its place."""

    partial: PartialFile
    received: int
    md5: Any
    _handle: int = field(default=-1, init=False)
    _is_finished: bool = field(default=False, init=False)

    async def write(self, piece: bytes) -> None:
        """Append a piece."""
        await _to_its_end(partial(self._write, piece))

    async def finish(self) -> None:
        """Put the object into its place: whole and durable when this returns.

        Raises
        ------
        PartialBusyError
            If it was dropped meanwhile.
        """
        await _to_its_end(self._finish)

    def open(self) -> None:
        """Open and lock the file. Blocks."""
        self._handle = self.partial.open(self.received)

    def close(self) -> None:
        """Bring what has come onto the disk and give up the lock. Blocks."""
        if self._handle < 0:
            return
        try:
            if not self._is_finished:
                with writing(self.partial.key):
                    os.fsync(self._handle)
        finally:
            os.close(self._handle)

    def _write(self, piece: bytes) -> None:
        if self.md5 is not None:
            self.md5.update(piece)
        left = memoryview(piece)
        with writing(self.partial.key):
            while left:
                written = os.write(self._handle, left)
                left = left[written:]
                self.received += written

    def _finish(self) -> None:
        target = self.partial.target()
        with writing(self.partial.key):
            os.fsync(self._handle)
            if not self.partial.is_there(self._handle):
                raise PartialBusyError(self.partial.key)
            if self.md5 is not None:
                self.partial.etags.note(self._handle, self.md5.digest())
            move(self.partial.path, target)
            self._is_finished = True
        if self.md5 is not None:
            self.partial.etags.remember(target, os.fstat(self._handle), self.md5.digest())


async def _to_its_end(function: Callable[[], None]) -> None:
    """Run something that blocks, and wait for its end also if the task is cancelled: it uses an open file."""
    running = asyncio.ensure_future(asyncio.to_thread(function))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # looked at: the cancellation is what the task ends with
        raise cancelled
    running.result()
