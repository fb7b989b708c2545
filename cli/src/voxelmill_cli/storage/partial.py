"""A download that goes on where another process left it: what came of an object waits beside the folder's files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import ObjectDamagedError, ObjectUnreadableError, StoreUnavailableError, VoxelmillError
from voxelmill_shared.storage.durable import make_folders
from voxelmill_shared.storage.keys import printable
from voxelmill_shared.storage.s3_download import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import BinaryIO

    from voxelmill_cli.storage.walk import Item
    from voxelmill_shared.storage.s3 import S3Store
    from voxelmill_shared.storage.s3_stream import Content

_BEGINNING = "part-"
_PIECE = 1 << 20
_STALE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Partials:
    """The folder in which downloads wait for their rest.

    A file's name tells the object, its ETag and since when this machine runs: another content is never taken for the
    rest, and after a power cut, which may leave zeros where bytes were, every download begins anew.

    Parameters
    ----------
    folder
        On the disk of the folder that is downloaded into; made if missing.
    address
        The store, `s3://bucket/prefix`.
    """

    folder: Path
    address: str

    @asynccontextmanager
    async def fetched(self, store: S3Store, item: Item, on_received: Callable[[int], None]) -> AsyncIterator[Path]:
        """Download what is missing of an object, verify the whole, and give the file, to be moved to its place.

        What came is left where the process is ended or the store goes away, for the next call of any process.

        Parameters
        ----------
        store
            Where the object lies.
        item
            The object; without an ETag it is downloaded from its beginning.
        on_received
            Is told numbers of bytes as they come, those that were there already too.

        Raises
        ------
        ObjectChangedError
            If there is another content now.
        ObjectDamagedError
            If the bytes are not those that the store says it has, twice.
        ObjectUnreadableError
            If another process downloads the same object into this folder.
        StoreUnavailableError
            If the store is away, or the disk is full.
        """
        with self._held(item) as partial:
            try:
                damage = await partial.fill(store, item, on_received)
                if damage:
                    await in_thread(partial.cut, 0)
                    damage = await partial.fill(store, item, lambda _: None)
                if damage:
                    raise ObjectDamagedError(f"{printable(item.key)}: {damage}")
                yield partial.path
            except OSError as error:
                raise StoreUnavailableError(f"{self.folder.parent}: {error.strerror}") from error
            except StoreUnavailableError:
                raise  # what came is good: the next start goes on there
            except VoxelmillError:
                partial.path.unlink(missing_ok=True)
                raise

    def sweep(self) -> None:
        """Remove what nobody has gone on with for a day."""
        if not self.folder.is_dir():
            return
        stale = time.time() - _STALE_SECONDS
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                if path.name.startswith(_BEGINNING) and path.lstat().st_mtime < stale:
                    path.unlink()

    @contextmanager
    def _held(self, item: Item) -> Iterator[_Partial]:
        name = f"{self.address}\n{item.key}\n{item.etag}\n{_boot()}"
        path = self.folder / f"{_BEGINNING}{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:40]}"
        try:
            file = _locked(path)
        except BlockingIOError:
            raise ObjectUnreadableError(
                f"{printable(item.key)}: another process downloads it into this folder; wait for it and start again"
            ) from None
        except OSError as error:
            raise StoreUnavailableError(f"{self.folder.parent}: {error.strerror}") from error
        with file:
            yield _Partial(path, file)


def _locked(path: Path) -> BinaryIO:
    """Open a file for this process alone; raise `BlockingIOError` if another one has it."""
    while True:
        make_folders(path.parent)
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()  # between the two calls its owner has finished it and moved it to its place


@dataclass(slots=True)
class _Partial:
    """The open file: what came is at its beginning, and more is written at its end. All but `fill` blocks."""

    path: Path
    file: BinaryIO
    size: int = 0
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    async def fill(self, store: S3Store, item: Item, tell: Callable[[int], None]) -> str:
        """Get the rest; return what is wrong with the whole, or nothing."""
        # One byte at least is asked for, for the answer says what the content is to be held to.
        start = await in_thread(self.cut, max(0, item.size - 1) if item.etag else 0)
        tell(start)
        stream = await store.stream(item.key, start, etag=item.etag or None)
        waiting: list[bytes] = []
        held = 0
        try:
            async with aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    waiting.append(piece)
                    held += len(piece)
                    if held >= _PIECE:
                        batch, waiting = tuple(waiting), []  # else a cancellation here would write them twice
                        await in_thread(self.add, batch)
                        tell(held)
                        held = 0
        finally:
            await in_thread(self.add, tuple(waiting))  # what came is worth keeping, whatever ended it
        tell(held)
        return self.damage(stream.content)

    def cut(self, most: int) -> int:
        """Keep at most so many bytes of what is there; return how many there are, with their digest taken."""
        self.file.truncate(min(most, os.fstat(self.file.fileno()).st_size))
        self.file.seek(0)
        self.size = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        while piece := self.file.read(_PIECE):
            self.md5.update(piece)
            self.size += len(piece)
        return self.size

    def add(self, pieces: tuple[bytes, ...]) -> None:
        """Write some more bytes."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = self.file.write(view)
                self.md5.update(view[:written])
                self.size += written
                view = view[written:]

    def damage(self, content: Content) -> str:
        """Say what is wrong with the whole file."""
        if self.size != content.size:
            return f"{self.size} bytes came, and it has {content.size}"
        if content.md5 and self.md5.hexdigest() != content.md5:
            return f"the MD5 of what came is {self.md5.hexdigest()}, and its ETag is {content.etag}"
        return ""


def _boot() -> str:
    """Name the time since which this machine runs; where it cannot be told, no later process goes on."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return os.urandom(16).hex()
