"""Seconds for a case, and how busy the GPU is, with networks of the real size.

The weights are random numbers: a network takes as long whatever its numbers are. What it finds with them is scattered,
which makes the label map slower to measure and to compress than a real one, for every way alike.

What the networks are like. Known from the package: the data sets, their trainers, their spacing (3 mm: one network of
117 classes and the background; 1.5 mm: five that know 20 to 26 each), and how far tiles are apart. Known of nnU-Net,
with whose usual plans they were trained: a PlainConvUNet with 32 channels that double from stage to stage up to 320,
convolutions of 3 x 3 x 3, instance normalisation and leaky ReLU, two convolutions in each stage; its planner chooses
patches of about 128 x 128 x 128 voxels for such images, which gives six stages. Assumed, for the real plans are not at
hand here: that all patches are exactly that.

usage: python bench/segment.py --real-size [fast] [normal] [--volume FILE.nii.gz]
       VOXELMILL_SEGMENT_DEVICE (auto)   VOXELMILL_BENCH_RUNS (3)   VOXELMILL_BENCH_CASES (10, in a row)
       VOXELMILL_FASTSEGMENTATOR_PYTHON  a Python that has fastsegmentator, which does 1.5 mm only

The volume is 512 x 512 x 300 unless another is named. Busy is what nvidia-smi samples ten times a second, from the
moment the first case is handed over, when it must still be read, until the last one is written.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from report import Aim, end, table
from segment_tools import (
    COMMAND,
    OURS,
    Case,
    Command,
    Ours,
    ToolFailedError,
    differing,
    environment,
    need_totalsegmentator,
    run_command,
    write_large,
)
from voxelmill_segment.devices import check_devices, devices, visible_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "3"))
CASES = int(os.environ.get("VOXELMILL_BENCH_CASES", "10"))
SLICES = 300
PATCH = (128, 128, 128)
FEATURES = (32, 64, 128, 256, 320, 320)
CONVOLUTIONS = 2
BUSY = 0.85
FAST_SEGMENTATOR = "fastsegmentator"


@dataclass(slots=True)
class GpuWatch:
    """What nvidia-smi says of a GPU while the context is open; without a number nobody is asked.

    Attributes
    ----------
    busy
        Share of time, by sample, in which the GPU worked.
    mib
        Memory in use, by sample, by everyone.
    """

    number: str | None
    busy: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        if self.number is not None:
            asked = nvidia_smi(self.number, "utilization.gpu,memory.used")
            process = subprocess.Popen([*asked, "--loop-ms=100"], stdout=subprocess.PIPE, text=True)
            reader = threading.Thread(target=self._read, args=(process,), daemon=True)
            reader.start()
            self._stack.callback(reader.join)
            self._stack.callback(process.wait)
            self._stack.callback(process.terminate)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            busy, mib = line.split(",")
            self.mib.append(float(mib))
            if "N/A" not in busy:  # a part of a GPU (MIG) has no figure of its own
                self.busy.append(float(busy) / 100)


def nvidia_smi(number: str, what: str) -> list[str]:
    """Return the command that asks for figures of a GPU."""
    return ["nvidia-smi", f"--id={number}", f"--query-gpu={what}", "--format=csv,noheader,nounits"]


def used_mib(number: str | None) -> float:
    """Return how much of a GPU's memory is in use now."""
    if number is None:
        return 0.0
    return float(subprocess.run(nvidia_smi(number, "memory.used"), check=True, capture_output=True, text=True).stdout)


def chosen_device() -> tuple[str, str, str | None]:
    """Return the device as we, the package and nvidia-smi call it; without a GPU say so and end."""
    setting = check_devices(os.environ.get("VOXELMILL_SEGMENT_DEVICE", "auto"))
    device = devices(setting)[0]
    kind, _, number = device.partition(":")
    if kind == "cuda" and visible_gpus() > int(number):
        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        return device, f"gpu:{number}", visible[int(number)] if visible else number
    if kind == "mps":
        return device, "mps", None
    if setting != "cpu":
        print("there is no GPU here: networks of the real size are not timed", file=sys.stderr)
        raise SystemExit(3)
    print("on a processor: this tries the way and tells nothing of speed", file=sys.stderr)
    return "cpu", "cpu", None


def write_weights(folder: Path, resolution: str) -> int:
    """Write the networks of a resolution; return how many there are."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    from tiny_weights.layout import Shape, write_random_weights  # noqa: PLC0415 - it loads torch
    from voxelmill_segment.totalsegmentator import library  # noqa: PLC0415 - only where the package is there
    from voxelmill_shared.plan import Resolution  # noqa: PLC0415 - as above

    networks = library.networks("total", Resolution(resolution))
    for network in networks:
        shape = Shape(network.spacing or (1.5, 1.5, 1.5), PATCH, FEATURES, CONVOLUTIONS)
        write_random_weights(folder, network, shape=shape, seed=network.dataset)
    return len(networks)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one resolution is tried."""

    folder: Path
    weights: Path
    variables: Mapping[str, str]
    names: tuple[str, str, str | None]


def fast_segmentator(python: str, case: Case, place: Place) -> dict[str, float]:
    """Return what its command takes for a folder of one volume, and for each further volume in the folder.

    Raises
    ------
    ToolFailedError
        If it fails.
    """
    walls = []
    for count in (1, 1 + CASES):
        images, output = (place.folder / f"{FAST_SEGMENTATOR}-{name}-{count}" for name in ("in", "out"))
        images.mkdir()
        for number in range(count):
            (images / f"case{number:03}.nii.gz").symlink_to(case.path)
        arguments = [
            *(python, "-m", "fastsegmentator.cli", "totalseg", "--task", "total"),
            *("-i", str(images), "-o", str(output), "--weights_dir", str(place.weights)),
            *("--device", place.names[0]),
        ]
        walls.append(run_command(arguments, place.variables, place.folder / f"{FAST_SEGMENTATOR}.log")[0])
    return {"seconds_cold": walls[0], "seconds": (walls[1] - walls[0]) / CASES}


def measured(case: Case, place: Place) -> dict[str, Any]:
    """Run the ways one after the other, for one GPU has room for one of them."""
    ours_name, theirs_name, number = place.names
    idle = used_mib(number)
    command = Command(place.folder, place.variables, theirs_name)
    with GpuWatch(number) as seen:
        cold = [command.run(case) for _ in range(RUNS)]
    figures: dict[str, Any] = {
        COMMAND: {
            "seconds": statistics.median(run.wall for run in cold),
            "gpu_mib": max(seen.mib, default=0.0) - idle,
        }
    }
    with Ours(place.folder, place.variables, ours_name) as ours:
        first = ours.run(case)
        warm = [ours.run(case) for _ in range(RUNS)]
        with GpuWatch(number) as seen:
            wall, _, _, answers = ours.run_row(case, CASES)
    figures[OURS] = {
        "seconds_first": first.wall,
        "seconds": statistics.median(run.wall for run in warm),
        "gpu_mib": max(seen.mib, default=0.0) - idle,
        "row_seconds": wall / CASES,
        "row_busy": statistics.fmean(seen.busy) if seen.busy else None,
        "row_device_share": sum(answer["device_seconds"] for answer in answers) / wall,
        "steps": answers[-1]["seconds"],
        "rungs": [line for line in answers[-1]["warnings"] if line.startswith("memory ran out")],
    }
    figures["voxels_that_differ"] = differing(cold[-1].labels, warm[-1].labels)
    python = os.environ.get("VOXELMILL_FASTSEGMENTATOR_PYTHON", "")
    if python and case.resolution == "normal":
        try:
            figures[FAST_SEGMENTATOR] = fast_segmentator(python, case, place)
        except ToolFailedError as error:
            print(f"not run: {error}", file=sys.stderr)
    elif case.resolution == "normal":
        print(
            "not run: fastsegmentator (VOXELMILL_FASTSEGMENTATOR_PYTHON names no Python that has it)", file=sys.stderr
        )
    return figures


def rows_of(resolution: str, figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the lines of the table."""
    command = figures[COMMAND]["seconds"]
    rows = []
    for way in (COMMAND, OURS, FAST_SEGMENTATOR):
        found = figures.get(way)
        if found is None:
            continue
        row = found.get("row_seconds")
        busy = found.get("row_busy")
        rows.append(
            [
                resolution,
                way,
                f"{found['seconds']:.2f}",
                f"{found['seconds'] / command:.3f}",
                "" if row is None else f"{row:.2f}",
                "" if busy is None else f"{busy:.2f}",
                f"{found['gpu_mib']:.0f}" if found.get("gpu_mib") else "",
            ]
        )
    return rows


def main(arguments: Sequence[str]) -> None:
    """Try each resolution and print the figures."""
    parser = argparse.ArgumentParser(prog="segment.py --real-size", description=__doc__.split("\n", 1)[0])
    parser.add_argument("resolutions", nargs="*", help="fast (3 mm), normal (1.5 mm, five networks)")
    parser.add_argument("--volume", type=Path, help="a NIfTI file")
    options = parser.parse_args(arguments)
    if unknown := set(options.resolutions) - {"fast", "normal"}:
        parser.error(f"no such resolution: {', '.join(sorted(unknown))}")
    need_totalsegmentator()
    names = chosen_device()
    rows: list[list[str]] = []
    figures: dict[str, Any] = {"device": names[0], "runs": RUNS, "cases": CASES}
    aims = {}
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        folder = Path(name)
        volume = options.volume.absolute() if options.volume else folder / "large.nii.gz"
        if not options.volume:
            from volumes import data_folder  # noqa: PLC0415 - only its own volumes need the data

            write_large(data_folder() / "ct_chest_lidc0314_2mm_j2k", volume, SLICES)
        for resolution in options.resolutions or ["fast", "normal"]:
            weights = folder / f"weights-{resolution}"
            networks = write_weights(weights, resolution)
            place = Place(folder, weights, environment(folder, weights), names)
            found = measured(Case(resolution, volume, resolution), place)
            figures[resolution] = {"networks": networks, **found}
            rows += rows_of(resolution, found)
            if found[OURS]["row_busy"] is not None:
                aims[f"{resolution}_gpu_busy_share"] = Aim(found[OURS]["row_busy"], BUSY, at_most=False)
    table(["resolution", "way", "s a case", "of command", f"s, {CASES} in a row", "GPU busy", "GPU MiB"], rows)
    print()
    end("segment-real-size", aims, figures)
