"""How long does a label map of TotalSegmentator take, how much memory, and is it the same?

Three ways from a NIfTI file to a written label map, with the same weights, in interleaved rounds:

command  the `TotalSegmentator` command, a new process for each volume
api      its Python API in one process that stays; its first volume is not counted
ours     the pipeline of the segment service in one process that stays, with its children; nor is its first one. It
         measures each segment besides, which the others do not

The package is as it is but for one thing, in its favour: see `peers/totalsegmentator_command`. Memory is the greatest
PSS of a process and all below it, each tool alone and nothing timed meanwhile. Times are medians.

Weights are those of VOXELMILL_WEIGHTS, or the tests' tiny ones. With these the package's own work outweighs the
networks', as on a fast GPU; with the real ones on a processor the networks outweigh everything else.

usage: python bench/segment.py [WORD ...]       only the cases that hold a word     VOXELMILL_BENCH_RUNS (3)
       python bench/segment.py --real-size …    networks of the real size, on a GPU: see `segment_real_size`
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from report import Aim, end, table
from segment_tools import (
    API,
    COMMAND,
    OURS,
    Api,
    Case,
    Command,
    Ours,
    Run,
    ToolFailedError,
    differing,
    environment,
    need_totalsegmentator,
    write_large,
)
from volumes import data_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "3"))
TINY = Path(__file__).parents[1] / "tests" / "weights"
SLICES = 300
OF_COMMAND, OF_API, OF_MEMORY = 0.12, 0.3, 0.6
"""The aims: ours in parts of the command on the small volume, of the API on the large one, of the command's memory."""
MIB = 1 << 20
TOOLS = (COMMAND, API, OURS)
Figures = dict[str, dict[str, list[Run]]]


def cases(folder: Path, words: Sequence[str]) -> list[Case]:
    """Return the cases that were asked for."""
    small = data_folder() / "nifti" / "totalseg" / "example_ct.nii.gz"
    large = folder / "large.nii.gz"
    found = [
        Case("small_fast", small, "fast"),
        Case("small_fastest", small, "fastest"),
        Case("large_fast", large, "fast"),
    ]
    found = [case for case in found if not words or any(word in case.name for word in words)]
    if not found:
        raise SystemExit("no such case: small_fast, small_fastest, large_fast")
    if any(case.path == large for case in found):
        write_large(data_folder() / "ct_chest_lidc0314_2mm_j2k", large, SLICES)
    return found


def opened(stack: ExitStack, name: str, folder: Path, variables: Mapping[str, str]) -> Command | Api | Ours:
    """Return a tool; it ends with the stack."""
    if name == COMMAND:
        return Command(folder, variables, "cpu")
    return stack.enter_context((Api if name == API else Ours)(folder, variables, "cpu"))


def warm(tool: Command | Api | Ours, asked: Sequence[Case]) -> None:
    """Let a process that stays see every resolution once."""
    for resolution in [] if isinstance(tool, Command) else dict.fromkeys(case.resolution for case in asked):
        tool.run(next(case for case in asked if case.resolution == resolution))


def timed(asked: Sequence[Case], folder: Path, variables: Mapping[str, str]) -> Figures:
    """Run everything in interleaved rounds; return the runs by case and tool."""
    runs = {case.name: {tool: [] for tool in TOOLS} for case in asked}
    with ExitStack() as stack:
        tools = {name: opened(stack, name, folder, variables) for name in TOOLS}
        for tool in tools.values():
            warm(tool, asked)
        for number in range(RUNS):
            for case in asked:
                for name, tool in tools.items():
                    run = tool.run(case)
                    runs[case.name][name].append(run)
                    print(f"round {number + 1}: {case.name} {name} {run.wall:.2f} s", file=sys.stderr, flush=True)
    return runs


def looked_at(asked: Sequence[Case], folder: Path, variables: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return by case and tool the most bytes; each tool runs alone, so that none shares a library with another."""
    peaks: dict[str, dict[str, int]] = {case.name: {} for case in asked}
    for name in TOOLS:
        with ExitStack() as stack:
            tool = opened(stack, name, folder, variables)
            warm(tool, asked)
            for case in asked:
                peaks[case.name][name] = tool.run(case, look=True).peak
    return peaks


def main() -> None:
    """Do what the arguments say."""
    # So that everything that was started ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    words = sys.argv[1:]
    try:
        if "--real-size" in words:
            from segment_real_size import main as real_size  # noqa: PLC0415 - it loads torch

            real_size([word for word in words if word != "--real-size"])
        else:
            compare(words)
    except ToolFailedError as error:
        raise SystemExit(f"segment: {error}") from None


def compare(words: Sequence[str]) -> None:
    """Run the cases and print the figures."""
    need_totalsegmentator()
    weights = Path(os.environ.get("VOXELMILL_WEIGHTS", TINY)).absolute()
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        folder = Path(name)
        asked = cases(folder, words)
        variables = environment(folder, weights)
        runs = timed(asked, folder, variables)
        wrong = {}
        for case in asked:
            labels = {tool: found[-1].labels for tool, found in runs[case.name].items()}
            wrong[case.name] = max(differing(labels[OURS], labels[tool]) for tool in (COMMAND, API))
        peaks = looked_at(asked, folder, variables)
    rows, stages = [], []
    figures: dict[str, object] = {"runs": RUNS, "processors": os.cpu_count(), "tiny_weights": weights == TINY}
    aims = {}
    for case in asked:
        told = {}
        for tool, found in runs[case.name].items():
            wall, cpu = (statistics.median(getattr(run, what) for run in found) for what in ("wall", "cpu"))
            told[tool] = {"wall": wall, "cpu": cpu, "peak_mib": peaks[case.name][tool] / MIB}
        ours = told[OURS]
        parts = {of: ours["wall"] / told[of]["wall"] for of in (COMMAND, API)}
        memory = ours["peak_mib"] / told[COMMAND]["peak_mib"]
        for tool, taken in told.items():
            of = [f"{ours['wall'] / taken['wall']:.3f}", f"{ours['peak_mib'] / taken['peak_mib']:.2f}"]
            rows.append(
                [case.name, tool, *(f"{taken[what]:.2f}" for what in ("wall", "cpu")), f"{taken['peak_mib']:.0f}", *of]
            )
        steps = [run.answer["seconds"] for run in runs[case.name][OURS]]
        seconds = {step: statistics.median(one[step] for one in steps) for step in steps[0]}
        stages += [[case.name, step, f"{spent:.3f}", f"{spent / ours['wall']:.0%}"] for step, spent in seconds.items()]
        rest = ours["wall"] - sum(seconds.values())
        stages.append([case.name, "(between them)", f"{rest:.3f}", f"{rest / ours['wall']:.0%}"])
        figures[case.name] = {
            **{tool: {what: round(value, 3) for what, value in taken.items()} for tool, taken in told.items()},
            "steps": seconds,
            "of_command": round(parts[COMMAND], 4),
            "of_api": round(parts[API], 4),
            "rungs": [
                line for line in runs[case.name][OURS][-1].answer["warnings"] if line.startswith("memory ran out")
            ],
        }
        if case.name.startswith("small"):
            aims[f"{case.name}_of_command"] = Aim(parts[COMMAND], OF_COMMAND, at_most=True)
        else:
            aims[f"{case.name}_of_api"] = Aim(parts[API], OF_API, at_most=True)
        aims[f"{case.name}_memory_of_command"] = Aim(memory, OF_MEMORY, at_most=True)
        aims[f"{case.name}_voxels_that_differ"] = Aim(wrong[case.name], 0, at_most=True)
    table(["case", "way", "wall s", "CPU s", "peak MiB", "ours of it", "memory of it"], rows)
    print()
    table(["case", "step of ours", "s", "share"], stages)
    print()
    end("segment", aims, figures)


if __name__ == "__main__":
    main()
