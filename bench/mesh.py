"""What do the surfaces of 117 labels cost, and what are they worth?

A real label map of 117 classes at 512 x 512 x 300 and at 1.5 mm (`mesh_input.py` says how it is made). Voxelmill,
marching cubes label by label on the whole volume, VTK's flying edges and surface nets, and zmesh mesh it, each in a
process of its own; then every surface is judged by the same arithmetic (`mesh_judge.py`). CPU seconds are those of all
threads; peaks those of the process, the label map and all libraries included. Then what Voxelmill's writers take beside
trimesh's, and the whole of the mesh stage, from a file to files, on 512 x 512 x 1,000 voxels.

usage: python bench/mesh.py [--ours] [--quick | --large]    VOXELMILL_BENCH_RUNS (3; scikit-image runs once)
  --ours     Voxelmill alone
  --quick    1.5 mm alone, once, without writers
  --large    512 x 512 x 1,000 alone
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

from mesh_input import GRIDS, LABELS, Reference, make_labels, read_reference
from mesh_judge import Judge, Judgement
from mesh_ways import NAIVE, NETS, WAYS, Cost, answer, median, run
from mesh_writers import compare_writers, show_writers
from peer_process import OURS, PEERS, need_peers
from report import Aim, end, table
from volumes import data_folder
from voxelmill_mesh.surface import Mesh

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "3"))
COARSE, FINE, LARGE = "1.5 mm", "512x512x300", "512x512x1000"
_SLUGS = {COARSE: "coarse", FINE: "fine"}
_NOTHING_MM = 1e-6
"""Positions are float32: 0.06 um at a metre, less than this at a hand's breadth."""

_HEADINGS = [
    "way", "CPU s", "wall s", "peak MiB", "triangles", "sound", "closed", "pinched", "double", "flat",
    "inverted", "volume % mean", "p95", "worst",
    "distance mm mean", "p99", "max", "gap mm mean", "p95", "gap before p95",
]  # fmt: skip


class Grid:
    """One label map in a file, and what every way has cost and made on it."""

    def __init__(self, name: str, labels: NDArray[np.uint8], spacing: NDArray[np.float64], scratch: Path) -> None:
        self.name = name
        self._scratch = scratch
        self._spacing = spacing
        self._path = scratch / "labels.npy"
        np.save(self._path, labels)
        self._judge = Judge(labels, spacing)
        self.costs: dict[str, Cost] = {}
        self.judgements: dict[str, dict[str, Judgement]] = {}
        self.meshes: list[Mesh] = []

    def measure(self, ways: tuple[str, ...], runs: int) -> None:
        """Run every way, in turns, and judge what the first run made."""
        costs: dict[str, list[Cost]] = {way: [] for way in ways}
        for turn in range(runs):
            for way in ways:
                if way == NAIVE and turn:
                    continue
                folder = self._scratch / "meshes"
                folder.mkdir()
                costs[way].append(run(way, self._path, self._spacing.tolist(), None if turn else folder))
                if not turn:
                    self.judgements[way] = {phase: self._judge.judge(folder, phase) for phase in ("before", "after")}
                if way == OURS and not turn:
                    self.meshes = read_meshes(folder)
                shutil.rmtree(folder)
                print(f"{self.name}: {way} {costs[way][-1].total_cpu:.2f} CPU s", flush=True)
        self.costs = {way: median(each) for way, each in costs.items()}

    def show(self) -> None:
        """Print the table."""
        rows = []
        for way, cost in self.costs.items():
            before, after = self.judgements[way]["before"], self.judgements[way]["after"]
            rows.append(
                [
                    way,
                    f"{cost.total_cpu:.2f}",
                    f"{cost.total_wall:.2f}",
                    f"{cost.peak_mib:.0f}",
                    str(after.triangles),
                    f"{after.sound} ({before.sound} before)",
                    *(str(count) for count in (after.closed, after.pinched, after.double, after.flat, after.inverted)),
                    *(f"{value:.2f}" for value in (after.volume.mean, after.volume.p95, after.volume.max)),
                    *(f"{value:.3f}" for value in (after.distance.mean, after.distance.p99, after.distance.max)),
                    f"{after.gap.mean:.4f}",
                    f"{after.gap.p95:.4f}",
                    f"{before.gap.p95:.4f}",
                ]
            )
        print(f"\n{self.name}, {LABELS} labels")
        table(_HEADINGS, rows)
        if OURS in self.costs:
            steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in self.costs[OURS].cpu.items())
            after = self.judgements[OURS]["after"]
            worst = ", ".join(f"{label} {error:.3f} %" for label, error in after.worst.items())
            farthest = ", ".join(f"{label} {distance:.2f} mm" for label, distance in after.farthest.items())
            print(f"ours, CPU s by step: {steps}\n  worst volumes: {worst}\n  largest distances: {farthest}")
        print()

    def figures(self) -> dict[str, Any]:
        """Return everything that was measured."""
        return {
            way: {
                **asdict(cost),
                "total_cpu": cost.total_cpu,
                "total_wall": cost.total_wall,
                **{phase: asdict(judgement) for phase, judgement in self.judgements[way].items()},
            }
            for way, cost in self.costs.items()
        }

    def aims(self) -> dict[str, Aim]:
        """Hold Voxelmill's figures to their aims."""
        before, after = self.judgements[OURS]["before"], self.judgements[OURS]["after"]
        ours = self.costs[OURS].total_cpu
        aims = {
            "closed_and_manifold": Aim(after.sound, LABELS, at_most=False),
            "volume_percent_mean": Aim(after.volume.mean, 0.3, at_most=True),
            "volume_percent_p95": Aim(after.volume.p95, 1.0, at_most=True),
            "volume_percent_worst": Aim(after.volume.max, 3.0, at_most=True),
            "distance_mm_p99": Aim(after.distance.p99, float(np.linalg.norm(self._spacing)), at_most=True),
            "gap_mm_p95": Aim(after.gap.p95, 0.03, at_most=True),
            "gap_mm_max_before_decimation": Aim(before.gap.max, _NOTHING_MM, at_most=True),
        }
        if NAIVE in self.costs:
            aims["cpu_scikit_image_over_ours"] = Aim(self.costs[NAIVE].total_cpu / ours, 30, at_most=False)
            aims["cpu_vtk_surface_nets_over_ours"] = Aim(self.costs[NETS].total_cpu / ours, 1, at_most=False)
        return {f"{_SLUGS[self.name]}_{name}": aim for name, aim in aims.items()}


def read_meshes(folder: Path) -> list[Mesh]:
    """Read the decimated meshes that a way has kept."""
    return [
        Mesh(np.load(path.with_name(path.name.replace("faces", "vertices"))), np.load(path))
        for path in sorted(folder.glob("*-after-faces.npy"), key=lambda path: int(path.name.split("-")[0]))
    ]


def whole_stage(reference: Reference, scratch: Path) -> tuple[dict[str, Any], dict[str, Aim]]:
    """Run the mesh stage on the large label map, in a process of its own."""
    labels, spacing = make_labels(reference, GRIDS[LARGE])
    path = scratch / "labels.nii.gz"
    image = nibabel.nifti1.Nifti1Image(labels.T, np.diag([-spacing[2], -spacing[1], spacing[0], 1.0]))
    with gzip.open(path, "wb", compresslevel=1) as stream:
        image.to_stream(stream)
    del labels, image
    command = [sys.executable, str(PEERS / "mesh_stage.py"), str(path), str(scratch / "stage"), str(LABELS)]
    found = answer(command, "the mesh stage")
    shutil.rmtree(scratch / "stage")
    print(f"\nthe whole mesh stage on {LARGE}, {LABELS} labels, every format that is written where none is named")
    table(
        ["step", "CPU s", "wall s"],
        [[step, f"{cpu:.2f}", f"{found['wall'][step]:.2f}"] for step, cpu in found["cpu"].items()],
    )
    print(
        f"{sum(found['cpu'].values()):.1f} CPU s, peak {found['peak_mib']:.0f} MiB, {found['triangles']} triangles, "
        f"{found['bytes'] / 1e6:.0f} MB of files\n"
    )
    return found, {"large_peak_gib": Aim(found["peak_mib"] / 1024, 2.5, at_most=True)}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description="Surfaces of 117 labels: what they cost, and what they are worth")
    options.add_argument("--ours", action="store_true", help="Voxelmill alone")
    sizes = options.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="1.5 mm alone, once, without writers")
    sizes.add_argument("--large", action="store_true", help="512 x 512 x 1,000 alone")
    asked = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the way that runs is ended too
    grids = () if asked.large else (COARSE,) if asked.quick else (COARSE, FINE)
    ways = (OURS,) if asked.ours else WAYS
    if not asked.ours and not asked.large:
        need_peers()
    reference = read_reference(data_folder())
    aims: dict[str, Aim] = {}
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voxelmill-bench-")))
        for name in grids:
            grid = Grid(name, *make_labels(reference, GRIDS[name]), scratch)
            grid.measure(ways, 1 if asked.quick else RUNS)
            grid.show()
            aims |= grid.aims()
            figures[name] = grid.figures()
            if name == FINE:
                figures["writers"] = compare_writers(grid.meshes, scratch, RUNS)
                show_writers(figures["writers"])
        if not asked.quick:
            figures[LARGE], found = whole_stage(reference, scratch)
            aims |= found
    end("mesh", aims, figures)


if __name__ == "__main__":
    main()
