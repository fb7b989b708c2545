"""The MD5 of local files, computed once as long as a file stays as it is.

A process remembers what it has read. What it has written it also notes on the file, in an extended attribute, so that
other processes need not read all of it to know its name. Where a file system has no such attributes, they do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20
_SETTLED_SECONDS = 2.0
"""Younger changes are not trusted: a second one could fall into the same tick of the file system's clock (FAT: 2 s)."""

_ATTRIBUTE = "user.voxelmill.md5"
_NOTE = struct.Struct("<16sQqqQ")
"""The MD5; size, time of modification and inode of the file; and the latest time of change at which that holds."""
_MOVE_NANOSECONDS = 100_000_000
"""How long a file may take to get into its place once it has its note: that is its last change. A later one, also one
that keeps size and time of modification, makes the note void; within this time, one that changes neither does not."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Fingerprint = tuple[int, int, int, int]


class EtagCache:
    """Remembers digests by path, size, times of modification and change, and inode. Threads may share it."""

    def __init__(self, most: int = 500_000) -> None:
        self._most = most
        self._known: dict[Path, tuple[Fingerprint, bytes]] = {}
        self._lock = threading.Lock()

    def of(self, handle: int, path: Path) -> tuple[str, int]:
        """Return the MD5, in hex, and the number of bytes of an open file: both of the same bytes."""
        before = os.fstat(handle)
        with self._lock:
            known = self._known.get(path)
        if known and known[0] == _fingerprint(before):
            return known[1].hex(), before.st_size
        if (noted := _noted(handle, before)) is not None:
            self.remember(path, before, noted)
            return noted.hex(), before.st_size
        md5 = hashlib.md5(usedforsecurity=False)
        size = 0
        while chunk := os.pread(handle, _CHUNK, size):
            md5.update(chunk)
            size += len(chunk)
        after = os.fstat(handle)
        if _fingerprint(after) == _fingerprint(before) and time.time() - after.st_ctime > _SETTLED_SECONDS:
            self.remember(path, after, md5.digest())
        return md5.hexdigest(), size

    @staticmethod
    def note(handle: int, digest: bytes) -> None:
        """Note the MD5 on an open file that is complete and will be moved into its place at once."""
        if not hasattr(os, "setxattr"):  # macOS
            return
        status = os.fstat(handle)
        latest = time.time_ns() + _MOVE_NANOSECONDS
        note = _NOTE.pack(digest, status.st_size, status.st_mtime_ns, latest, status.st_ino)
        with contextlib.suppress(OSError):  # no such attributes here, or no room for them: it is read instead
            os.setxattr(handle, _ATTRIBUTE, note)

    def remember(self, path: Path, status: os.stat_result, digest: bytes) -> None:
        """Keep a digest that is known to belong to this state of the file."""
        with self._lock:
            self._known.pop(path, None)
            while len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[path] = (_fingerprint(status), digest)

    def forget(self, path: Path) -> None:
        """Drop what is known of a file."""
        with self._lock:
            self._known.pop(path, None)


def _noted(handle: int, status: os.stat_result) -> bytes | None:
    """Return the MD5 that is noted on an open file, if the file is as it was then."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        digest, *was, latest, inode = _NOTE.unpack(os.getxattr(handle, _ATTRIBUTE))
    except (OSError, struct.error):
        return None
    is_same = [*was, inode] == [status.st_size, status.st_mtime_ns, status.st_ino] and status.st_ctime_ns <= latest
    return digest if is_same else None


def modified(status: os.stat_result) -> datetime:
    """Return when a file was last modified, in UTC; a time that no calendar holds becomes the nearest that it does."""
    try:
        return _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if status.st_mtime_ns > 0 else datetime.min.replace(tzinfo=UTC)


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
