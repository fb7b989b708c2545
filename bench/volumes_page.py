"""The page that `volumes.py` writes: a table for every series, and the sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from judged import Verdict

LABELS = {
    "right": "right",
    "resampled": "right, resampled",
    "refused": "refused",
    "wrong": "wrong",
    "crash": "crash",
    "unjudged": "no truth",
    "not asked": "not asked",
}
"""What a verdict is called on the page."""

WITHOUT_TRUTH = ("why the referee has no truth", "files", "series", "volumes of ours in these series")
"""The columns of the table of what nobody could judge."""

_REASON = 90

_HEAD = """# Which readers make right volumes

Written by `make bench-volumes`; do not edit. Each series is read by Voxelmill and by four readers that people trust,
each in a process of its own with a time limit. Every voxel is then held against a referee that shares no code with
Voxelmill: what the header of that very slice (or frame) says about its place and its values.

- **right**: every acquired slice within the volume lies within 0.1 mm of where its own header says, and every value is
  within half a unit and half a stored step. How a reader sorts, flips or turns the axes does not matter.
- **right, resampled**: the volume was interpolated; at the places of the acquired slices its values lie between those
  around them, without a shift that could be measured.
- **refused**: no volume, and a message.
- **wrong**: a voxel elsewhere than acquired, or with another value, or a volume put together from several patients,
  settings, time points or frames of reference.
- **crash**: the process died, hung for 60 s, or raised an error that tells its user nothing.
- **no truth**: the reader gave pixels of something that is no volume: colour, no position, not an image of a patient.

The referee is slow and plain, and it does not read everything: what it left out stands beside the number of frames
(`+ n files`) and, with the reasons, in the last table. No verdict holds for those files.

`n of m`: so many of the series' frames are in the volumes, where not all are. `!`: wrong, with a warning of some kind.
SimpleITK: series reader with GDCM's file names. dcm2niix: `-p n`; where it writes a mended volume beside the plain one
(tilt, uneven spacing), the mended one counts. dicom2nifti and highdicom: their defaults. Padding may have any value. In
the table of what holds no volume a refusal is what should come; `right` there is a single slice, as a volume of one.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One series: what each tool made of it, and what it said."""

    name: str
    frames: int
    verdicts: dict[str, Verdict]
    remarks: dict[str, str]
    hostile: bool
    volume: bool
    left_out: tuple[str, ...]
    """Why files have no truth, or not of every frame: a line for each such file."""

    def unproven(self, tool: str) -> bool:
        """Whether a tool gave a volume of a series of which the referee does not know every file."""
        kind = self.verdicts[tool].kind
        return kind == "unjudged" or (bool(self.left_out) and kind in {"right", "resampled", "wrong"})

    def cell(self, tool: str) -> str:
        """The verdict on one tool, in few words."""
        verdict = self.verdicts[tool]
        if verdict.kind == "not asked":
            return "-"
        text = LABELS[verdict.kind]
        if verdict.kind == "wrong":
            return f"**{text}**{' !' if self.remarks[tool] else ''}"
        if verdict.kind in {"right", "resampled"} and verdict.frames < verdict.of:
            text += f", {verdict.frames} of {verdict.of}"
        return f"**{text}**" if verdict.kind == "crash" else text

    def note(self, ours: str) -> str:
        """Why: our reason, or the first wrong reader's fault."""
        if self.verdicts[ours].kind in {"refused", "crash"}:
            return _short(self.remarks[ours])
        for tool, verdict in self.verdicts.items():
            if verdict.kind == "wrong":
                return _short(f"{tool}: {verdict.why}")
        return _short(self.remarks[ours])


def _short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= _REASON else text[: _REASON - 1].rstrip() + "…"


def page(rows: Sequence[Row], tools: Sequence[str]) -> str:
    """Return the page; `tools` begins with ours."""
    parts = [_HEAD]
    for title, chosen in (
        ("Series that hold a volume", [row for row in rows if row.volume and not row.hostile]),
        ("Hostile series, written from the pixels of a real one", [row for row in rows if row.hostile]),
        ("What holds no volume", [row for row in rows if not row.volume and not row.hostile]),
    ):
        parts += [f"## {title}\n", _sums(chosen, tools), "", _table(chosen, tools), ""]
    lines = ["| " + " | ".join(WITHOUT_TRUTH) + " |", "|---" * len(WITHOUT_TRUTH) + "|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in without_truth(rows, tools[0])]
    return "\n".join([*parts, "## What nobody judged\n", *lines, ""])


def without_truth(rows: Sequence[Row], ours: str) -> list[list[str]]:
    """Count the files that the referee left out, for each reason and in all."""
    reasons = sorted({reason for row in rows for reason in row.left_out})
    chosen = [(reason, [row for row in rows if reason in row.left_out]) for reason in reasons]
    lines = [
        [reason, sum(row.left_out.count(reason) for row in some), len(some), sum(row.unproven(ours) for row in some)]
        for reason, some in chosen
    ]
    some = [row for row in rows if row.left_out]
    files, unproven = sum(len(row.left_out) for row in some), sum(row.unproven(ours) for row in rows)
    lines.append([f"in all, of {len(rows)} series", files, len(some), unproven])
    return [[str(cell) for cell in line] for line in lines]


def _sums(rows: Sequence[Row], tools: Sequence[str]) -> str:
    lines = ["| reader | " + " | ".join(LABELS.values()) + " |", "|---" * (len(LABELS) + 1) + "|"]
    for tool in tools:
        found = Counter(row.verdicts[tool].kind for row in rows)
        lines.append(f"| {tool} | " + " | ".join(str(found[kind]) for kind in LABELS) + " |")
    return "\n".join(lines)


def _table(rows: Sequence[Row], tools: Sequence[str]) -> str:
    lines = ["| series | frames | " + " | ".join(tools) + " | note |", "|---" * (len(tools) + 3) + "|"]
    for row in rows:
        cells = " | ".join(row.cell(tool) for tool in tools)
        rest = f" + {len(row.left_out)} file{'s' * (len(row.left_out) > 1)}" if row.left_out else ""
        lines.append(f"| {row.name} | {row.frames}{rest} | {cells} | {row.note(tools[0])} |")
    return "\n".join(lines)
