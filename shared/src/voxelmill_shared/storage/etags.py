"""The MD5 of local files, computed once as long as a file stays as it is."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20
_SETTLED_SECONDS = 2.0
"""Younger changes are not trusted: a second one could fall into the same tick of the file system's clock (FAT: 2 s)."""

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
        md5 = hashlib.md5(usedforsecurity=False)
        size = 0
        while chunk := os.pread(handle, _CHUNK, size):
            md5.update(chunk)
            size += len(chunk)
        after = os.fstat(handle)
        if _fingerprint(after) == _fingerprint(before) and time.time() - after.st_ctime > _SETTLED_SECONDS:
            self.remember(path, after, md5.digest())
        return md5.hexdigest(), size

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


def modified(status: os.stat_result) -> datetime:
    """Return when a file was last modified, in UTC; a time that no calendar holds becomes the nearest that it does."""
    try:
        return _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if status.st_mtime_ns > 0 else datetime.min.replace(tzinfo=UTC)


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
