"""What does a service take that has nothing to do?

Every service as a process of its own on RabbitMQ, SeaweedFS and PostgreSQL: seconds from its start until `/readyz` says
yes, and then its memory, once nothing moves any more. They are started one after the other, so that none waits for
another's share of the processor. The tables stand already, as in every start but the first; what the first start of a
service costs is told apart.

Ingest is started twice, without and with the sources of notifications that need no server but these three.

RSS counts what a process shares with others (libraries, mapped files) in full, PSS its share of it. The aim is held to
RSS, because that is what a container's limit and its neighbours' see at worst. Children are told apart.

usage: python bench/idle.py     (VOXELMILL_BENCH_RUNS=3)
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from process_tree import descendants, memory
from real_servers import end_on_signals, real_servers
from report import Aim, end, table
from stack.ports import unready

if TYPE_CHECKING:
    from collections.abc import Mapping

    from real_servers import Servers

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "3"))
SERVICES = ("ingest", "ingest+triggers", "thumbnail", "segment", "mesh", "index", "gateway")
"""With triggers: SeaweedFS's filer (gRPC), pushes by HTTP and a queue of a store's notifications, all at once."""
MIB = 1 << 20
SETTLED_SECONDS = 2.0
"""How long a service is left alone before its memory is read: it is ready, but a child may still be starting."""


@dataclass(frozen=True, slots=True)
class Idle:
    """One start of one service; memory in bytes."""

    ready: float
    rss: int
    pss: int
    children: int
    children_rss: int
    children_pss: int


def start(servers: Servers, name: str, number: int, environment: Mapping[str, str]) -> Idle:
    """Start a service, wait until it is ready and at rest, read its memory, and end it."""
    begun = time.monotonic()
    kind, _, triggers = name.partition("+")
    if triggers:
        environment = {
            **environment,
            "VOXELMILL_SEAWEEDFS_FILER": servers.s3.filer,
            "VOXELMILL_NOTIFICATION_TOKEN": os.urandom(16).hex(),
            "VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE": "store",
        }
        number += 1000  # its log is another one than that of the plain service
    running, port = servers.service(kind, number, environment)
    while reason := unready(port):
        if running.process.poll() is not None or time.monotonic() - begun > 90:
            raise SystemExit(f"{name} did not get ready: {reason}\n{running.log.read_text()[-2000:]}")
        time.sleep(0.01)  # between two looks at /readyz: what is measured is when it first answers
    ready = time.monotonic() - begun
    time.sleep(SETTLED_SECONDS)  # at rest is what is measured: nothing tells when a process has come to it
    rss, pss = memory(running.process.pid)
    below = [memory(pid) for pid in descendants(running.process.pid)]
    idle = Idle(ready, rss, pss, len(below), sum(rss for rss, _ in below), sum(pss for _, pss in below))
    if code := running.stop():
        raise SystemExit(f"{name} ended with {code}:\n{running.log.read_text()[-2000:]}")
    return idle


def main() -> None:
    """Start every service, the first time and then several times, and print the medians."""
    end_on_signals()
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name, real_servers(Path(name)) as servers:
        servers.new_bucket("voxelmill")
        environment = servers.environment("voxelmill", servers.new_database("voxelmill"))
        first = {service: start(servers, service, 0, environment) for service in SERVICES}
        starts = {
            service: [start(servers, service, number, environment) for number in range(1, RUNS + 1)]
            for service in SERVICES
        }
    rows, figures, aims = [], {}, {}
    for service, runs in starts.items():
        ready = statistics.median(run.ready for run in runs)
        rss, pss = (statistics.median(getattr(run, kind) for run in runs) / MIB for kind in ("rss", "pss"))
        children = statistics.median(run.children for run in runs)
        below = statistics.median(run.children_rss for run in runs) / MIB
        rows.append(
            [
                service,
                f"{ready:.2f}",
                f"{first[service].ready:.2f}",
                f"{rss:.0f}",
                f"{pss:.0f}",
                f"{first[service].rss / MIB:.0f}",
                f"{children:.0f}",
                f"{below:.0f}",
            ]
        )
        figures[service] = {
            "ready_seconds": round(ready, 2),
            "first_ready_seconds": round(first[service].ready, 2),
            "rss_mib": round(rss, 1),
            "pss_mib": round(pss, 1),
            "first_rss_mib": round(first[service].rss / MIB, 1),
            "children": children,
            "children_rss_mib": round(below, 1),
        }
        aims[f"{service}_rss_mib"] = Aim(rss + below, 120, at_most=True)
        aims[f"{service}_ready_seconds"] = Aim(ready, 3, at_most=True)
    table(
        ["service", "ready s", "first s", "RSS MiB", "PSS MiB", "first RSS", "children", "their RSS"],
        rows,
    )
    end("idle", aims, {**figures, "runs": RUNS, "python": sys.version.split()[0]})


if __name__ == "__main__":
    main()
