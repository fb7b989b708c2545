"""Volumes as NIfTI-1 files, gzip: the same bytes for the same voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np
from isal import igzip

from voxelmill_shared.imaging.nifti import RAS_TO_LPS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LONGEST_SIDE: Final = 32767
"""The most voxels along an axis that NIfTI-1 can say."""
_SCANNER = 1
_RIGHT_ANGLE = 1e-4
_LEVEL = 2
"""isal's: 0.02 CPU seconds for 512 x 512 x 300 labels, where zlib takes 1.3 at nibabel's level, and no larger."""


def write_nifti(
    path: Path,
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    description: str,
    intent: int = 0,
    slope: float = 1.0,
    intercept: float = 0.0,
    level: int = _LEVEL,
) -> None:
    """Write a volume as NIfTI-1, gzip.

    Parameters
    ----------
    path
        The file to write.
    voxels
        (slices, rows, columns), of an integer type that NIfTI knows.
    affine
        4 x 4, (column, row, slice) index to LPS mm. On disk it is RAS, as NIfTI wants. Both sform and qform are set,
        but for a sheared affine (gantry tilt) the sform alone: a qform has no shear, and a reader that prefers it
        would put the voxels beside the anatomy.
    description
        At most 79 bytes.
    intent
        NIfTI's intent code.
    slope, intercept
        What turns the voxels into what they mean.
    level
        Of isal's compression, 0 to 3.

    Raises
    ------
    ValueError
        If the array is no volume or too large for NIfTI-1.
    """
    if voxels.ndim != 3 or max(voxels.shape) > LONGEST_SIDE:
        raise ValueError(f"a volume is three-dimensional and {LONGEST_SIDE} long at most, not {voxels.shape}")
    ras = RAS_TO_LPS @ affine
    make: Any = nib.Nifti1Header  # carries no types
    header = make(endianness="<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape[::-1])
    header.set_xyzt_units("mm")
    header.set_sform(ras, code=_SCANNER)
    header.set_qform(ras, code=0 if _sheared(affine) else _SCANNER, strip_shears=True)
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["intent_code"] = intent
    header["descrip"] = description.encode()[:79]
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = slope, intercept
    extensions = bytes(4)  # there are none
    compress: Any = igzip.IGzipFile  # carries no types
    with path.open("wb") as file, compress("", "wb", level, file, mtime=0) as member:
        member.write(header.binaryblock + extensions)
        for plane in voxels:  # no second copy of all of them
            member.write(np.ascontiguousarray(plane, voxels.dtype.newbyteorder("<")).data)


def _sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE)
