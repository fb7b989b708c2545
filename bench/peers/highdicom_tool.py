"""highdicom: a volume from the data sets of a series, or from a multi-frame image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import highdicom
import pydicom
from answers import Volumes, refused

if TYPE_CHECKING:
    from pathlib import Path


def load(datasets: list[pydicom.Dataset]) -> Any:
    """Return highdicom's volume."""
    if len(datasets) == 1 and int(datasets[0].get("NumberOfFrames") or 1) > 1:
        return highdicom.Image.from_dataset(datasets[0], copy=False).get_volume()
    return highdicom.get_volume_from_series(datasets)


def read(paths: list[Path], output: Path) -> dict[str, Any]:
    """Read one series."""
    try:
        volume = load([pydicom.dcmread(path) for path in paths])
        # Its affine goes from (slice, row, column).
        voxels, affine = volume.array, volume.affine[:, [2, 1, 0, 3]]
    # It refuses in these words; a NotImplementedError is pydicom's, of pixels that no plugin of its reads.
    except (ValueError, RuntimeError, pydicom.errors.InvalidDicomError, NotImplementedError) as error:
        return refused(str(error))
    volumes = Volumes(output)
    volumes.add(voxels, affine)
    return volumes.answer("")
