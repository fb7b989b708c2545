"""Where the body wall ends: fat outside it is subcutaneous, fat inside it is torso fat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_segment.morphology import Mask, closed, components, depth, erode, fill_slices, opened

if TYPE_CHECKING:
    from voxelmill_segment.grid import Grid

FAT_LOW_HU, FAT_HIGH_HU = -190, -30
"""Adipose tissue (Kvist et al., Am J Clin Nutr 48:1351, 1988; Yoshizumi et al., Radiology 211:283, 1999)."""

_SKIN_MM = 4.0
_WALL_CLOSING_MM = 12.0


def find_torso(grid: Grid, body: Mask, firm: Mask) -> Mask:
    """Return what the muscles and bones of the body wall enclose, themselves included.

    Parameters
    ----------
    grid
        The working grid.
    body
        The body.
    firm
        Lungs and bones, where they are known.
    """
    wall = (body & (grid.hu >= FAT_HIGH_HU)) | firm
    wall &= depth(body, grid.spacing) > max(_SKIN_MM, 1.5 * grid.spacing[2])
    # A thin muscle of the belly is one coarse block thick: no opening there, or the wall would gape.
    wall = opened(wall, min(1.01 * grid.spacing[2], 2.5), grid.spacing)
    labels, counts = components(wall)
    if len(counts) < 2:
        return np.zeros(body.shape, np.bool_)
    counts[0] = 0
    torso = fill_slices(closed(labels == counts.argmax(), _WALL_CLOSING_MM, grid.spacing))
    return torso & erode(body, min(_SKIN_MM, grid.spacing[2]), grid.spacing)
