"""`make contact-sheet`: what do the pictures of all test data look like? One PNG for a person to look at.

    python bench/contact_sheet.py [--data FOLDER] [--output FILE] [--kind preview] [--only TEXT]

Runs the thumbnail service's own work over every series of a folder, a series being the files of one folder with one
Series Instance UID (where that is empty, one frame of reference), and lays out one picture of each with the name of
its file or folder. What cannot be drawn has its reason in its place. Nothing from the headers is written on the sheet
but what the pixels show.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
import time
import warnings
from pathlib import Path

import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.errors import InvalidDicomError

from report import end
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.work import UnsupportedSeriesError, WorkResult
from voxelmill_thumbnail.task import ThumbnailTask
from voxelmill_thumbnail.work import make_thumbnails

_CELL = 256
_TEXT = 40
_GAP = 6
_COLUMNS = 8
_INSTANCE = "instance-1-256"
_TOLD_BY = ("SeriesInstanceUID", "FrameOfReferenceUID")
"""What files of one series share. Some anonymisers empty the first."""


def series_of(data: Path) -> dict[str, tuple[ObjectKind, list[Path]]]:
    """Return the files of each series under `data`, by a name made of its path."""
    found: dict[str, tuple[ObjectKind, list[Path]]] = {}
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        name = str(path.relative_to(data))
        if path.name.endswith((".nii", ".nii.gz")):
            found[name] = ObjectKind.NIFTI, [path]
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TOLD_BY), force=True)
            uid = next((str(header.get(name)) for name in _TOLD_BY if header.get(name)), str(path))
        except (InvalidDicomError, OSError, ValueError, TypeError, EOFError):
            continue  # no DICOM file: a list, a licence
        found.setdefault(f"{path.parent.relative_to(data)}|{uid}", (ObjectKind.DICOM, []))[1].append(path)
    return {_label(data, key, paths): (kind, paths) for key, (kind, paths) in found.items()}


def _label(data: Path, key: str, paths: list[Path]) -> str:
    if len(paths) == 1 or "|" not in key:
        return str(paths[0].relative_to(data))
    return f"{paths[0].parent.relative_to(data)} ({paths[0].name} and {len(paths) - 1} more)"


def draw(kind: ObjectKind, paths: list[Path], output: Path) -> WorkResult | str:
    """Run the service's work; the reason where it draws nothing."""
    try:
        return make_thumbnails(ThumbnailTask(tuple(paths), kind, "", output), lambda _: None)
    except UnsupportedSeriesError as error:
        return f"{error.code}: {error.reason}"


def cell(label: str, picture: Path | None, note: str) -> Image.Image:
    """Draw one picture, or the reason why there is none, above its name."""
    made = Image.new("RGB", (_CELL, _CELL + _TEXT), (40, 40, 60))
    pen = ImageDraw.Draw(made)
    font = ImageFont.load_default(11)
    if picture is None:
        pen.multiline_text((6, 6), textwrap.fill(note, 42), (255, 170, 120), font)
    else:
        with Image.open(picture) as opened:
            shown = opened.convert("RGB")
        shown.thumbnail((_CELL, _CELL))
        made.paste(shown, ((_CELL - shown.width) // 2, (_CELL - shown.height) // 2))
    tail = label if len(label) <= 84 else f"…{label[-83:]}"
    pen.multiline_text((2, _CELL + 2), textwrap.fill(tail, 42), (220, 220, 220), font)
    return made


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir()) / "voxelmill-contact-sheet.png")
    parser.add_argument("--kind", default="preview", help="which picture of each series: preview, axial, coronal ...")
    parser.add_argument("--only", default="", help="only series whose name holds this")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"{options.data}: there is no such folder of files to draw (give one with --data)")
    warnings.simplefilter("ignore")  # broken files are what this folder is for
    cells, drawn, refused, without_pixels = [], 0, 0, 0
    clock = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        for number, (label, (kind, paths)) in enumerate(series_of(options.data).items()):
            if options.only not in label:
                continue
            output = Path(scratch) / str(number)
            result = draw(kind, paths, output)
            pictures = (output / f"{name}.webp" for name in (options.kind, "preview", _INSTANCE))
            picture = None if isinstance(result, str) else next((path for path in pictures if path.exists()), None)
            if isinstance(result, str) and result.startswith("not-an-image"):
                without_pixels += 1
                continue
            drawn += picture is not None
            refused += picture is None
            note = result if isinstance(result, str) else "nothing drawn"
            print(f"{label}: {note if picture is None else '; '.join(result.warnings) or 'drawn'}")
            cells.append(cell(label, picture, note))
    if not cells:
        parser.error(f"{options.data}: it holds nothing to draw")
    rows = -(-len(cells) // _COLUMNS)
    width, height = _CELL + _GAP, _CELL + _TEXT + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height))
    for place, one in enumerate(cells):
        sheet.paste(one, (place % _COLUMNS * width, place // _COLUMNS * height))
    sheet.save(options.output)
    print(f"\n{drawn} series drawn, {refused} refused, {without_pixels} have no pixels: {options.output}")
    figures = {"drawn": drawn, "refused": refused, "without_pixels": without_pixels}
    end("contact-sheet", {}, {**figures, "cpu_s": round(time.process_time() - clock, 1)})


if __name__ == "__main__":
    main()
