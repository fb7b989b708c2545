"""dicom2nifti: one folder of one series to one NIfTI file, with its own checks as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dicom2nifti
from answers import Volumes, refused
from dicom2nifti.exceptions import ConversionError, ConversionValidationError

if TYPE_CHECKING:
    from pathlib import Path


def read(paths: list[Path], output: Path) -> dict[str, Any]:
    """Read one series."""
    target = output / "volume.nii"
    try:
        dicom2nifti.dicom_series_to_nifti(str(paths[0].parent), str(target))
    except (ConversionValidationError, ConversionError) as error:
        return refused(str(error))
    volumes = Volumes(output)
    if target.exists():
        volumes.add_nifti(target)
    return volumes.answer("nothing was written")
