"""The folder of the download cache: what is in it, how it gets there, and how it is kept within its bound.

Several processes use one folder at a time. An entry is a file that was verified when it came. It is shared by hard
links: a reader gets a name of its own for the entry's bytes, in its own folder, so an entry can be thrown out at any
moment and nobody loses what he reads. An entry gets its place whole or not at all, so a process that is killed leaves
no half of one.

What says that an entry is still as it was is its time of modification, the seal, which is made of its size and of the
boot of the machine. Whatever writes to the file changes that time and breaks the seal, and after a crash of the machine
no seal holds. An entry without its seal is read once more against its MD5, and thrown out if it differs.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MD5 = "md5-"
"""What begins the name of an entry that is named by the MD5 of its bytes."""

_TURNS = 1024
_ROOM_LEFT = 0.9
"""How much of the bound is in use after entries were thrown out, for it takes a while to look at all of them."""
_STALE_SECONDS = 3600.0
_PIECE = 1 << 20
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})


class CacheFolder:
    """The files of a download cache. Everything here blocks, and may raise `OSError`.

    Parameters
    ----------
    root
        The folder, made when it is needed. It is this user's, or root's who shares it with a group of his.
    limit
        The most bytes that all entries may have together. It is less on a disk that is short: half of what would be
        free without the cache.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._entries = root / "entries"
        self._incoming = root / "incoming"
        self._turns = root / "turns"
        self._counted = False

    def prepare(self) -> None:
        """Make the folder, if it is not there.

        Raises
        ------
        PermissionError
            If others may write there: they could lay any bytes under any name.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = self._root.stat()
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o002:
            raise PermissionError(errno.EPERM, "others may write to this folder", str(self._root))
        for folder in (self._entries, self._incoming, self._turns):
            folder.mkdir(exist_ok=True)

    def has(self, names: Sequence[str]) -> bool:
        """Whether there seems to be an entry of one of these names."""
        return any(self._entry(name).exists() for name in names)

    def take(self, names: Sequence[str], target: Path) -> int | None:
        """Give an entry a further name.

        Parameters
        ----------
        names
            Those of the entry, the better one first.
        target
            Where the file shall stand; its folder is made, and what is there is replaced.

        Returns
        -------
        int | None
            The number of bytes, or None if there is no such entry.
        """
        for name in names:
            try:
                handle = os.open(self._entry(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                if self._is_sound(handle, name):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._place(handle, self._entry(name), target)
                    return os.fstat(handle).st_size
            finally:
                os.close(handle)
            self._entry(name).unlink(missing_ok=True)
        return None

    def offer(self, name: str, path: Path) -> int:
        """Make an entry of a file that its owner has verified and only reads from now on.

        Returns
        -------
        int
            How many bytes of other entries were thrown out for it.
        """
        path.chmod(0o400)  # who writes to it in spite of his promise shall fail, not change what others read
        size = path.stat().st_size
        if size > self._bound(self._limit):
            return 0
        os.utime(path, ns=(time.time_ns(), _seal_of(size)))
        try:
            return self._enter(name, size, lambda entry: os.link(path, entry))
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
        incoming = self._incoming / secrets.token_hex(16)
        try:
            shutil.copyfile(path, incoming)
            incoming.chmod(0o400)
            os.utime(incoming, ns=(time.time_ns(), _seal_of(size)))
            return self._enter(name, size, incoming.rename)
        finally:
            incoming.unlink(missing_ok=True)

    def throw_out_all(self) -> int:
        """Empty the cache; return the number of bytes."""
        with self._accounts() as accounts:
            used = self._count()
            os.truncate(accounts, 0)
            left = self._throw_out(0)
            _write_number(accounts, left)
            return used - left

    def try_turn(self, name: str) -> int | None:
        """Ask to be the one on this machine that downloads an entry; None if somebody else is.

        Returns
        -------
        int | None
            A descriptor. To close it, or to die, gives the turn back.
        """
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _TURNS
        handle = os.open(self._turns / f"{number:03x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _entry(self, name: str) -> Path:
        return self._entries / name[-2:] / name

    def _is_sound(self, handle: int, name: str) -> bool:
        status = os.fstat(handle)
        sealed = status.st_mtime_ns == _seal_of(status.st_size)
        if not sealed and not (name.startswith(MD5) and _md5(handle) == name.removeprefix(MD5)):
            return False
        os.utime(handle, ns=(time.time_ns(), _seal_of(status.st_size)))  # the first is when it was last wanted
        return True

    def _place(self, handle: int, entry: Path, target: Path) -> None:
        partial = target.with_name(f"{target.name}.{secrets.token_hex(8)}")
        try:
            try:
                os.link(entry, partial)
            except OSError as error:
                # Another disk, or the entry has just been thrown out; what is open can be read all the same.
                if error.errno not in _CANNOT_LINK and not isinstance(error, FileNotFoundError):
                    raise
                with os.fdopen(os.dup(handle), "rb") as source, partial.open("xb") as copy:
                    source.seek(0)
                    shutil.copyfileobj(source, copy, _PIECE)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)  # a rename onto another name of the same file does nothing

    def _enter(self, name: str, size: int, place: Callable[[Path], object]) -> int:
        entry = self._entry(name)
        entry.parent.mkdir(exist_ok=True)
        with self._accounts() as accounts:
            if entry.exists():
                return 0
            used = _read_number(accounts) if self._counted else None
            if used is None:
                used = self._count()
                self._counted = True
            thrown_out = 0
            bound = self._bound(used)
            if used + size > bound:
                left = self._throw_out(max(0, int(bound * _ROOM_LEFT) - size))
                thrown_out, used = max(0, used - left), left
            # Were we killed in between, too much would be counted: that is found out when it seems full.
            _write_number(accounts, used + size)
            try:
                place(entry)
            except OSError:
                _write_number(accounts, used)
                raise
        return thrown_out

    def _bound(self, used: int) -> int:
        disk = os.statvfs(self._root)
        return min(self._limit, (used + disk.f_bavail * disk.f_frsize) // 2)

    @contextmanager
    def _accounts(self) -> Iterator[int]:
        """Hold the file that says how many bytes all entries have."""
        handle = os.open(self._root / "bytes", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder in sorted(self._entries.iterdir()):
            with os.scandir(folder) as found:
                for file in found:
                    with suppress(FileNotFoundError):  # a reader beside us has just found it unsound
                        yield file.path, file.stat(follow_symlinks=False)

    def _count(self) -> int:
        return sum(status.st_size for _, status in self._files())

    def _throw_out(self, wanted: int) -> int:
        """Remove what was not wanted for longest until `wanted` bytes are left, or fewer; return how many are."""
        found = [(status.st_atime_ns, status.st_size, path) for path, status in self._files()]
        used = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if used <= wanted:
                break
            Path(path).unlink(missing_ok=True)
            used -= size
        stale = time.time() - _STALE_SECONDS
        for left in self._incoming.iterdir():  # by processes that were killed
            with suppress(FileNotFoundError):
                if left.stat().st_ctime < stale:
                    left.unlink()
        return used


def _md5(handle: int) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    start = 0
    while piece := os.pread(handle, _PIECE, start):
        md5.update(piece)
        start += len(piece)
    return md5.hexdigest()


def _seal_of(size: int) -> int:
    """The time of modification, in ns, of an entry that is as it was: whole seconds, before the year 2038."""
    return int.from_bytes(hashlib.sha256(f"{_boot()} {size}".encode()).digest()[:4], "big") // 2 * 1_000_000_000


@cache
def _boot() -> str:
    """Name the time since which this machine runs; where it cannot be told, only this process believes its seals."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(16)


def _read_number(handle: int) -> int | None:
    text = os.pread(handle, 32, 0)
    return int(text) if text.isdigit() else None


def _write_number(handle: int, number: int) -> None:
    os.truncate(handle, 0)
    os.pwrite(handle, str(number).encode(), 0)
