"""Reading the label map that segment wrote: NIfTI-1 in RAS, turned into patient LPS."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_GZIP = b"\x1f\x8b"
_LARGEST = 65535
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A label map in patient space.

    Attributes
    ----------
    labels
        (slices, rows, columns), uint8 or uint16.
    affine
        (4, 4): voxel index (column, row, slice) to patient LPS millimetres.
    """

    labels: NDArray[np.unsignedinteger]
    affine: NDArray[np.float64]

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


def read_label_map(path: Path) -> LabelMap:
    """Read a NIfTI-1 label map, gzip or plain; what it is, is told by its content and not by its name.

    Raises
    ------
    UnsupportedSeriesError
        `label-map-unreadable` if it is no NIfTI-1 file or is cut off; `label-map-invalid` if it is no volume of
        integers from 0 to 65535 with an invertible affine.
    """
    body = path.read_bytes()
    try:
        if body.startswith(_GZIP):
            body = gzip.decompress(body)
        image = Nifti1Image.from_stream(io.BytesIO(body))
        voxels = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, zlib.error, ValueError) as error:
        raise UnsupportedSeriesError("label-map-unreadable", f"the label map cannot be read: {error}") from error
    affine = _RAS_TO_LPS @ np.asarray(image.affine, np.float64)
    if voxels.ndim != 3 or not voxels.size or voxels.dtype.kind not in "iu":
        raise UnsupportedSeriesError(
            "label-map-invalid", f"the label map is no volume of integers: {voxels.dtype}, {voxels.shape}"
        )
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise UnsupportedSeriesError("label-map-invalid", "the label map's affine cannot be inverted")
    highest = int(voxels.max())
    if voxels.min() < 0 or highest > _LARGEST:
        raise UnsupportedSeriesError("label-map-invalid", "the label map has labels outside 0 to 65535")
    kind = np.uint8 if highest < 256 else np.uint16
    labels: NDArray[np.unsignedinteger] = np.ascontiguousarray(voxels.transpose(2, 1, 0), kind)
    return LabelMap(labels, affine)


def count_voxels(labels: NDArray[np.unsignedinteger]) -> dict[int, int]:
    """Return how many voxels each label has, background left out; slice by slice, so it needs no copy of the map."""
    counts = np.zeros(_LARGEST + 1, np.int64)
    for plane in labels:
        found = np.bincount(plane.ravel())
        counts[: len(found)] += found
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts) if label}


def labels_at_border(labels: NDArray[np.unsignedinteger]) -> set[int]:
    """Return the labels that have a voxel in the first or last slice, row or column."""
    found: set[int] = set()
    for axis in range(3):
        for end in (0, -1):
            found.update(np.unique(np.take(labels, end, axis=axis)).tolist())
    return found - {0}


def renumber(label_map: LabelMap, numbers: Sequence[int]) -> LabelMap:
    """Return the part of a label map that holds some labels, these as 1, 2, 3 … in their order, all else as 0.

    The result is cut to the voxels that are not 0, and its affine says where it lies.
    """
    table = np.zeros(np.iinfo(label_map.labels.dtype).max + 1, np.uint8 if len(numbers) < 256 else np.uint16)
    for place, number in enumerate(numbers, start=1):
        if number < len(table):
            table[number] = place
    labels = table[label_map.labels]
    planes = [labels.any(axis=(1, 2)), labels.any(axis=(0, 2)), labels.any(axis=(0, 1))]
    if not planes[0].any():
        return LabelMap(labels[:0, :0, :0], label_map.affine)
    bounds = [(int(np.argmax(hit)), len(hit) - int(np.argmax(hit[::-1]))) for hit in planes]
    affine = label_map.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([first for first, _ in reversed(bounds)], np.float64)
    return LabelMap(labels[tuple(slice(first, last) for first, last in bounds)], affine)
