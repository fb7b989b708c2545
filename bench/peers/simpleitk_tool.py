"""SimpleITK, as its own examples read a series: GDCM's file names, then the series reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK
from answers import Volumes, refused

if TYPE_CHECKING:
    from pathlib import Path


def load(paths: list[Path]) -> Any:
    """Return the image of a folder that holds one series, or of one file."""
    if len(paths) == 1:
        return SimpleITK.ReadImage(str(paths[0]))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(paths[0].parent)))
    return reader.Execute()


def read(paths: list[Path], output: Path) -> dict[str, Any]:
    """Read one series."""
    try:
        image = load(paths)
    except RuntimeError as error:  # SimpleITK's one kind of error, with ITK's message
        return refused(str(error).splitlines()[-1])
    voxels = SimpleITK.GetArrayFromImage(image)
    if image.GetDimension() == 2:
        image, voxels = SimpleITK.JoinSeries(image), voxels[None]
    if image.GetDimension() > 3:
        return refused(f"an image of {image.GetDimension()} dimensions")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    volumes = Volumes(output)
    volumes.add(voxels, affine)
    return volumes.answer("")
