"""Processes that are killed, stopped and started again on the same data, and that end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from process_tree import descendants
from servers.private import PrivateServer, fresh_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stack.program import Program

READY_SECONDS = 60.0
START_PAUSE = 0.5
"""Seconds between two starts of one process: what supervises processes waits too."""
_INTO_LOG = 'log="$1"; shift; exec "$@" >>"$log" 2>&1'
_WITH_A_DISK = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'


class NotReadyError(Exception):
    """A process did not become ready; the message is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system of a process's own, in memory, on `folder`: nobody else sees it, and it is gone with the process.

    It takes root to mount one.
    """

    folder: Path
    size: str = "32m"

    def before(self, command: Sequence[str]) -> list[str]:
        """Put the mount before a command."""
        return ["unshare", "--mount", "sh", "-c", _WITH_A_DISK, "sh", self.size, str(self.folder), *command]


@dataclass(slots=True)
class Kept:
    """One process of the installation.

    `exits` are the exit codes of those of its lives that are over, a signal's number negative. A process that is `down`
    is not started again by `tend`.
    """

    program: Program
    log: Path
    disk: Disk | None = None
    down: bool = False
    exits: list[int] = field(default_factory=list)
    _server: PrivateServer | None = None
    _pid: int = 0
    _started: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def pid(self) -> int:
        """The process itself, not its keeper."""
        return self._pid

    def start(self) -> None:
        """Start it, and return at once."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        command = self.program.as_arguments()
        if self.disk is not None:
            self.disk.folder.mkdir(parents=True, exist_ok=True)
            command = self.disk.before(command)
        self._started = time.monotonic()
        self._server = PrivateServer(
            ["sh", "-c", _INTO_LOG, "sh", str(self.log), *command],
            fresh_folder("kept"),
            goodbye=self.program.goodbye.name,
        )
        keeper = self._keeper()
        while not (below := _children(keeper.pid)) and keeper.poll() is None:
            time.sleep(0.005)
        self._pid = below[0] if below else 0

    def is_alive(self) -> bool:
        """Whether it runs. The first time that it is found to have ended, its exit code is noted."""
        with self._lock:
            if self._server is None:
                return False
            code = self._keeper().poll()
            if code is None:
                return True
            self._server = None
            self.exits.append(code - 256 if code > 128 else code)
            return False

    def is_ready(self) -> bool:
        """Whether it runs and serves."""
        return self.is_alive() and self.program.is_ready()

    def wait_until_ready(self) -> None:
        """Return when it serves.

        Raises
        ------
        NotReadyError
            If it did not serve in time.
        """
        until = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if time.monotonic() > until:
                raise NotReadyError(f"{self.program.name}: {self.said()}")
            time.sleep(0.05)

    def tend(self) -> None:
        """Start it again if it has ended, as whatever supervises it would."""
        with self._lock:
            if not self.down and not self.is_alive() and time.monotonic() > self._started + START_PAUSE:
                self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.is_alive():
            os.kill(self._pid, number)

    def kill(self, *, whole: bool = False) -> None:
        """Kill it at once, and wait until it is gone; `whole`: with all that it has started."""
        lives = len(self.exits)
        if not self.is_alive():
            return
        for pid in (self._pid, *(descendants(self._pid) if whole else ())):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait(lives)

    def wait(self, lives: int, seconds: float = 60.0) -> int:
        """Wait until it has ended after so many lives before; return its exit code."""
        until = time.monotonic() + seconds
        while self.is_alive() and len(self.exits) <= lives:
            if time.monotonic() > until:
                raise NotReadyError(f"{self.program.name} did not end: {self.said()}")
            time.sleep(0.01)
        return self.exits[lives]

    def stop(self) -> None:
        """End it for good."""
        with self._lock:
            self.down = True
            if self.is_alive():
                self.signal(signal.SIGCONT)
                assert self._server is not None
                self._server.stop()
                self.is_alive()

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def children(self) -> list[int]:
        """The processes that it has started, and those below them."""
        return descendants(self._pid) if self.is_alive() else []

    def _keeper(self):
        assert self._server is not None
        return self._server._keeper


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def may_mount() -> bool:
    """Whether this account may give a process a file system of its own."""
    folder = fresh_folder("mount")
    try:
        tried = subprocess.run(Disk(folder, "1m").before(["true"]), capture_output=True, check=False)
    except FileNotFoundError:  # not even the programs for it
        return False
    else:
        return tried.returncode == 0
    finally:
        folder.rmdir()
