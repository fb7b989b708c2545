"""Runs each way to surfaces in a process of its own, and remembers what the runs cost."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peer_process import OURS, PEER_PYTHON, PEERS

if TYPE_CHECKING:
    from pathlib import Path

NAIVE = "scikit-image"
EDGES = "VTK flying edges"
NETS = "VTK surface nets"
ZMESH = "zmesh"
WAYS = (OURS, NAIVE, EDGES, NETS, ZMESH)
REDUCTION_PERCENT = 90
LEAST_TRIANGLES = 2000
"""What Voxelmill's normal quality keeps of a small surface, and what the peers that can are told to keep."""

_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of all threads and wall seconds by step, and the peak of resident memory in MiB."""

    cpu: dict[str, float]
    wall: dict[str, float]
    peak_mib: float

    @property
    def total_cpu(self) -> float:
        """CPU seconds of all steps."""
        return sum(self.cpu.values())

    @property
    def total_wall(self) -> float:
        """Wall seconds of all steps."""
        return sum(self.wall.values())


def run(way: str, labels: Path, spacing: list[float], keep: Path | None) -> Cost:
    """Run one way once; with a folder, the meshes are kept there."""
    job = {
        "labels": str(labels),
        "spacing": spacing,
        "reduction_percent": REDUCTION_PERCENT,
        "least_triangles": LEAST_TRIANGLES,
        "keep": None if keep is None else str(keep),
    }
    python = sys.executable if way == OURS else str(PEER_PYTHON)
    return Cost(**answer([python, str(PEERS / "mesh_worker.py"), way, json.dumps(job)], way))


def answer(command: list[str], what: str) -> dict[str, Any]:
    """Run a command to its end and return the JSON object in its last line, or end with its own last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{what} did not end within {_SECONDS} s") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise SystemExit(f"{what} ended with {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def median(costs: list[Cost]) -> Cost:
    """Return the median of each figure over several runs."""
    first = costs[0]
    return Cost(
        {step: statistics.median(cost.cpu[step] for cost in costs) for step in first.cpu},
        {step: statistics.median(cost.wall[step] for cost in costs) for step in first.wall},
        statistics.median(cost.peak_mib for cost in costs),
    )
