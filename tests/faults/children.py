"""Faults of the child processes that decode, segment and mesh."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faults.faults import BaseFault

if TYPE_CHECKING:
    from faults.harness import Run

WORKERS = ("thumbnail", "segment", "mesh")
STRIKES = 3


@dataclass(frozen=True)
class ChildStruck(BaseFault):
    """The children of one service are struck by a signal while there is work.

    Without a signal they run out of memory: half of the runs as the kernel does it (SIGKILL), half by a bound on their
    address space, so that their next allocation fails.
    """

    number: signal.Signals | None = None

    def apply(self, run: Run) -> None:
        """Wait until a series is complete, and so on its way to all three services; strike one of them."""
        run.wait_until(run.jobs, "a series is complete")
        kept = run.installation.processes[run.random.choice(WORKERS)]
        bounded = self.number is None and run.random.random() < 0.5
        strikes = 1 if self.number is signal.SIGSTOP else STRIKES
        for _ in range(strikes):
            run.pass_time(run.random.uniform(0.0, 0.7))
            for pid in kept.children():
                with suppress(ProcessLookupError, PermissionError):
                    if bounded:
                        _bound(pid)
                    else:
                        os.kill(pid, self.number or signal.SIGKILL)


def _bound(pid: int) -> None:
    """Let a process have no more memory than it has."""
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (used, used))


CHILDREN = (
    ChildStruck("child-oom", "a child killed by OOM", at_once=True),
    ChildStruck("child-segv", "a child killed by SIGSEGV", at_once=True, number=signal.SIGSEGV),
    ChildStruck(
        "child-hangs",
        "a child that hangs",
        at_once=True,
        number=signal.SIGSTOP,
        settings={name: {"CHILD_SECONDS": "8"} for name in WORKERS},
    ),
)
