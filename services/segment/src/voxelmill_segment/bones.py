"""The bones: hysteresis thresholding, without contrast-filled vessels, canal and discs.

Two thresholds with hysteresis (Canny 1986, in three dimensions) find cortical bone and what is joined to it; closing
and filling add the marrow. Then is taken out again what is no bone: vessels and kidneys full of contrast
medium, which are even inside and have no brighter shell; and what filling encloses without being marrow: the spinal
canal, the discs and the brain.
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
    from voxelmill_segment.grid import Grid

LOW_HU, HIGH_HU = 140, 200
MARROW_HU = -50
"""Fatty marrow of long bones reaches down to about this."""
_NEAR_MM = 10.0
_CLOSING_MM = 4.0
_LEAST_CORE_ML, _LEAST_ML = 0.5, 1.0
_EVEN_HU = 40.0
_MOST_MARROW_ML = 250.0


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
    filled &= (grid.hu > MARROW_HU) & ~contrast
    holes = filled & ~bone
    labels, counts = components(holes)
    # The skull encloses the brain as a bone encloses its marrow; no marrow is that large.
    enclosed = counts * grid.voxel_ml > _MOST_MARROW_ML
    enclosed[0] = False
    marrow = holes & ~enclosed[labels]
    marrow &= ~_find_canal(grid, body, marrow)
    return bone | (marrow & ~_find_discs(grid, marrow))


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
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
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


def _find_canal(grid: Grid, body: Mask, soft: Mask) -> Mask:
    """Return the spinal canal among the soft tissue that bone encloses.

    In each slice it is a compact region of 60 to 500 mm² near the body's midline; such regions that line up over 30 mm
    (or over most of a shorter volume) are the canal. Marrow as dark lies elsewhere, or is wider (the sacrum).
    """
    canal = np.zeros(soft.shape, np.bool_)
    if not soft.any():
        return canal
    candidates = opened(soft & (grid.hu < 110) & (grid.hu > -40), 3.0, grid.spacing)
    height_mm, width_mm = grid.spacing[1:]
    for index in np.flatnonzero(candidates.any((1, 2))):
        midline = float(np.median(np.nonzero(body[index])[1]))
        labels, _ = ndimage.label(candidates[index])
        for number, place in enumerate(ndimage.find_objects(labels), start=1):
            region = labels[place] == number
            area = float(region.sum()) * height_mm * width_mm
            extent = max(region.shape[0] * height_mm, region.shape[1] * width_mm)
            middle = (place[1].start + place[1].stop - 1) / 2.0
            if 60 <= area <= 500 and area > 0.35 * extent**2 and abs(middle - midline) * width_mm < 50:
                canal[index][place] |= region
    # The foramina between the vertebrae interrupt it: parts up to 24 mm apart line up.
    bridge = 2 * int(np.ceil(12.0 / grid.spacing[0])) + 1
    labels, counts = components(ndimage.maximum_filter(canal.view(np.uint8), size=(bridge, 1, 1)) > 0)
    labels[~canal] = 0
    upright = np.zeros(len(counts), np.bool_)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        height = (place[0].stop - place[0].start) * grid.spacing[0]
        upright[number] = height >= min(30.0, 0.6 * soft.shape[0] * grid.spacing[0])
    return dilate(upright[labels], 1.5, grid.spacing) & soft


def _find_discs(grid: Grid, soft: Mask) -> Mask:
    """Return the discs between vertebrae among the soft tissue that bone encloses: flat, wide and of 40 to 125 HU."""
    discs = np.zeros(soft.shape, np.bool_)
    labels, _ = components(soft & (grid.hu > 40) & (grid.hu < 125))
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if (place[0].stop - place[0].start) * grid.spacing[0] <= 15.0:
            region = labels[place] == number
            discs[place] |= region & bool(region.any(0).sum() * grid.spacing[1] * grid.spacing[2] >= 350.0)
    return discs
