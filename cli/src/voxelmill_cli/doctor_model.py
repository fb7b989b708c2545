"""What `voxelmill doctor` says of the model totalsegmentator: its library, its weights, a GPU."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from voxelmill_cli.doctor import Finding
from voxelmill_cli.errors import CommandError
from voxelmill_cli.model import digest_of, weights_folder
from voxelmill_segment.totalsegmentator import library
from voxelmill_shared.plan import ModelName, Plan, Resolution

_DRIVER = Path("/proc/driver/nvidia/gpus")
_WANTED = "VOXELMILL_MODEL"


def examine_model() -> list[Finding]:
    """Look at what the model needs. Only where VOXELMILL_MODEL names it is anything amiss if it is not there."""
    wanted = os.environ.get(_WANTED) == ModelName.TOTALSEGMENTATOR
    try:
        library.require()
    except library.NotInstalledError as error:
        line, _, mend = str(error).partition(": ")
        return [Finding("totalsegmentator", not wanted, line, mend)]
    found = Finding("totalsegmentator", True, f"TotalSegmentator {library.VERSION}")
    return [found, _weights(wanted=wanted), _gpu(wanted=wanted)]


def _weights(*, wanted: bool) -> Finding:
    """Say at which resolutions the usual task could be computed."""
    folder = weights_folder()
    ready = []
    for resolution in Resolution:
        try:
            digest_of(Plan(model=ModelName.TOTALSEGMENTATOR, resolution=resolution), folder)
        except CommandError:
            continue
        ready.append(str(resolution))
    here = folder.datasets()
    detail = f"{len(here)} data sets, {decimal(sum(one.size for one in here))}, in {folder.path}"
    if ready:
        return Finding("weights", True, f"{detail}; total can be computed {', '.join(ready)}")
    return Finding(
        "weights",
        not wanted,
        f"{detail}; total cannot be computed",
        "voxelmill weights download total, or import (set VOXELMILL_WEIGHTS to where they are)",
    )


def _gpu(*, wanted: bool) -> Finding:
    """Say which devices there are: by the driver, or, if it will be used, by torch, which takes seconds to start."""
    if not wanted:
        models = sorted(
            line.partition(":")[2].strip()
            for path in _DRIVER.glob("*/information")
            for line in path.read_text().splitlines()
            if line.startswith("Model:")
        )
        return Finding("gpu", True, "; ".join(models) or "none of NVIDIA's", needed=False)
    torch: Any = importlib.import_module("torch")
    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(i)}, {decimal(torch.cuda.get_device_properties(i).total_memory)}"
            for i in range(torch.cuda.device_count())
        ]
        return Finding("gpu", True, "; ".join(names), needed=False)
    if torch.backends.mps.is_available():
        return Finding("gpu", True, "Apple's (mps)", needed=False)
    return Finding(
        "gpu",
        False,
        f"torch {torch.__version__} finds none: TotalSegmentator computes on the CPU, in minutes",
        "install torch with CUDA, see services/segment/README.md",
        needed=False,
    )
