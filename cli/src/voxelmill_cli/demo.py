"""`voxelmill demo`: a phantom whose truth is known, as a real DICOM series, and what was measured beside it."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from rich.progress import Progress
from rich.table import Table

from voxelmill_cli.errors import CommandError
from voxelmill_cli.phantom import Phantom, PhantomPlan
from voxelmill_cli.phantom import make_phantom as compute_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_cli.report import artefact_table, print_ending, volumes
from voxelmill_cli.serving import HOST, PORT
from voxelmill_shared.events import Stage

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt
    from rich.console import Console

    from voxelmill_cli.run import RunSummary

FOLDER = "phantom_ct"


def make_phantom(output: Path, console: Console | None) -> tuple[Phantom, Path]:
    """Compute the phantom and write it as a DICOM series into `output`.

    Raises
    ------
    CommandError
        If the folder cannot be written.
    """
    plan = PhantomPlan()
    folder = output / FOLDER
    with Progress(console=console, disable=console is None or not console.is_terminal) as progress:
        task = progress.add_task("phantom CT", total=plan.slices)
        phantom = compute_phantom(plan, lambda done, _: progress.update(task, completed=done))
    try:
        if folder.exists():
            shutil.rmtree(folder)
        write_series(folder, phantom)
    except OSError as error:
        line = f"{error.filename or folder}: {error.strerror}; choose a folder that this user can write with --output"
        raise CommandError(line) from None
    if console is not None:
        console.print(f"wrote {plan.slices} DICOM instances to {folder}", highlight=False, soft_wrap=True)
    return phantom, folder


def truth_table(phantom: Phantom, summary: RunSummary) -> list[dict[str, Any]]:
    """Put the measured volumes (mL) beside the true ones, with the Dice coefficient of the label maps.

    Dice is 2·|A∩B| / (|A|+|B|) of the voxels of a segment; `body` has no voxels of its own in the truth.
    """
    if not summary.exported:
        return []
    exported = summary.exported[0]
    measured = volumes(exported)
    true = phantom.volumes_ml
    image = nibabel.nifti1.Nifti1Image.from_filename(exported.folder / "labelmap.nii.gz")
    found = _in_phantom_order(np.asarray(image.dataobj), image.affine, phantom)
    numbers = {
        segment["name"]: segment["number"]
        for segment in exported.receipt.stages[Stage.SEGMENT].measurements["segments"]
    }
    rows = []
    for name, volume in measured.items():
        if name not in true:
            continue
        a, b = phantom.labels == numbers[name], found == numbers[name]
        total = int(a.sum()) + int(b.sum())
        dice = 2.0 * int((a & b).sum()) / total if total and a.any() else None
        rows.append({"segment": name, "measured_ml": volume, "true_ml": true[name], "dice": dice})
    return rows


def _in_phantom_order(data: npt.NDArray[Any], affine: npt.NDArray[Any], phantom: Phantom) -> npt.NDArray[Any]:
    """Bring a NIfTI label map (column, row, slice; RAS) into the phantom's (slice, row, column), LPS."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    if not np.allclose(lps, phantom.affine, atol=1e-3):
        raise CommandError("the label map does not lie where the phantom lies: the affine is wrong", 1)
    return data.transpose(2, 1, 0)


def print_demo(console: Console, phantom: Phantom, summary: RunSummary) -> None:
    """Print what was made, the volumes beside the truth, and where to look."""
    for exported in summary.exported:
        console.print(artefact_table(exported))
    table = Table(title="measured beside the phantom's truth", title_justify="left")
    table.add_column("segment")
    for heading in ("measured", "true", "difference", "Dice"):
        table.add_column(heading, justify="right")
    for row in truth_table(phantom, summary):
        difference = (row["measured_ml"] - row["true_ml"]) / row["true_ml"] if row["true_ml"] else 0.0
        table.add_row(
            row["segment"],
            f"{row['measured_ml']:,.0f} mL",
            f"{row['true_ml']:,.0f} mL",
            f"{difference:+.1%}",
            f"{row['dice']:.3f}" if row["dice"] is not None else "",
        )
    console.print(table)
    print_ending(console, summary)


def print_how_to_serve(console: Console, output: Path) -> None:
    """Say how to see the results on the page."""
    console.print(
        f"voxelmill demo --output {shlex.quote(str(output))} --serve shows them on http://{HOST}:{PORT}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
