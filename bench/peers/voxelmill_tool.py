"""Voxelmill's own reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from answers import Volumes, refused

from voxelmill_shared.imaging import read_nifti_volumes, read_volumes
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path


def read(paths: list[Path], output: Path) -> dict[str, Any]:
    """Read one series, or one NIfTI file."""
    volumes = Volumes(output)
    try:
        nifti = paths[0].name.endswith((".nii", ".nii.gz"))
        for volume in read_nifti_volumes(paths[0]) if nifti else read_volumes(paths).volumes:
            volumes.add(volume.voxels, volume.affine, "", "; ".join(volume.warnings))
    except UnsupportedSeriesError as error:
        return refused(f"{error.code}: {error.reason}")
    return volumes.answer("")
