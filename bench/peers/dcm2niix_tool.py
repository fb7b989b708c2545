"""dcm2niix, Debian's, on a folder of one series; without compression and without Philips' private scaling.

`-p n`: the values asked for are those of the modality transform, and not a scanner's own floating-point scale.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from answers import Volumes, refused

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 60


def convert(folder: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        ["dcm2niix", "-z", "n", "-b", "n", "-p", "n", "-f", "volume", "-o", str(output), str(folder)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )


def read(paths: list[Path], output: Path) -> dict[str, Any]:
    """Read one series."""
    try:
        done = convert(paths[0].parent, output)
    except subprocess.TimeoutExpired:
        return {"outcome": "crash", "reason": f"not done after {_SECONDS} s"}
    if done.returncode < 0:
        return {"outcome": "crash", "reason": f"ended by signal {-done.returncode}"}
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    warned = "; ".join(line for line in lines if line.lower().startswith(("warning", "error")))
    volumes = Volumes(output)
    written = sorted(output.glob("*.nii"))
    # Where it mends a tilt or uneven slices, it writes what it began with as well.
    mended = [path for path in written if "_Tilt" in path.stem or "_Eq" in path.stem]
    for path in mended or written:
        volumes.add_nifti(path, warned)
    return volumes.answer(warned or refused(lines[-1] if lines else f"exit code {done.returncode}")["reason"])
