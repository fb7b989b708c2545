"""Dead letters made by a broken store or a broken model; the cause is removed, and they are replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults.faults import BaseFault
from faults.proxy import Mode
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INGEST, SEGMENT

if TYPE_CHECKING:
    from faults.harness import Run
    from voxelmill_shared.transport.topology import QueueSpec


@dataclass(frozen=True)
class Replay(BaseFault):
    """Every object, or every series, ends in a dead-letter queue, and is replayed."""

    def apply(self, run: Run) -> None:
        """Break, put, wait for the dead letters, mend, replay."""
        queue = run.random.choice([INGEST, SEGMENT])
        if queue is INGEST:
            expected = len(run.work.objects())
            run.installation.proxy.become(Mode.DENIED)
        else:
            expected = len(run.work.series) + 1  # and the NIfTI file
            run.installation.configure({"segment": {"CHILD_SECONDS": "0.001"}})
        try:
            run.installation.store.put(run.work.objects())
            dead = queue.dead_letters
            run.wait_until(lambda: run.installation.broker.dead()[dead] >= expected, f"{expected} in {dead}", 90)
        finally:
            run.installation.proxy.become(Mode.OPEN)
            run.installation.configure({})
        replayed = run.installation.loop.run(replay(run.installation.broker_url, queue))
        if replayed != expected:
            run.notes.append(f"{replayed} dead letters were replayed of {expected}")

    def check(self, run: Run) -> list[str]:
        """Nothing is left in the dead letters."""
        left = sum(run.installation.broker.dead().values())
        return [*run.notes, *([f"{left} dead letters are left"] if left else [])]


async def replay(url: str, queue: QueueSpec) -> int:
    """Replay all dead letters of a queue; return how many those were."""
    transport = open_transport(url)
    try:
        handles = [letter.handle async for letter in transport.dead_letters(queue)]
        return await transport.replay(queue, handles)
    finally:
        await transport.close()


REPLAYS = (Replay("replay", "dead letters replayed after the cause is removed", at_once=True, puts=True),)
