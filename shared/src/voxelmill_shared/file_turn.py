"""Turns of several processes at one file.

Who waits for SQLite's own lock sleeps and tries again, up to 100 ms each time and in no fair order: of three processes
that write all the time one has waited for 1.6 s. Two locks of the kernel beside the file are asked for in the place of
that, a thousand times a second: one says who writes, the other who is next, so that nobody writes twice while another
waits (30 ms at most, of the same three). They only say whose turn it is; what keeps the file whole is SQLite's lock,
which whoever has the turn still takes.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

TURN: Final = "-turn"
NEXT: Final = "-next"
"""What the names of the locks' own files end in."""
PAUSE_SECONDS: Final = 0.001
"""Between two looks whether it is our turn."""
_NO_LOCK: Final = -1


class FileTurn:
    """The turn of one writer of a file. One thread uses it."""

    def __init__(self, path: Path) -> None:
        self._turn, self._next = (path.with_name(path.name + suffix) for suffix in (TURN, NEXT))
        self._held: dict[Path, int] = {}

    def take(self) -> bool:
        """Take the turn unless somebody has it, or is next; tell whether that is so. Does not wait: ask again.

        Where such locks cannot be had (no folder yet, a disk that allows no more files), nobody waits for them.
        """
        if not self._lock(self._next) or not self._lock(self._turn):
            return False
        self._unlock(self._next)
        return True

    def give(self) -> None:
        """Let the next one write, or wait no more."""
        for path in list(self._held):
            self._unlock(path)

    def _lock(self, path: Path) -> bool:
        if path in self._held:
            return True
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            self._held[path] = _NO_LOCK
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:  # a file system without locks
            os.close(handle)
            handle = _NO_LOCK
        self._held[path] = handle
        return True

    def _unlock(self, path: Path) -> None:
        handle = self._held.pop(path)
        if handle != _NO_LOCK:
            os.close(handle)
