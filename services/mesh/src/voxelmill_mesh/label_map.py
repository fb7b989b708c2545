"""Reading the label map that segment wrote: NIfTI-1 in RAS, turned into patient LPS."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.parallel import WORKERS, in_parallel
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

_GZIP = b"\x1f\x8b"
_LARGEST = 65535
_NO_MEMORY = -4
"""What zlib says of memory (Z_MEM_ERROR): nothing is wrong with the file."""
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
    extent
        (2, 3) the lowest and the highest column, row and slice of the image's outer faces, of a part of an image
        (`renumber`); None where the label map is all of it and has no margin.
    """

    labels: NDArray[np.unsignedinteger]
    affine: NDArray[np.float64]
    extent: NDArray[np.float64] | None = None

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


def _check_length(image: Nifti1Image, length: int) -> None:
    """Compare header and body before room is made for what the header says: a few bytes can claim terabytes."""
    header = image.header
    bits = math.prod(int(size) for size in image.shape) * int(header["bitpix"])
    said = bits // 8 + int(header["vox_offset"])
    if min(image.shape, default=0) < 0 or said > length:
        raise EOFError(f"its header says {image.shape}, {said} bytes, and it has {length}")


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
        _check_length(image, len(body))
        voxels = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, zlib.error) and str(error).startswith(f"Error {_NO_MEMORY} "):
            raise MemoryError from error
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


@dataclass(frozen=True, slots=True)
class Survey:
    """What is counted of a label map.

    Attributes
    ----------
    voxels
        How many voxels each label has, background left out.
    at_border
        The labels that have a voxel in the first or last slice, row or column: the anatomy leaves the image.
    box
        The slices, rows and columns that hold every voxel that is not background.
    """

    voxels: dict[int, int]
    at_border: frozenset[int]
    box: tuple[slice, slice, slice]


@compiled
def _survey(labels: Array, first: int, last: int, counts: Array, border: Array, ends: Array) -> None:
    """Count slices from `first` to before `last`; `ends` are the lowest and highest place of any label, by axis."""
    slices, rows, columns = labels.shape
    for z in range(first, last):
        for y in range(rows):
            row = labels[z, y]
            outer = z in (0, slices - 1) or y in (0, rows - 1)
            border[row[0]] = True
            border[row[columns - 1]] = True
            start = 0
            while start < columns:
                label = row[start]
                end = start + 1
                while end < columns and row[end] == label:
                    end += 1
                counts[label] += end - start
                if label:
                    if outer:
                        border[label] = True
                    ends[0, 0], ends[0, 1] = min(ends[0, 0], z), max(ends[0, 1], z)
                    ends[1, 0], ends[1, 1] = min(ends[1, 0], y), max(ends[1, 1], y)
                    ends[2, 0], ends[2, 1] = min(ends[2, 0], start), max(ends[2, 1], end - 1)
                start = end


def survey(labels: NDArray[np.unsignedinteger]) -> Survey:
    """Count the voxels of each label, and find where they are, in one pass."""
    slabs = list(pairwise(np.unique(np.linspace(0, len(labels), WORKERS + 1).astype(np.int64))))
    highest = int(np.iinfo(labels.dtype).max) + 1
    counts = np.zeros((len(slabs), highest), np.int64)
    border = np.zeros((len(slabs), highest), np.bool_)
    ends = np.empty((len(slabs), 3, 2), np.int64)
    ends[:] = (max(labels.shape), -1)
    with in_parallel() as run:
        run(_survey, ((labels, *slab, *parts) for slab, *parts in zip(slabs, counts, border, ends, strict=True)))
    total = counts.sum(axis=0)
    low, high = ends[:, :, 0].min(axis=0), ends[:, :, 1].max(axis=0)
    first, second, third = (slice(int(min(a, b + 1)), int(b) + 1) for a, b in zip(low, high, strict=True))
    return Survey(
        {int(label): int(total[label]) for label in np.flatnonzero(total) if label},
        frozenset(int(label) for label in np.flatnonzero(border.any(axis=0)) if label),
        (first, second, third),
    )


@compiled
def _renumber(labels: Array, table: Array, made: Array, first: int, last: int) -> None:
    for z in range(first, last):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                made[z + 1, y + 1, x + 1] = table[labels[z, y, x]]


def renumber(label_map: LabelMap, numbers: Sequence[int], box: tuple[slice, slice, slice] | None = None) -> LabelMap:
    """Return the part of a label map that holds some labels, these as 1, 2, 3 … in their order, all else as 0.

    Parameters
    ----------
    label_map
        The label map, without a margin.
    numbers
        The labels to keep.
    box
        The part that holds them (`Survey.box`); all of the label map if not given.

    Returns
    -------
    LabelMap
        The part, with a margin of one voxel of 0 around it. Its affine's origin is the first voxel within the margin,
        and so is that of its extent, which is the whole label map's.
    """
    box = box or (slice(0, label_map.labels.shape[0]), slice(None), slice(None))
    table = np.zeros(np.iinfo(label_map.labels.dtype).max + 1, np.uint8 if len(numbers) < 256 else np.uint16)
    for place, number in enumerate(numbers, start=1):
        if number < len(table):
            table[number] = place
    labels = label_map.labels[box]
    made = np.zeros(tuple(size + 2 for size in labels.shape), table.dtype)
    slabs = pairwise(np.unique(np.linspace(0, len(labels), WORKERS + 1).astype(np.int64)))
    with in_parallel() as run:
        run(_renumber, ((labels, table, made, *slab) for slab in slabs))
    affine = label_map.affine.copy()
    start = np.array([part.start or 0 for part in reversed(box)], np.float64)
    affine[:3, 3] += affine[:3, :3] @ start
    extent = np.stack([np.zeros(3), label_map.labels.shape[::-1]]) - start - 0.5
    return LabelMap(made, affine, extent)
