"""What a process takes together with all that it has started: processor time and memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError)


def memory(pid: int) -> tuple[int, int]:
    """Return the RSS and the PSS of a process.

    RSS counts what it shares with others (libraries, mapped files) in full, PSS its share of it: only PSS may be added
    up over processes.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    return kib["Rss"] << 10, kib["Pss"] << 10


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            except _GONE:
                continue
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        below = [child for child, of in parents.items() if of == parent]
        found += below
        todo += below
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, of those below it, and of those that have ended and were waited for."""
    ticks = 0
    for one in (pid, *descendants(pid)):
        try:
            ticks += sum(int(field) for field in _stat(one)[11:15])  # utime, stime, cutime, cstime of proc(5)
        except _GONE:
            continue
    return ticks / _TICKS


def pss_bytes(pid: int) -> int:
    """Return the PSS of a process and of those below it."""
    total = 0
    for one in (pid, *descendants(pid)):
        try:
            total += memory(one)[1]
        except (*_GONE, KeyError):  # it has ended, or is about to and has no memory left
            continue
    return total


class PeakMemory:
    """The most memory that a process and those below it had while the context was open, looked at again and again.

    Looking stops the process for moments and takes time of its own: nothing is timed meanwhile.

    Parameters
    ----------
    pid
        The process.
    seconds
        How long to wait between two looks.
    """

    def __init__(self, pid: int, seconds: float = 0.04) -> None:
        self.bytes = 0
        self._pid = pid
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.bytes = max(self.bytes, pss_bytes(self._pid))
            if self._over.wait(self._seconds):
                return


def _stat(pid: int) -> list[str]:
    """Return the fields of `/proc/pid/stat` from the third on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
