"""Processes told apart by id and start time, so that no other process that was given the same id is ever ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC = Path("/proc")
KILL_SECONDS = 5.0


def boot() -> str:
    """The name of the time since the machine started: process ids and start times mean nothing beyond it."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Process:
    """One process that leads a session of its own.

    Attributes
    ----------
    name
        How people call it.
    pid
        Its id, and that of its session.
    started
        When it started, in clock ticks since the machine did.
    """

    name: str
    pid: int
    started: int

    @classmethod
    def of(cls, name: str, pid: int) -> Process:
        """Look up a process that is there, or was not waited for yet."""
        return cls(name, pid, _row(pid).started)

    def is_alive(self) -> bool:
        """Whether this very process runs."""
        try:
            row = _row(self.pid)
        except ProcessLookupError:
            return False
        return row.started == self.started and row.state != "Z"

    def family(self) -> list[Process]:
        """Return all living processes of its session, and their descendants in sessions of their own.

        The system gives a session's number to no other process as long as a member lives. So if the leader's number
        belongs to a process that started at another time, no member is left.
        """
        table = _table()
        leader = table.get(self.pid)
        if leader is not None and leader.started != self.started:
            return []
        family = {pid for pid, row in table.items() if row.session == self.pid and row.started >= self.started}
        fresh = family
        while fresh:
            fresh = {pid for pid, row in table.items() if row.parent in fresh} - family
            family |= fresh
        return [Process(self.name, pid, table[pid].started) for pid in sorted(family) if table[pid].state != "Z"]

    def ask(self, goodbye: signal.Signals) -> None:
        """Send the leader a signal, if it lives."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, goodbye)

    def kill(self) -> None:
        """End its whole family, at once."""
        until = time.monotonic() + KILL_SECONDS
        while (family := self.family()) and time.monotonic() < until:
            for member in family:
                member.ask(signal.SIGKILL)
            wait([member.pid for member in family], 0.5)


def wait(pids: Iterable[int], seconds: float) -> bool:
    """Wait until none of the processes runs; they need not be children. Return whether that came in time."""
    until = time.monotonic() + seconds
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
                return False
        finally:
            os.close(descriptor)
    return True


@dataclass(frozen=True, slots=True)
class _Row:
    state: str
    parent: int
    session: int
    started: int


def _row(pid: int) -> _Row:
    """Look a process up (proc(5): fields 3, 4, 6 and 22 of its `stat`)."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    fields = text.rpartition(")")[2].split()  # the name, in parentheses, may hold anything
    return _Row(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def _table() -> dict[int, _Row]:
    rows = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                rows[int(entry.name)] = _row(int(entry.name))
    return rows
