"""How fast do bytes become a volume? 300 slices of 512 x 512, beside the floor and beside other readers.

The floor of uncompressed files is `frombuffer` and an addition into an array that is there (or into a new one, whose
pages the system must give first, as every reader's); that of compressed ones is the bare decoder, one frame after
another, divided by the processors that may be used. Voxelmill and highdicom read bytes in memory; the others can only
read files, which the system holds in memory. dcm2niix and dicom2nifti write their volume too, for want of another way.
Rounds are interleaved, the figures are medians.

usage: python bench/read.py [SYNTAX ...]    VOXELMILL_BENCH_RUNS (5), VOXELMILL_BENCH_SLICES (300)
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import syntaxes
from peer_process import PeerProcess, need_peers
from report import Aim, end, table
from volumes import data_folder
from voxelmill_shared.imaging import read_volumes

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "5"))
MOST_COMPRESSED = 3
"""A round of J2K takes a minute with all its readers."""
SLICES = int(os.environ.get("VOXELMILL_BENCH_SLICES", "300"))
PEERS = ("dcm2niix", "SimpleITK", "highdicom", "dicom2nifti")
OURS, FLOOR, FLOOR_NEW = "voxelmill", "floor", "floor, new array"


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Run once; wall and CPU seconds of all threads."""
    wall, spent = time.perf_counter(), time.process_time()
    result = work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - spent}, result


def floor(encoded: list[bytes], name: str, target: np.ndarray[Any, Any]) -> Callable[[], None]:
    """Return the least that any reader must do."""
    decode = syntaxes.SYNTAXES[name][2]

    def add() -> None:
        for k, frame in enumerate(encoded):
            np.add(np.frombuffer(frame, np.int16).reshape(target.shape[1:]), syntaxes.INTERCEPT, out=target[k])

    def decode_all() -> None:
        for frame in encoded:
            decode(frame)

    return add if name == "uncompressed" else decode_all


def measure(name: str, stored: np.ndarray[Any, Any], scratch: Path, peers: dict[str, PeerProcess]) -> dict[str, Any]:
    """Measure one syntax: figures by reader."""
    files, encoded = syntaxes.write(stored, name)
    folder = scratch / name
    folder.mkdir()
    for number, file in enumerate(files):
        (folder / f"{number:04}.dcm").write_bytes(file)
    expected = float(stored.sum(dtype=np.float64)) + syntaxes.INTERCEPT * stored.size
    target = np.zeros(stored.shape, np.int16)  # touched, so that the floor pays for no page
    found: dict[str, list[dict[str, float]]] = {}
    cannot: dict[str, str] = {}
    for _ in range(RUNS if name == "uncompressed" else min(RUNS, MOST_COMPRESSED)):
        seconds, _nothing = timed(floor(encoded, name, target))
        found.setdefault(FLOOR, []).append(seconds)
        if name == "uncompressed":
            seconds, _nothing = timed(floor(encoded, name, np.empty(stored.shape, np.int16)))
            found.setdefault(FLOOR_NEW, []).append(seconds)
        seconds, volumes = timed(lambda: read_volumes(files))
        (volume,) = volumes.volumes
        if float(volume.voxels.sum(dtype=np.float64)) != expected:
            raise SystemExit(f"{name}: Voxelmill's volume is not what was written")
        del volume, volumes
        found.setdefault(OURS, []).append(seconds)
        for tool in PEERS:
            if tool in cannot:
                continue
            answer = peers[tool].ask({"folder": str(folder)})
            if "wall" not in answer:
                cannot[tool] = str(answer.get("cannot") or answer.get("reason"))
            elif answer["voxels"] != stored.size or answer["sum"] != expected:
                cannot[tool] = "its volume is not what was written"
            else:
                found.setdefault(tool, []).append({"wall": answer["wall"], "cpu": answer["cpu"]})
    medians: dict[str, Any] = {
        tool: {kind: statistics.median(run[kind] for run in runs) for kind in ("wall", "cpu")}
        for tool, runs in found.items()
        if tool not in cannot
    }
    if name != "uncompressed":
        medians[FLOOR]["wall"] /= len(os.sched_getaffinity(0))
    return {**medians, **{tool: {"cannot": why} for tool, why in cannot.items()}}


def row(name: str, tool: str, figures: dict[str, Any]) -> list[str]:
    """Give a line of the table."""
    one = figures[tool]
    if "cannot" in one:
        return [name, tool, "-", "-", "-", "-", one["cannot"][:60]]
    ours = figures[OURS]["wall"]
    return [
        name,
        tool,
        f"{one['wall'] * 1000:.0f}",
        f"{one['cpu'] * 1000:.0f}",
        f"{one['wall'] / figures[FLOOR]['wall']:.2f}",
        f"{one['cpu'] / figures[FLOOR]['cpu']:.2f}",
        "" if tool in {FLOOR, FLOOR_NEW} else f"{one['wall'] / ours:.1f}",
    ]


def aims_of(found: dict[str, dict[str, Any]]) -> dict[str, Aim]:
    """State what was hoped for."""
    aims = {}
    for name, figures in found.items():
        ours, least = figures[OURS]["wall"], figures[FLOOR]["wall"]
        if name == "uncompressed":
            aims["uncompressed_over_floor"] = Aim(ours / least, 2.5, at_most=True)
            if "wall" in figures["dcm2niix"]:
                aims["dcm2niix_over_ours"] = Aim(figures["dcm2niix"]["wall"] / ours, 6, at_most=False)
        else:
            aims[f"{name}_over_decoder_per_core"] = Aim(ours / least, 1.1, at_most=True)
    return aims


def main() -> None:
    """Measure every syntax, or the named ones."""
    need_peers()
    names = sys.argv[1:] or list(syntaxes.SYNTAXES)
    unknown = [name for name in names if name not in syntaxes.SYNTAXES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(syntaxes.SYNTAXES)}", file=sys.stderr)
        raise SystemExit(2)
    chest = data_folder() / "ct_chest_lidc0314_2mm_j2k"
    stored = syntaxes.real_slices(sorted(chest.iterdir()), SLICES)
    found = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voxelmill-bench-")))
        peers = {tool: stack.enter_context(PeerProcess(tool, 300, script="timer.py")) for tool in PEERS}
        for name in names:
            found[name] = measure(name, stored, scratch, peers)
    rows = [
        row(name, tool, figures)
        for name, figures in found.items()
        for tool in (FLOOR, FLOOR_NEW, OURS, *PEERS)
        if tool in figures
    ]
    table(["syntax", "reader", "wall ms", "CPU ms", "x floor", "CPU x floor", "x Voxelmill"], rows)
    end("read", aims_of(found), {"slices": len(stored), "cores": len(os.sched_getaffinity(0)), "seconds": found})


if __name__ == "__main__":
    main()
