"""Times one peer's way from a series to its volume, job after job.

usage: .venv-peers/bin/python bench/peers/timer.py TOOL. A job is a JSON line with a `folder` of one series; the answer
has wall and CPU seconds (all threads, and children), and how many voxels came with which sum.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def simpleitk(folder: Path, _: Path) -> Callable[[], Any]:
    """From the disk: it reads no memory."""
    tool = importlib.import_module("simpleitk_tool")
    paths = sorted(folder.iterdir())
    return lambda: tool.load(paths)


def highdicom(folder: Path, _: Path) -> Callable[[], Any]:
    """From bytes in memory."""
    import pydicom  # noqa: PLC0415 - one tool per process

    tool = importlib.import_module("highdicom_tool")
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    return lambda: tool.load([pydicom.dcmread(BytesIO(file)) for file in files]).array


def dicom2nifti(folder: Path, output: Path) -> Callable[[], Any]:
    """From the disk, to the disk."""
    import dicom2nifti  # noqa: PLC0415 - one tool per process

    def run() -> Any:
        dicom2nifti.dicom_series_to_nifti(str(folder), str(output / "volume.nii"))
        return output / "volume.nii"

    return run


def dcm2niix(folder: Path, output: Path) -> Callable[[], Any]:
    """From the disk, to the disk, in a process of its own."""
    tool = importlib.import_module("dcm2niix_tool")

    def run() -> Any:
        done = tool.convert(folder, output)
        written = sorted(output.glob("*.nii"))
        if len(written) != 1:
            raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-2][:100])
        return written[0]

    return run


PREPARE = {"SimpleITK": simpleitk, "highdicom": highdicom, "dicom2nifti": dicom2nifti, "dcm2niix": dcm2niix}


def voxels_of(result: Any) -> Any:
    """Return the voxels, which are read back where they were written; that is not timed."""
    if isinstance(result, Path):
        import nibabel as nib  # noqa: PLC0415 - only where a file was written

        return np.asanyarray(nib.load(result).dataobj)
    if not isinstance(result, np.ndarray):
        import SimpleITK  # noqa: PLC0415 - only for its own image

        return SimpleITK.GetArrayFromImage(result)
    return result


def cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def measure(tool: str, folder: Path) -> dict[str, Any]:
    """Run once."""
    output = Path(tempfile.mkdtemp(prefix="voxelmill-bench-"))
    try:
        run = PREPARE[tool](folder, output)
        wall, spent = time.perf_counter(), cpu()
        result = run()
        wall, spent = time.perf_counter() - wall, cpu() - spent
        voxels = voxels_of(result)
        return {"wall": wall, "cpu": spent, "voxels": int(voxels.size), "sum": float(voxels.sum(dtype=np.float64))}
    except Exception as error:  # noqa: BLE001 - a peer that cannot is a figure too
        return {"cannot": f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"}
    finally:
        shutil.rmtree(output)


def main() -> None:
    """Answer jobs until there are none."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(measure(sys.argv[1], Path(json.loads(line)["folder"]))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
