"""What every fault is made of, and the faults of processes: killed, asked to end, stopped."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faults.installation import SERVERS, SERVICES
from faults.made import SERIES, SLICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from faults.harness import Run


@dataclass(frozen=True)
class BaseFault:
    """A fault with a name; see `harness.Fault`."""

    name: str
    title: str
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    at_once: bool = False
    puts: bool = False
    series: int = SERIES
    slices: int = SLICES

    def apply(self, run: Run) -> None:
        """Break nothing."""

    def check(self, run: Run) -> list[str]:
        """Nothing beside the invariant."""
        return []


@dataclass(frozen=True)
class Kill(BaseFault):
    """`kill -9` of one process; of a server with all of its own. It is started again at once."""

    process: str = ""

    def apply(self, run: Run) -> None:
        """Kill it."""
        run.installation.processes[self.process].kill(whole=self.process in SERVERS)


@dataclass(frozen=True)
class Terminate(BaseFault):
    """SIGTERM to one service, which must end with exit code 0."""

    process: str = ""

    def apply(self, run: Run) -> None:
        """Ask it to end, and wait until it has."""
        kept = run.installation.processes[self.process]
        lives = len(kept.exits)
        kept.signal(signal.SIGTERM)
        code = kept.wait(lives)
        if code:
            run.notes.append(f"{self.process} ended with exit code {code} after SIGTERM")

    def check(self, run: Run) -> list[str]:
        """The exit code."""
        return run.notes


@dataclass(frozen=True)
class Stop(BaseFault):
    """A process that is there and says nothing: SIGSTOP, and SIGCONT after the outage."""

    process: str = ""

    def apply(self, run: Run) -> None:
        """Stop it for a while."""
        kept = run.installation.processes[self.process]
        kept.signal(signal.SIGSTOP)
        try:
            run.pass_time(run.outage)
        finally:
            kept.signal(signal.SIGCONT)


PROCESSES = (
    *(Kill(f"kill-{name}", f"kill -9 of {name}", process=name) for name in SERVICES),
    *(Terminate(f"term-{name}", f"SIGTERM of {name}", process=name) for name in SERVICES),
    Kill("kill-rabbitmq", "kill -9 of RabbitMQ", process="rabbitmq"),
    Kill("kill-postgresql", "kill -9 of PostgreSQL", process="postgresql"),
    Kill("kill-seaweedfs", "kill -9 of SeaweedFS", process="seaweedfs"),
    Stop("broker-stopped", "broker unreachable (SIGSTOP)", process="rabbitmq"),
)
