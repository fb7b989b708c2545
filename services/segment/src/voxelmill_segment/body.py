"""The body: separate it from the table, the blankets and the air around."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cc3d
import numpy as np

from voxelmill_segment.morphology import Mask, bounding_box, closed, components, depth, dilate, erode, fill_slices

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_segment.grid import Grid

TISSUE_HU = -400
"""Halfway between air and fat, with a margin for the partial volume of the skin."""

_OUTSIDE_AIR_HU = -940
_SHELL_HU = 150
_SUTURE_MM = 8.0
_LEAST_SHELL_ML = 20.0
_TABLE_MM = 4.0
_LEAST_SHARE = 0.01
_LEAST_HALF_THICKNESS_MM = 10.0


def find_body(grid: Grid) -> Mask:
    """Return the body with all that it encloses (lungs, bowel gas).

    Tissue is opened by 4 mm, which takes the table top and clothes away (they are thinner), and of its components all
    are kept that hold at least 1 % of the largest one and are over 28 mm thick: arms and legs that lie apart, but no
    table frame. Then holes are filled slice by slice. A hole that opens to the image border is outside only if the air
    there is bare air: a field of view that cuts through a lung does not lose it.
    """
    tissue = grid.hu > TISSUE_HU
    body = _thick_parts(grid, tissue)
    dense = grid.hu > _SHELL_HU
    if float((dense & ~body).sum()) * grid.voxel_ml > _LEAST_SHELL_ML:
        # A dry skull is a shell, thin as a table: it counts with all that it encloses. Its sutures may gape.
        body = _thick_parts(grid, tissue | fill_slices(closed(dense, _SUTURE_MM, grid.spacing)))
    body = fill_slices(body)
    for index in range(len(body)):
        body[index] |= _cut_lung(grid.hu[index], body[index])
    return body


def _thick_parts(grid: Grid, tissue: Mask) -> Mask:
    core = erode(tissue, _TABLE_MM, grid.spacing)
    labels, counts = components(core)
    if len(counts) < 2:
        return np.zeros(grid.hu.shape, np.bool_)
    counts[0] = 0
    thickest = np.zeros(len(counts))
    inner = depth(core, grid.spacing)
    np.maximum.at(thickest, labels[core], inner[core])
    keep = (counts >= _LEAST_SHARE * counts.max()) & (thickest >= _LEAST_HALF_THICKNESS_MM)
    keep[counts.argmax()] = True
    return dilate(keep[labels], _TABLE_MM + 0.5 * max(grid.spacing), grid.spacing) & tissue


def _cut_lung(hu: npt.NDArray[np.int16], body: Mask) -> Mask:
    """Return the regions of a slice outside `body` that reach the image border and hold lung instead of bare air."""
    labels = cc3d.connected_components(~body, connectivity=4)
    inside = np.zeros(hu.shape, np.bool_)
    if not body.any() or body.all():
        return inside
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    rim_hu = np.concatenate([hu[0], hu[-1], hu[:, 0], hu[:, -1]])
    for number in np.unique(rim[rim > 0]):
        at_rim = rim == number
        # Lung at the border is grey, bare air is not; a small gap between arm and border says nothing.
        if np.median(rim_hu[at_rim]) > _OUTSIDE_AIR_HU and at_rim.sum() >= 8:
            region = labels == number
            if np.median(hu[region]) > _OUTSIDE_AIR_HU and _is_flanked(region, body):
                inside |= region
    return inside


def _is_flanked(region: Mask, body: Mask) -> bool:
    """Tell whether a region lies within the body's own extent: a blanket beside the body does not."""
    rows, columns = bounding_box(body)
    return bool(region[rows, columns].sum() > 0.9 * region.sum())
