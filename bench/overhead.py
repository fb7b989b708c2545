"""How much of a run is not the work itself?

Overhead = (end-to-end time - time during which at least one of the five domain steps runs) / end-to-end time. The
steps: reading headers and deciding (ingest), pictures, segmentation, surfaces, and writing catalog and receipt (index).
End to end is from handing the series in until nothing is left to do, in one process on the embedded defaults, as
`voxelmill run` does it; the start of Python and the copies into the user's folder are given apart.

usage: python bench/overhead.py [SERIES_FOLDER]    (default: the chest CT of the test data, else a phantom)
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from report import Aim, end, table
from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_cli.progress import Silent
from voxelmill_cli.run import RunRequest, RunSummary, run
from voxelmill_shared import logs
from voxelmill_shared.events import Stage
from voxelmill_shared.plan import Plan

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "3"))
HEAVY = (Stage.THUMBNAIL, Stage.SEGMENT, Stage.MESH)


def source(arguments: list[str], scratch: Path) -> Path:
    """Choose the series: the argument, the test data's chest CT, or a phantom."""
    if arguments:
        return Path(arguments[0])
    data = Path(os.environ.get("VOXELMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    chest = data / "ct_chest_lidc0314_2mm_j2k"
    if chest.is_dir():
        return chest
    print("no test data here: measuring on a phantom")
    folder = scratch / "phantom"
    write_series(folder, make_phantom(PhantomPlan()))
    return folder


def union(intervals: list[tuple[float, float]]) -> float:
    """Return the length of time that at least one interval covers."""
    covered, until = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        covered += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return covered


def heavy_intervals(summary: RunSummary) -> dict[Stage, tuple[float, float]]:
    """When each heavy step's child was at work: it ends when its record's work ended, and took `domain` seconds."""
    stages = summary.exported[0].receipt.stages
    intervals = {}
    for stage in HEAVY:
        told = stages[stage]
        if told.finished is None:
            raise SystemExit(f"{stage} did not finish: {told.reason}")
        stop = told.finished.timestamp()
        intervals[stage] = (stop - told.seconds["domain"], stop)
    return intervals


def measure(series: Path, destination: Path) -> dict[str, float]:
    """Run once and take the figures."""
    clock = Clock()
    summary = asyncio.run(run(RunRequest(str(series), str(destination), Plan()), clock))
    heavy = heavy_intervals(summary)
    light = clock.light()
    end_to_end = clock.quiet_at - clock.begun_at
    covered = union([*heavy.values(), *light])
    return {
        "end_to_end": end_to_end,
        "ingest": union(clock.of(Stage.INGEST)),
        **{stage.value: stop - start for stage, (start, stop) in heavy.items()},
        "index": union(clock.of(Stage.INDEX)),
        "covered": covered,
        "overhead": (end_to_end - covered) / end_to_end,
        "overhead_beside_heavy_steps": (end_to_end - union(list(heavy.values()))) / end_to_end,
        "whole_command": summary.seconds,
    }


class Clock(Silent):
    """A display that notes when ingest and index were at work, and when the work began and ended."""

    def __init__(self) -> None:
        self.begun_at = 0.0
        self.quiet_at = 0.0
        self._spans: dict[Stage, list[tuple[float, float]]] = {}

    def objects(self, settled: int, total: int) -> None:
        """Note the beginning: the first call is made when the objects are handed in."""
        self.begun_at = self.begun_at or time.time()

    def worked(self, service: str, seconds: float) -> None:
        """Note a settled message, and that something was still going on."""
        now = time.time()
        self.quiet_at = now
        self._spans.setdefault(Stage(service), []).append((now - seconds, now))

    def of(self, stage: Stage) -> list[tuple[float, float]]:
        """Give the spans of a service."""
        return self._spans.get(stage, [])

    def light(self) -> list[tuple[float, float]]:
        """Give the spans of ingest and index."""
        return [*self.of(Stage.INGEST), *self.of(Stage.INDEX)]


def main() -> None:
    """Measure several times and print the medians."""
    logs.configure("ERROR")
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        scratch = Path(name)
        series = source(sys.argv[1:], scratch)
        measure(series, scratch / "warm-up")  # compiles what numba compiles
        runs = [measure(series, scratch / f"run-{number}") for number in range(RUNS)]
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    table(
        ["figure", "median", "all runs"],
        [
            [
                key,
                f"{value:.1%}" if key.startswith("overhead") else f"{value:.2f} s",
                ", ".join(f"{run[key]:.1%}" if key.startswith("overhead") else f"{run[key]:.2f}" for run in runs),
            ]
            for key, value in medians.items()
        ],
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"series: {series.name}; largest child: {peak:.0f} MiB")
    end(
        "overhead",
        {"overhead": Aim(medians["overhead"], 0.05, at_most=True)},
        {**{key: round(value, 4) for key, value in medians.items()}, "runs": RUNS, "largest_child_mib": round(peak)},
    )


if __name__ == "__main__":
    main()
