"""Dead letters made by a broken store or a broken model; the cause is removed, and they are replayed by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults.faults import BaseFault
from faults.proxy import Mode
from voxelmill_shared.transport.topology import INGEST, SEGMENT

if TYPE_CHECKING:
    from faults.harness import Run
    from voxelmill_shared.transport.topology import QueueSpec

COMMAND_SECONDS = 120.0


@dataclass(frozen=True)
class Replay(BaseFault):
    """Every object, or every series, ends in a dead-letter queue, and is replayed."""

    queues: tuple[QueueSpec, ...] = (INGEST, SEGMENT)

    def apply(self, run: Run) -> None:
        """Break, put, wait for the dead letters, mend, replay."""
        queue = run.random.choice(self.queues)
        if queue is INGEST:
            expected = len(run.work.objects())
            run.installation.proxy.become(Mode.DENIED)
        else:
            expected = len(run.work.series) + 1  # and the NIfTI file
            run.installation.configure({"segment": {"CHILD_SECONDS": "0.001"}})
        try:
            run.installation.store.put(run.work.objects())
            dead = queue.dead_letters
            run.wait_until(lambda: run.installation.broker.dead()[dead] >= expected, f"{expected} in {dead}", 120)
        finally:
            run.installation.proxy.become(Mode.OPEN)
            run.installation.configure({})
        replayed = replay(run.installation.broker_url)
        if replayed != expected:
            run.notes.append(f"{replayed} dead letters were replayed of {expected}")

    def check(self, run: Run) -> list[str]:
        """Nothing is left in the dead letters."""
        left = sum(run.installation.broker.dead().values())
        return [*run.notes, *([f"{left} dead letters are left"] if left else [])]


def replay(url: str) -> int:
    """Replay all dead letters, as an operator does it; return how many those were."""
    done = subprocess.run(
        [sys.executable, "-m", "voxelmill_cli", "dlq", "replay", "--all", "--rate", "0", "--json"],
        env={**os.environ, "VOXELMILL_BROKER_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=True,
    )
    return int(json.loads(done.stdout)["replayed"])


REPLAYS = (
    Replay("replay", "dead letters replayed after the cause is removed", at_once=True, puts=True),
    Replay(
        "replay-1000",
        "1,000 dead letters replayed after the cause is removed",
        at_once=True,
        puts=True,
        series=8,
        slices=125,
        queues=(INGEST,),
    ),
)
