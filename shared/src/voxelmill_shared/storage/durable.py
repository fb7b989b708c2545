"""Files and folders that outlive a power cut: what a file system needs to be told, and what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from voxelmill_shared.errors import ObjectMissingError, StoreFullError, StoreUnavailableError, UnsafeKeyError
from voxelmill_shared.storage.keys import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNFIT = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MOST_TRIES = 10
_STALE_SECONDS = 24 * 3600


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, each on the disk when this returns."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries onto the disk. A folder that is gone by now has none."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(temporary: Path, target: Path) -> None:
    """Put a finished file into its place, over what is there, on the disk when this returns."""
    for tries_left in reversed(range(_MOST_TRIES)):
        make_folders(target.parent)
        try:
            temporary.replace(target)
            break
        except FileNotFoundError:
            # `remove` beside us has just removed the folder that we found, because it had become empty.
            if not tries_left:
                raise
    sync_folder(target.parent)


def remove(target: Path, root: Path) -> None:
    """Remove a file if it is there, and the folders below `root` that it leaves empty."""
    try:
        if target.is_dir() and not target.is_symlink():
            return
        target.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    sync_folder(target.parent)
    with contextlib.suppress(OSError):  # until one is not empty, or may not be removed
        for folder in target.parents:
            if folder == root:
                break
            folder.rmdir()


def sweep(folder: Path) -> None:
    """Remove from a folder of unfinished files what processes left that were killed while they wrote."""
    stale = time.time() - _STALE_SECONDS
    for left in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if left.lstat().st_mtime < stale:
                left.unlink()


@contextlib.contextmanager
def reading(key: str) -> Iterator[None]:
    """Say what an error of the file system means to someone who reads an object."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectMissingError(key) from None
    except OSError as error:
        raise _meaning(key, error) from error


@contextlib.contextmanager
def writing(key: str) -> Iterator[None]:
    """Say what an error of the file system means to someone who writes or deletes an object."""
    try:
        yield
    except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        raise UnsafeKeyError(
            f"{printable(key)}: a file and a folder cannot have one name, and one of the two is there already"
        ) from error
    except OSError as error:
        raise _meaning(key, error) from error


def _meaning(key: str, error: OSError) -> UnsafeKeyError | StoreUnavailableError:
    if error.errno in _UNFIT:
        return UnsafeKeyError(f"{printable(key[:128])}: this disk cannot hold such a name ({error.strerror})")
    return unavailable(printable(key), error)


def unavailable(what: object, error: OSError) -> StoreUnavailableError:
    """Return the error of a store that cannot be used now: it is full, or worse."""
    kind = StoreFullError if error.errno in _FULL else StoreUnavailableError
    return kind(f"{what}: {error.strerror}")
