"""Morphology in millimetres, by Euclidean distance, on the working grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cc3d
import edt
import fill_voids
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

Mask: TypeAlias = npt.NDArray[np.bool_]
Spacing: TypeAlias = tuple[float, float, float]
Connectivity: TypeAlias = Literal[6, 18, 26]


def depth(mask: Mask, spacing: Spacing) -> npt.NDArray[np.float32]:
    """Return the distance in mm of each voxel of a mask to the nearest voxel outside; the image border is no edge."""
    distance: npt.NDArray[np.float32] = edt.edt(
        np.ascontiguousarray(mask), anisotropy=spacing, black_border=False, parallel=2
    )
    return distance


def dilate(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Add all voxels within a radius."""
    if not mask.any():
        return mask.copy()
    return depth(~mask, spacing) <= radius_mm


def erode(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Take away all voxels within a radius of the outside; the image border is no edge."""
    if mask.all():
        return mask.copy()
    return depth(mask, spacing) > radius_mm


def opened(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Take away what a ball of this radius does not fit into."""
    return dilate(erode(mask, radius_mm, spacing), radius_mm, spacing)


def closed(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Add what a ball of this radius outside the mask does not reach; at the image border as well."""
    margins = [int(np.ceil(radius_mm / step)) + 1 for step in spacing]
    padded = np.pad(mask, [(margin, margin) for margin in margins])
    padded = erode(dilate(padded, radius_mm, spacing), radius_mm, spacing)
    return padded[tuple(slice(margin, -margin) for margin in margins)]


def components(mask: Mask, connectivity: Connectivity = 6) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the mask's components, numbered from 1, and the voxels of each number (0 first)."""
    found = cc3d.connected_components(mask, connectivity=connectivity, return_N=False, out_dtype=np.uint32)
    labels = found.view(np.int32)  # as scipy numbers them; there are never so many
    return labels, np.bincount(labels.ravel())


def large_components(mask: Mask, least_voxels: float, connectivity: Connectivity = 6) -> Mask:
    """Keep the components of at least so many voxels."""
    labels, counts = components(mask, connectivity)
    keep = counts >= least_voxels
    keep[0] = False
    return keep[labels]


def fill_slices(mask: Mask, axis: int = 0) -> Mask:
    """Fill what is enclosed within each slice across an axis."""
    filled = np.array(np.moveaxis(mask, axis, 0), order="C")
    for index in range(len(filled)):
        if filled[index].any():
            filled[index] = fill_voids.fill(filled[index])
    return np.moveaxis(filled, 0, axis)


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """Return the slices around a mask that is not empty, widened by a margin within the array."""
    box = []
    for axis, size in enumerate(mask.shape):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(found[0]) - margin), min(size, int(found[-1]) + 1 + margin)))
    return tuple(box)


def within(mask: Mask, margin_mm: float, spacing: Spacing, work: Callable[..., Mask], *others: Any) -> Mask:
    """Do work on the part of the volume around a mask only, which saves most of the time.

    `work` is given the cropped mask and the other arrays cropped alike, and returns a mask of the same shape.
    """
    result = np.zeros(mask.shape, np.bool_)
    if mask.any():
        box = bounding_box(mask, int(np.ceil(margin_mm / min(spacing))) + 1)
        result[box] = work(np.ascontiguousarray(mask[box]), *(other[box] for other in others))
    return result
