"""Label maps on disk: NIfTI-1, gzip, the same bytes for the same labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_shared.imaging.nifti_writing import LONGEST_SIDE, write_nifti

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_INTENT_LABEL = 1002


def write_label_map(
    path: Path,
    labels: NDArray[np.uint8] | NDArray[np.uint16],
    affine: NDArray[np.float64],
    *,
    description: str = "Voxelmill label map",
) -> None:
    """Write a label map as NIfTI-1, gzip.

    Parameters
    ----------
    path
        The file to write, `labelmap.nii.gz`.
    labels
        (slices, rows, columns), uint8 or uint16.
    affine
        4 x 4, (column, row, slice) index to LPS mm; how it is written, `write_nifti` says.
    description
        At most 79 bytes.

    Raises
    ------
    ValueError
        If the labels are of another type or too large for NIfTI-1.
    """
    if labels.ndim != 3 or labels.dtype not in (np.uint8, np.uint16) or max(labels.shape) > LONGEST_SIDE:
        raise ValueError(f"a label map is three-dimensional uint8 or uint16, not {labels.dtype} {labels.shape}")
    write_nifti(path, labels, affine, description=description, intent=_INTENT_LABEL)
