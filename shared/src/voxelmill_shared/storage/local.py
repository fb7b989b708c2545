"""Objects as files in a folder: atomic, durable, and never outside it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import stat
import time
from itertools import islice
from typing import TYPE_CHECKING

from voxelmill_shared.errors import (
    ObjectChangedError,
    ObjectMissingError,
    ObjectUnreadableError,
    StoreUnavailableError,
    UnsafeKeyError,
)
from voxelmill_shared.privacy import note_key
from voxelmill_shared.storage.base import ObjectStat, StoredObject
from voxelmill_shared.storage.durable import make_folders, move, reading, remove, sweep, unavailable, writing
from voxelmill_shared.storage.etags import EtagCache, modified
from voxelmill_shared.storage.extent import Extent
from voxelmill_shared.storage.keys import check_key, check_prefix, printable
from voxelmill_shared.storage.local_partial import PartialFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator
    from pathlib import Path

TEMPORARY = ".voxelmill-tmp"
"""The folder inside the root in which files stand while they are being written."""
ALWAYS_HIDDEN = frozenset({TEMPORARY, "lost+found"})

_CHUNK = 4 << 20
_BATCH = 256
_BATCH_SECONDS = 0.1


class _HiddenError(UnsafeKeyError):
    """The name is no part of the store."""


class LocalStore:
    """A folder as an object store; see `ObjectStore` for the contract.

    What a local folder adds to it:

    - `a` and `a/b` cannot both exist; the second one is refused with `UnsafeKeyError`, like a part of more than 255
      bytes.
    - Symbolic links are followed as long as they stay inside the root. Reading one that leads out raises
      `UnsafeKeyError`, like reading a pipe, a socket, a device or a file whose key is too long; all of them are listed
      with an empty `etag`, so that no input vanishes unseen. `list` does not descend into linked folders: what they
      hold is listed where it really lies.
    - A name that is no UTF-8 is listed with surrogates (PEP 383) and can be read by that key, so it is not lost; see
      `keys.is_text`.
    - A file that may not be read is listed with an empty `etag`; reading it raises `ObjectUnreadableError`. A folder
      that may not be read makes `list` raise that error after it has given everything else.
    - The folder is made by the first write or `check`. Until then there is no object in it, and `list` raises
      `StoreUnavailableError`: a disk that is not mounted must not look like an empty one.

    Parameters
    ----------
    root
        The folder.
    bucket
        The name that events use for this store; the folder's own name if None.
    hidden
        Names of files and folders, at any depth, that are no part of the store: `list` skips them and keys with such
        a part are refused.
    """

    def __init__(self, root: Path, bucket: str | None = None, *, hidden: Collection[str] = ()) -> None:
        self._root = root.resolve()
        self._bucket = bucket or self._root.name or "root"
        self._hidden = ALWAYS_HIDDEN.union(hidden)
        self._etags = EtagCache()
        self._swept = False

    @property
    def bucket(self) -> str:
        """The name that events use for this store."""
        return self._bucket

    def key_of(self, bucket: str, key: str) -> str | None:
        """Return the key of an object of the folder of that name."""
        return key if key and bucket == self._root.name else None

    @property
    def root(self) -> Path:
        """The folder, with symbolic links resolved."""
        return self._root

    async def head(self, key: str) -> ObjectStat:
        """Look at an object; its bytes are read only if their MD5 is not known yet."""
        return await asyncio.to_thread(self._head, key)

    async def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return await asyncio.to_thread(self._exists, key)

    async def read(self, key: str, start: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """Read a range of an object, or all of it."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: start {start}, length {length}")
        return await asyncio.to_thread(self._read, key, start, length, etag)

    async def read_head(self, key: str, length: int) -> tuple[ObjectStat, bytes]:
        """Look at an object and read its beginning."""
        return await asyncio.to_thread(self._read_head, key, length)

    @property
    def in_place(self) -> bool:
        """What `fetch` gives is the object itself."""
        return True

    async def fetch(self, key: str, directory: Path, *, etag: str | None = None) -> Path:  # noqa: ARG002 - the file is on the local disk already
        """Return the object's own file: read it only."""
        return await asyncio.to_thread(self._fetch, key, etag)

    async def write(self, key: str, body: bytes, media_type: str = "application/octet-stream") -> StoredObject:  # noqa: ARG002 - a file system keeps no media type
        """Put an object: whole and on the disk when this returns."""
        return await asyncio.to_thread(self._write, key, (body,))

    async def write_file(self, key: str, path: Path, media_type: str = "application/octet-stream") -> StoredObject:  # noqa: ARG002 - a file system keeps no media type
        """Copy a file into the store."""
        return await asyncio.to_thread(self._write_file, key, path)

    async def take_file(self, key: str, path: Path) -> None:
        """Put a finished file of the same disk into the store by moving it: no copy, and room for one is enough."""
        await asyncio.to_thread(self._take_file, key, path)

    def partial(self, key: str) -> PartialFile:
        """Return an object that comes in piece by piece, and goes on where it stopped."""
        name = f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:40]}.partial"
        return PartialFile(
            key,
            self._root / TEMPORARY / name,
            lambda: self._target(key),
            self._temporary_folder,
            self._etags,
        )

    async def delete(self, key: str) -> None:
        """Remove an object, and the folders that it leaves empty."""
        await asyncio.to_thread(self._delete, key)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectStat]:
        """List objects whose key begins with `prefix`, folder by folder."""
        check_prefix(prefix, undecodable=True)
        walk = self._walk(prefix)
        while batch := await asyncio.to_thread(_batch, walk):
            for found in batch:
                yield found

    async def check(self) -> None:
        """Return if the folder can be read and written; it is made if it is missing."""
        await asyncio.to_thread(self._check)

    async def close(self) -> None:
        """Nothing is held open."""

    # Below this line everything blocks, and runs in a thread.

    def _head(self, key: str) -> ObjectStat:
        handle, path = self._open(key)
        try:
            with reading(key):
                etag, size = self._etags.of(handle, path)
                return ObjectStat(key, size, etag, modified(os.fstat(handle)))
        finally:
            os.close(handle)

    def _read_head(self, key: str, length: int) -> tuple[ObjectStat, bytes]:
        handle, path = self._open(key)
        try:
            with reading(key):
                etag, size = self._etags.of(handle, path)
                stat = ObjectStat(key, size, etag, modified(os.fstat(handle)))
                return stat, os.pread(handle, min(length, size), 0)
        finally:
            os.close(handle)

    def _exists(self, key: str) -> bool:
        try:
            self._fetch(key)
        except ObjectMissingError:
            return False
        return True

    def _read(self, key: str, start: int, length: int | None, etag: str | None) -> bytes:
        handle, path = self._open(key)
        pieces: list[bytes] = []
        try:
            with reading(key):
                if etag is not None and self._etags.of(handle, path)[0] != etag:
                    raise ObjectChangedError(key)
                left = max(0, os.fstat(handle).st_size - start)
                left = left if length is None else min(length, left)
                while left > 0 and (piece := os.pread(handle, left, start)):
                    pieces.append(piece)
                    start += len(piece)
                    left -= len(piece)
        finally:
            os.close(handle)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def extent(self, key: str, *, etag: str | None = None) -> Extent:
        """Open an object, to be sent without copies. Errors as `read`."""
        handle, path = self._open(key)
        extent = Extent(handle, 0, os.fstat(handle).st_size)
        with reading(key):
            if etag is not None and self._etags.of(handle, path)[0] != etag:
                raise ObjectChangedError(key)
        return extent

    def _fetch(self, key: str, etag: str | None = None) -> Path:
        handle, path = self._open(key)
        try:
            with reading(key):
                if etag is not None and self._etags.of(handle, path)[0] != etag:
                    raise ObjectChangedError(key)
        finally:
            os.close(handle)
        return path

    def _write_file(self, key: str, source: Path) -> StoredObject:
        with source.open("rb") as file:
            return self._write(key, iter(lambda: file.read(_CHUNK), b""))

    def _write(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        target = self._target(key)
        md5 = hashlib.md5(usedforsecurity=False)
        sha256 = hashlib.sha256()
        size = 0
        temporary = self._temporary_folder() / secrets.token_hex(16)
        with writing(key):
            try:
                # Not mkstemp: the mode shall follow the umask, as that of any file that the user makes.
                with temporary.open("xb") as file:
                    for chunk in chunks:
                        md5.update(chunk)
                        sha256.update(chunk)
                        size += len(chunk)
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                    self._etags.note(file.fileno(), md5.digest())
                    move(temporary, target)
                    self._etags.remember(target, os.fstat(file.fileno()), md5.digest())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return StoredObject(key, size, md5.hexdigest(), sha256.hexdigest())

    def _take_file(self, key: str, path: Path) -> None:
        target = self._target(key)
        with writing(key):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._etags.forget(target)
            move(path, target)

    def _delete(self, key: str) -> None:
        target = self._target(key)
        self._etags.forget(target)
        with writing(key):
            remove(target, self._root)

    def _check(self) -> None:
        self._temporary_folder()
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise StoreUnavailableError(f"{self._root}: this folder may not be read and written")

    def _walk(self, prefix: str) -> Iterator[ObjectStat]:
        if not self._root.is_dir():
            raise StoreUnavailableError(f"{self._root}: there is no such folder")
        start, _, _ = prefix.rpartition("/")
        if self._is_hidden(start) or (self._root / start).resolve() != self._root / start:
            return  # nothing is listed below a link
        failed: OSError | None = None
        folders = [start]
        while folders:
            folder = folders.pop()
            try:
                for key, is_folder in self._entries(folder, prefix):
                    if is_folder:
                        folders.append(key)
                    elif described := self._describe(key):
                        yield described
            except (FileNotFoundError, NotADirectoryError):
                continue  # the folder went while we looked
            except OSError as error:
                failed = failed or error
        if failed:
            raise StoreUnavailableError(f"{printable(str(failed.filename))}: {failed.strerror}")

    def _entries(self, folder: str, prefix: str) -> Iterable[tuple[str, bool]]:
        """Return the keys in a folder that a prefix asks for, each with whether it is a folder to look into."""
        found = []
        with os.scandir(self._root / folder) as entries:
            for entry in entries:
                if entry.name in self._hidden:
                    continue
                key = f"{folder}/{entry.name}" if folder else entry.name
                if key.startswith(prefix):
                    found.append((key, entry.is_dir(follow_symlinks=False)))
        return found

    def _describe(self, key: str) -> ObjectStat | None:
        try:
            return self._head(key)
        except ObjectMissingError:
            return None  # it went while we looked, or is a link to a folder or to nothing
        except _HiddenError:
            return None
        except UnsafeKeyError:
            status = (self._root / key).lstat()
            # The size of a link is that of its text, and a pipe has none: nothing of them can be read.
            return ObjectStat(key, status.st_size if stat.S_ISREG(status.st_mode) else 0, "", modified(status))
        except (ObjectUnreadableError, StoreUnavailableError):
            status = (self._root / key).stat()
            return ObjectStat(key, status.st_size, "", modified(status))

    def _is_hidden(self, key: str) -> bool:
        return not self._hidden.isdisjoint(key.split("/"))

    def _inside(self, key: str, path: Path) -> Path:
        """Resolve every link of a path and make sure that it is still one of ours."""
        try:
            real = path.resolve()
        except RuntimeError:
            raise UnsafeKeyError(f"{printable(key)}: symbolic links that lead in a circle") from None
        if not real.is_relative_to(self._root):
            raise UnsafeKeyError(f"{printable(key)}: a symbolic link leads out of {self._root}")
        if not self._hidden.isdisjoint(real.relative_to(self._root).parts):
            raise _HiddenError(f"{printable(key)}: this name is not for objects")
        return real

    def _check_key(self, key: str) -> None:
        note_key(self._bucket, key)
        check_key(key, undecodable=True)

    def _target(self, key: str) -> Path:
        """Find where a key is written or deleted: links among its folders are followed, the last part is not."""
        self._check_key(key)
        path = self._root / key
        if path.name in self._hidden:
            raise UnsafeKeyError(f"{printable(key)}: this name is not for objects")
        return self._inside(key, path.parent) / path.name

    def _open(self, key: str) -> tuple[int, Path]:
        """Open an object for reading; return the descriptor and the real path."""
        self._check_key(key)
        path = self._inside(key, self._root / key)
        with reading(key):
            try:
                mode = path.lstat().st_mode
                if stat.S_ISDIR(mode):
                    raise ObjectMissingError(key)
                if stat.S_ISREG(mode):  # opening a device can have effects, so look first
                    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), path
            except PermissionError as error:
                if os.access(self._root, os.R_OK | os.X_OK):
                    raise ObjectUnreadableError(f"{printable(key)}: {error.strerror}") from error
                raise
        raise UnsafeKeyError(f"{printable(key)}: not a regular file")

    def _temporary_folder(self) -> Path:
        """Return the folder for what is being written; make it, and the root, if they are missing."""
        folder = self._root / TEMPORARY
        try:
            if not self._swept or not folder.is_dir():
                make_folders(folder)
                sweep(folder)
                self._swept = True
        except OSError as error:
            raise unavailable(self._root, error) from error
        return folder


def _batch(walk: Iterator[ObjectStat]) -> list[ObjectStat]:
    """Take what comes within a moment, so that big files that must be hashed do not hold up what was found."""
    until = time.monotonic() + _BATCH_SECONDS
    batch: list[ObjectStat] = []
    for found in islice(walk, _BATCH):
        batch.append(found)
        if time.monotonic() > until:
            break
    return batch
