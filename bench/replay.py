"""How fast are dead letters replayed, is any of them lost or done twice, and what does a look at many cost?

On a private RabbitMQ, with the runtime's own worker as the consumer:

replay   1,000 messages are rejected by a handler and lie in the dead letters. The cause is removed, and all of them are
         replayed as `voxelmill dlq replay --all --rate 0` does it, while the worker works. The clock runs from the
         order to the last settled message; an event for the audit trail is published for each letter before it goes.
look     10,000 dead letters of 1.5 KB are looked at as `voxelmill dlq list` does it, in a process of its own.

usage: python bench/replay.py     (VOXELMILL_BENCH_RUNS=5 VOXELMILL_BENCH_LETTERS=1000 VOXELMILL_BENCH_LOOK=10000)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from report import Aim, end, table
from voxelmill_shared import dead_letters, logs
from voxelmill_shared.dead_letters import Order, Selection
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded, Stage
from voxelmill_shared.outcome import Done, Reject
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.transport.base import HEADER_ERROR_CLASS, Message
from voxelmill_shared.transport.rabbit import RabbitTransport
from voxelmill_shared.transport.topology import DEFAULT_LADDER, INGEST, TOPOLOGY
from voxelmill_shared.worker import Settled, Worker

if TYPE_CHECKING:
    from voxelmill_shared.outcome import Outcome
    from voxelmill_shared.transport.base import Delivery

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "5"))
LETTERS = int(os.environ.get("VOXELMILL_BENCH_LETTERS", "1000"))
LOOK = int(os.environ.get("VOXELMILL_BENCH_LOOK", "10000"))
PREFETCH = 64
SECONDS = 300


@dataclass
class Handler:
    """Rejects everything, until its cause is removed; then notes what it has done."""

    broken: bool = True
    done: Counter[str] = field(default_factory=Counter)

    async def __call__(self, event: ObjectUploaded) -> Outcome:
        """Take one event."""
        if self.broken:
            return Reject("the disk of the bench is made of paper", "bench")
        self.done[event.object.key] += 1
        return Done()


class Settlements:
    """Counts what the worker has settled, and wakes whoever waits for a number."""

    def __init__(self) -> None:
        self.count = 0
        self._news = asyncio.Event()

    def __call__(self, what: object) -> None:
        """Be the worker's observer."""
        if isinstance(what, Settled):
            self.count += 1
            self._news.set()

    async def until(self, count: int) -> None:
        """Wait."""
        async with asyncio.timeout(SECONDS):
            while self.count < count:
                self._news.clear()
                await self._news.wait()


def uploaded(number: int) -> Message:
    """Make the message of one upload."""
    reference = ObjectRef(bucket="inbox", key=f"chest/IM{number:08}.dcm", etag=f"{number:032x}", size=524_288)
    envelope = Envelope.wrap(ObjectUploaded(object=reference, found_by="notification"), "voxelmill/bench")
    return Message(envelope.encode(), envelope.routing_key, str(envelope.id))


@dataclass(frozen=True, slots=True)
class Replayed:
    """One run: letters a second until they were put back, until they were worked on, and what went wrong."""

    put_back: float
    worked: float
    lost: int
    twice: int


async def replay_once(url: str) -> Replayed:
    """Let letters die, remove the cause, replay them."""
    transport, handler, settled, stop = RabbitTransport(url), Handler(), Settlements(), asyncio.Event()
    service = Service("ingest", Stage.INGEST, (Subscription(INGEST, {ObjectUploaded: handler}, prefetch=PREFETCH),))
    worker = Worker(service, transport, ladder=DEFAULT_LADDER, observers=[settled], grace=timedelta(seconds=5))
    running = asyncio.create_task(worker.run(stop))
    await worker.consuming.wait()
    await transport.publish([uploaded(number) for number in range(LETTERS)])
    await settled.until(LETTERS)
    handler.broken = False
    operator = RabbitTransport(url)
    letters = await dead_letters.look(operator, Selection(services=frozenset({"ingest"})))
    started = time.perf_counter()
    progress = await dead_letters.replay(operator, letters, Order("bench@localhost", rate=0))
    put_back = time.perf_counter() - started
    await settled.until(2 * LETTERS)
    worked = time.perf_counter() - started
    left = await dead_letters.look(operator)
    stop.set()
    await running
    await operator.close()
    await transport.close()
    if progress.done != LETTERS or left:
        raise SystemExit(f"{progress} of {LETTERS}, {len(left)} left")
    lost = LETTERS - len(handler.done)
    return Replayed(LETTERS / put_back, LETTERS / worked, lost, sum(handler.done.values()) - len(handler.done))


async def fill(url: str, queue_size: int) -> None:
    """Put letters into a dead-letter queue without a worker."""
    transport = RabbitTransport(url)
    await transport.declare(TOPOLOGY)
    left, done = queue_size, asyncio.Event()

    async def bury(delivery: Delivery) -> None:
        nonlocal left
        await delivery.dead_letter({HEADER_ERROR_CLASS: "bench"})
        left -= 1
        if not left:
            done.set()

    consumer = await transport.consume(INGEST, bury, prefetch=200)
    padding = " " * 1000
    for first in range(0, queue_size, 1000):
        messages = [uploaded(number) for number in range(first, min(first + 1000, queue_size))]
        await transport.publish([Message(m.body + padding.encode(), m.routing_key, m.message_id) for m in messages])
    async with asyncio.timeout(SECONDS):
        await done.wait()
    await consumer.cancel()
    await transport.close()


def peak_kib() -> int:
    """Give the most memory that this process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


async def look_once(url: str) -> None:
    """Look at all dead letters, and print what that took."""
    transport = RabbitTransport(url)
    await transport.check()
    before, started = peak_kib(), time.perf_counter()
    letters = await dead_letters.look(transport)
    print(
        json.dumps(
            {
                "letters": len(letters),
                "seconds": time.perf_counter() - started,
                "mib": (peak_kib() - before) / 1024,
            }
        )
    )
    await transport.close()


async def measure(url: str) -> tuple[list[Replayed], list[dict[str, float]]]:
    """Replay, then look."""
    runs = [await replay_once(url) for _ in range(RUNS + 1)][1:]  # the first one warms the broker up
    await fill(url, LOOK)
    looks = []
    for _ in range(RUNS):
        command = [sys.executable, __file__, "look", url]
        done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True, timeout=SECONDS)
        looks.append(json.loads(done.stdout))
        if looks[-1]["letters"] != LOOK:
            raise SystemExit(f"a look saw {looks[-1]['letters']} of {LOOK} letters")
    return runs, looks


def main() -> None:
    """Start a broker, measure, print."""
    if sys.argv[1:]:
        asyncio.run(look_once(sys.argv[2]))
        return
    logs.configure("ERROR")
    sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools")]
    from servers.rabbitmq import start_rabbitmq  # noqa: PLC0415 - the tests' broker; a look does without

    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        url, stop = start_rabbitmq(Path(name) / "rabbitmq")
        try:
            runs, looks = asyncio.run(measure(url))
        finally:
            stop()
    put_back, worked = [run.put_back for run in runs], [run.worked for run in runs]
    seconds, mib = [look["seconds"] for look in looks], [look["mib"] for look in looks]
    table(
        ["what", "median", "all runs"],
        [
            [f"{LETTERS} letters put back, per second", *_cells(put_back, "0")],
            [f"{LETTERS} letters worked on, per second", *_cells(worked, "0")],
            [f"a look at {LOOK} letters, seconds", *_cells(seconds, "2")],
            [f"a look at {LOOK} letters, MiB", *_cells(mib, "1")],
        ],
    )
    aims = {
        "lost": Aim(sum(run.lost for run in runs), 0, at_most=True),
        "done_twice": Aim(sum(run.twice for run in runs), 0, at_most=True),
    }
    figures: dict[str, object] = {
        "put_back_per_second": round(statistics.median(put_back)),
        "worked_per_second": round(statistics.median(worked)),
        "look_seconds": round(statistics.median(seconds), 2),
        "look_mib": round(statistics.median(mib), 1),
        "letters": LETTERS,
        "looked_at": LOOK,
        "runs": RUNS,
    }
    end("replay", aims, figures)


def _cells(values: list[float], digits: str) -> list[str]:
    return [f"{statistics.median(values):.{digits}f}", ", ".join(f"{value:.{digits}f}" for value in values)]


if __name__ == "__main__":
    main()
