"""The bones: hysteresis thresholding, without contrast-filled vessels and without the spinal canal.

Two thresholds with hysteresis (Canny 1986, in three dimensions) find cortical bone and what is joined to it; closing
and filling add the marrow. Two things of bone's density are taken out again: vessels and kidneys full of contrast
medium, which are even inside and have no brighter shell, and the spinal canal, which filling encloses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from voxelmill_segment.morphology import (
    Mask,
    closed,
    components,
    depth,
    dilate,
    fill_slices,
    large_components,
    opened,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from voxelmill_segment.grid import Grid

LOW_HU, HIGH_HU = 140, 200
_MARROW_HU = -50
_NEAR_MM = 10.0
_CLOSING_MM = 4.0
_LEAST_CORE_ML, _LEAST_ML = 0.5, 1.0
_EVEN_HU = 40.0


def find_bones(grid: Grid, body: Mask) -> Mask:
    """Return bone with its marrow, on the working grid."""
    contrast = find_contrast(grid, body)
    low = body & (grid.hu > LOW_HU) & ~contrast
    high = body & (grid.hu > HIGH_HU) & ~contrast
    labels, counts = components(low)
    joined = np.zeros(len(counts), np.bool_)
    joined[np.unique(labels[high])] = True
    joined[0] = False
    core = large_components(high, _LEAST_CORE_ML / grid.voxel_ml, connectivity=26)
    if not core.any():
        return core
    bone = joined[labels] & dilate(core, _NEAR_MM, grid.spacing)
    bone = large_components(bone, _LEAST_ML / grid.voxel_ml, connectivity=26)
    shell = closed(bone, _CLOSING_MM, grid.spacing)
    filled = shell | fill_slices(shell, 0) | fill_slices(shell, 1) | fill_slices(shell, 2)
    filled &= (grid.hu > _MARROW_HU) & ~contrast
    filled |= bone
    return filled & ~_find_canal(grid, filled, bone)


def find_contrast(grid: Grid, body: Mask) -> Mask:
    """Return regions full of contrast medium: even inside, 150 to 700 HU, and with no shell brighter than themselves.

    Marrow can be as even and as bright, but the cortex around it is brighter: a region counts as contrast medium only
    if little of the ring around it is brighter than itself.
    """
    hu = grid.hu.astype(np.float32)
    size = [max(1, round(2.5 / step)) * 2 + 1 for step in grid.spacing]
    mean = ndimage.uniform_filter(hu, size)
    variance = ndimage.uniform_filter(hu * hu, size) - mean * mean
    even = body & (grid.hu > LOW_HU) & (mean > 150) & (mean < 700) & (variance < _EVEN_HU**2)
    even = opened(even, 3.0, grid.spacing)
    labels, counts = components(even)
    keep = counts * grid.voxel_ml > 3.0
    keep[0] = False
    if not keep.any():
        return np.zeros(body.shape, np.bool_)
    level = ndimage.mean(grid.hu, labels, np.arange(len(counts)))
    for number, place in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if not keep[number]:
            continue
        margin = [int(np.ceil(6.0 / step)) + 1 for step in grid.spacing]
        box = tuple(
            slice(max(0, cut.start - m), min(n, cut.stop + m))
            for cut, m, n in zip(place, margin, body.shape, strict=True)
        )
        distance = depth(labels[box] != number, grid.spacing)
        ring = (distance > 0) & (distance <= 5.0)
        brighter = (grid.hu[box] > level[number] + 60) & ring
        keep[number] = brighter.sum() < 0.12 * ring.sum()
    contrast = keep[labels]
    if not contrast.any():
        return np.zeros(body.shape, np.bool_)
    return dilate(contrast, 6.0, grid.spacing) & body & (grid.hu > LOW_HU) & (grid.hu < 700)


def _find_canal(grid: Grid, filled: Mask, bone: Mask) -> Mask:
    """Return the spinal canal: soft tissue enclosed by bone, wider than 8 mm, in a long upright column."""
    soft = filled & ~bone & (grid.hu < 110)
    soft = opened(soft, 3.5, grid.spacing)
    labels, counts = components(soft)
    canal = np.zeros(len(counts), np.bool_)
    for number, place in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if place is None:
            continue
        height_mm, depth_mm, width_mm = (
            (cut.stop - cut.start) * step for cut, step in zip(place, grid.spacing, strict=True)
        )
        values: npt.NDArray[np.int16] = grid.hu[place][labels[place] == number]
        canal[number] = (
            height_mm >= 12.0 and depth_mm < 6 * height_mm and width_mm < 45.0 and -20 < float(values.mean()) < 75
        )
    return canal[labels]
