"""Do readers make right volumes? Every item of the test data, and hostile series made of real pixels.

For each series: Voxelmill, SimpleITK, dcm2niix, dicom2nifti and highdicom read it, each in a process of its own, and
every voxel is held against what a slow and plain referee finds in the headers (`peers/referee.py`, `judge.py`).

usage: python bench/volumes.py [WORD ...]    writes docs/volumes.md; with words only the items that hold one, no writing
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

import hostile
from judge import holds_volume, judge
from judged import Candidate, Frame, Verdict
from peer_process import OURS, ROOT, PeerProcess, need_peers
from report import Aim, end, table
from volumes_page import LABELS, WITHOUT_TRUTH, Row, page, without_truth

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = (OURS, "SimpleITK", "dcm2niix", "dicom2nifti", "highdicom")
_NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one series, and what the table calls it."""

    name: str
    paths: tuple[Path, ...]
    hostile: bool = False


def data_folder() -> Path:
    """Return where the test data lie, or end with a clear line."""
    folder = Path(os.environ.get("VOXELMILL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MANIFEST.tsv").is_file():
        print(f"no test data at {folder}: set VOXELMILL_TEST_DATA and try again", file=sys.stderr)
        raise SystemExit(3)
    return folder


def listed(folder: Path) -> Iterator[Series]:
    """Give every series of every item, in the manifest's order."""
    with (folder / "MANIFEST.tsv").open() as stream:
        for item in csv.DictReader(stream, delimiter="\t"):
            place = folder / item["path"]
            paths = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
            groups = by_series(paths)
            for number, group in enumerate(groups, 1):
                yield Series(item["path"] + (f" #{number}" if len(groups) > 1 else ""), tuple(group))


def by_series(paths: list[Path]) -> list[list[Path]]:
    """Part files by Series Instance UID; those without one stay together."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        uid = ""
        if len(paths) > 1:
            try:
                uid = str(
                    pydicom.dcmread(path, force=True, specific_tags=["SeriesInstanceUID"]).get("SeriesInstanceUID")
                )
            except (pydicom.errors.InvalidDicomError, OSError, ValueError, KeyError, EOFError, NotImplementedError):
                uid = ""
        groups[uid].append(path)
    return list(groups.values())


class Bench:
    """The tools and the referee, ready to be asked."""

    def __init__(self, stack: ExitStack, scratch: Path) -> None:
        self._scratch = scratch
        self._tools = {tool: stack.enter_context(PeerProcess(tool)) for tool in TOOLS}
        self._referee = stack.enter_context(PeerProcess("referee", 300))

    def row(self, series: Series) -> Row:
        """Let every tool read a series and judge what comes."""
        folder = self._scratch / "series"
        folder.mkdir()
        paths = []
        unique = len({path.name for path in series.paths}) == len(series.paths)
        for number, path in enumerate(series.paths):
            name = path.name if unique else f"{number:04}-{path.name}"
            (folder / name).symlink_to(path.resolve())
            paths.append(str(folder / name))
        frames, left_out = self._frames(paths)
        verdicts, remarks = {}, {}
        for tool in TOOLS:
            verdicts[tool], remarks[tool] = self._judge(tool, paths, frames)
        shutil.rmtree(folder)
        return Row(series.name, len(frames), verdicts, remarks, series.hostile, holds_volume(frames), left_out)

    def _output(self) -> Path:
        output = self._scratch / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        return output

    def _frames(self, paths: list[str]) -> tuple[list[Frame], tuple[str, ...]]:
        """Ask the referee; also say why files of the series have no truth, or not of every frame."""
        answer = self._referee.ask({"paths": paths, "output": str(self._output())})
        if answer["outcome"] != "frames":
            return [], (f"unreadable: the referee ended: {answer['outcome']}",) * len(paths)
        return [read_frame(found) for found in answer["frames"]], tuple(answer["left_out"])

    def _judge(self, tool: str, paths: list[str], frames: list[Frame]) -> tuple[Verdict, str]:
        if paths[0].endswith(_NIFTI) and tool not in {OURS, "SimpleITK"}:
            return Verdict("not asked"), ""
        answer = self._tools[tool].ask({"paths": paths, "output": str(self._output())})
        if answer["outcome"] != "volumes":
            return Verdict(answer["outcome"], of=len(frames)), answer["reason"]
        candidates = [Candidate(np.load(one["path"]), np.array(one["affine"])) for one in answer["volumes"]]
        remarks = {one["remarks"] for one in answer["volumes"] if one["remarks"]}
        remarks |= {line.strip() for line in answer["said"].splitlines() if "warning" in line.lower()}
        return judge(candidates, frames), "; ".join(sorted(remarks))


def read_frame(found: dict[str, Any]) -> Frame:
    """Take a frame from the referee's answer."""
    origin, column, row = (np.array(vector) for vector in found["place"])
    measured = None if found["measured"] is None else np.load(found["measured"])
    return Frame(
        np.load(found["values"]), origin, column, row, measured, found["step"], found["slack"], found["attributes"]
    )


def counts(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Count the verdicts of each tool."""
    return {tool: dict(Counter(row.verdicts[tool].kind for row in rows)) for tool in TOOLS}


def main() -> None:
    """Read everything and write the page."""
    need_peers()
    words = sys.argv[1:]
    folder = data_folder()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voxelmill-bench-")))
        made = [
            Series(name, tuple(paths), hostile=True)
            for name, paths in hostile.make(folder / "totalseg_ct_dicom_20", scratch / "hostile").items()
        ]
        bench = Bench(stack, scratch)
        rows = []
        for series in [*listed(folder), *made]:
            if words and not any(word in series.name for word in words):
                continue
            row = bench.row(series)
            rows.append(row)
            print(series.name, "|", " | ".join(f"{tool} {row.cell(tool)}" for tool in TOOLS), flush=True)
            if words:
                for tool in TOOLS:
                    print(f"    {tool}: {row.verdicts[tool].why} [{row.remarks[tool][:300]}]")
    found = counts(rows)
    print()
    table(["reader", *LABELS.values()], [[tool, *(str(found[tool].get(kind, 0)) for kind in LABELS)] for tool in TOOLS])
    print()
    table([*WITHOUT_TRUTH], without_truth(rows, OURS))
    if not words:
        (ROOT / "docs" / "volumes.md").write_text(page(rows, TOOLS))
        print("written: docs/volumes.md")
    ours = [row.verdicts[OURS] for row in rows]
    largest = max((verdict.error for verdict in ours if not math.isnan(verdict.error)), default=0.0)
    end(
        "volumes",
        {
            "ours_wrong": Aim(sum(verdict.kind == "wrong" for verdict in ours), 0, at_most=True),
            "ours_crashed": Aim(sum(verdict.kind == "crash" for verdict in ours), 0, at_most=True),
            "ours_without_truth": Aim(sum(row.unproven(OURS) for row in rows), 0, at_most=True),
        },
        {
            "series": len(rows),
            "files_without_truth": sum(len(row.left_out) for row in rows),
            "counts": json.loads(json.dumps(found)),
            "ours_largest_value_error": round(largest, 4),
        },
    )


if __name__ == "__main__":
    main()
