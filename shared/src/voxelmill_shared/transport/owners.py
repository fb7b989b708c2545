"""Who is alive: every process that opens a queue file holds a lock on a file of its own.

The kernel lets go of a lock when its holder ends, however it ends. So a claim whose owner's lock can be taken is known
to be void at once; no lease has to run out. `flock` locks belong to the opened file, not to the process, so two
transports of one process are two owners. They do not work over a network; neither does SQLite's WAL.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Owners:
    """The lock files of one queue file.

    Parameters
    ----------
    folder
        Where they lie. Made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self.id = ""
        """Our own name, after `enter`."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold everyone else off who enters or sweeps, for the time of a `with` block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def enter(self) -> str:
        """Take a lock under a new name and return the name. Only inside `alone`."""
        name = uuid.uuid4().hex
        descriptor = os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._descriptor, self.id = descriptor, name
        return name

    def leave(self) -> None:
        """Let go of our own lock. From now on everyone may know us as gone."""
        if self._descriptor is not None:
            self.forget(self.id)
            os.close(self._descriptor)
            self._descriptor = None

    def is_gone(self, owner: str) -> bool:
        """Whether an owner has ended without saying so."""
        if owner == self.id:
            return False
        try:
            descriptor = os.open(self._folder / owner, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, owner: str) -> None:
        """Remove the lock file of an owner that is gone."""
        (self._folder / owner).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> None:
        """Remove lock files that nobody holds and no row names. Only inside `alone`."""
        for path in self._folder.iterdir():
            if path.name not in known and self.is_gone(path.name):
                self.forget(path.name)
