"""The airways: the lumen of the trachea and the bronchi, by region growing that stops before it leaks.

The trachea is found as a round region of bare air that persists over slices above the lungs' middle; its region is
grown at rising thresholds, and the last threshold before the volume explodes into the lungs is taken (Mori et al., IEEE
TMI 19:101, 2000; the explosion control is theirs). The wall and the small bronchi are below this method's reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cc3d
import numpy as np
from scipy import ndimage

from voxelmill_segment.morphology import Mask, bounding_box, dilate

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_segment.grid import Grid

_LUMEN_HU = -880
_EDGE_HU = -500
_THRESHOLDS_HU = tuple(range(-960, -760, 15))
_LEAST_AREA_MM2, _MOST_AREA_MM2 = 50.0, 800.0
_LEAST_LENGTH_MM = 18.0
_OFF_MIDLINE_MM = 45.0
_MOST_ML = 160.0
_EXPLOSION_RATIO, _EXPLOSION_ML = 1.35, 6.0


def find_airways(grid: Grid, body: Mask, lungs: Mask) -> Mask:
    """Return the airway lumen, empty where no trachea is in view.

    Parameters
    ----------
    grid
        A working grid of about 1.2 mm.
    body, lungs
        Body and lung masks on that grid; `lungs` may hold the airways still.
    """
    nothing = np.zeros(grid.hu.shape, np.bool_)
    if not lungs.any():
        return nothing
    trachea = _find_trachea(grid, body, lungs)
    if trachea is None:
        return nothing
    box = list(bounding_box(lungs, 4))
    box[0] = slice(box[0].start, grid.hu.shape[0])
    region = tuple(box)
    hu = grid.hu[region]
    inside = body[region]
    seed = tuple(int(at) - cut.start for at, cut in zip(trachea, region, strict=True))
    best: Mask | None = None
    volume = 0.0
    for threshold in _THRESHOLDS_HU:
        labels = cc3d.connected_components((hu < threshold) & inside, connectivity=6)
        number = labels[seed]
        if number == 0:
            continue
        grown = labels == number
        grown_ml = float(grown.sum()) * grid.voxel_ml
        leaked = volume > 0 and grown_ml > volume * _EXPLOSION_RATIO + _EXPLOSION_ML
        if leaked or grown_ml > _MOST_ML:
            break
        best, volume = grown, grown_ml
    if best is None:
        return nothing
    # The lumen's edge is partial volume: up to halfway between air and wall, within one and a half voxels.
    lumen = dilate(best, 1.5 * grid.spacing[2], grid.spacing) & (hu < _EDGE_HU) & inside
    # Beside the parenchyma there is no wall to stop at, so there the lumen keeps to the air.
    lumen &= best | ~((hu > -930) & _bordering(best, hu))
    nothing[region] = lumen
    return nothing


def _bordering(lumen: Mask, hu: npt.NDArray[np.int16]) -> Mask:
    """Return where the neighbourhood outside the lumen holds no wall, but parenchyma."""
    highest = ndimage.maximum_filter(np.where(lumen, -1024, hu), size=3)
    return highest < -600


def _find_trachea(grid: Grid, body: Mask, lungs: Mask) -> tuple[int, int, int] | None:
    """Return a voxel within the trachea, the highest that the search meets.

    From the top down to the lungs' middle, round regions of bare air near the body's midline that are closed within
    their slice are followed from slice to slice; a region that persists over 18 mm is the trachea.
    """
    _, height_mm, width_mm = grid.spacing
    heights = np.flatnonzero(lungs.any((1, 2)))
    lowest = int(heights[0] + 0.35 * (heights[-1] - heights[0]))
    needed = max(3, int(np.ceil(_LEAST_LENGTH_MM / grid.spacing[0])))
    tracks: list[tuple[int, tuple[int, int, int], tuple[float, float]]] = []
    for index in range(grid.hu.shape[0] - 1, lowest - 1, -1):
        if not body[index].any():
            tracks = []
            continue
        midline = float(np.median(np.nonzero(body[index])[1]))
        follow = []
        for row, column, seed in _round_air(grid.hu[index], body[index], height_mm, width_mm):
            if abs(column - midline) * width_mm > _OFF_MIDLINE_MM:
                continue
            length, first = 1, (index, *seed)
            for before, start, (at_row, at_column) in tracks:
                moved = np.hypot((row - at_row) * height_mm, (column - at_column) * width_mm)
                if moved < 4.0 + grid.spacing[0] and before + 1 > length:
                    length, first = before + 1, start
            if length >= needed:
                return first
            follow.append((length, first, (row, column)))
        tracks = follow
    return None


def _round_air(
    hu: npt.NDArray[np.int16],
    body: Mask,
    height_mm: float,
    width_mm: float,
) -> list[tuple[float, float, tuple[int, int]]]:
    """Return centre (row, column) and darkest voxel of the round regions of bare air of a slice."""
    labels, _ = ndimage.label((hu < _EDGE_HU) & body)
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[place] == number
        area = float(region.sum()) * height_mm * width_mm
        if not _LEAST_AREA_MM2 <= area <= _MOST_AREA_MM2:
            continue
        extent = max((place[0].stop - place[0].start) * height_mm, (place[1].stop - place[1].start) * width_mm)
        values = np.where(region, hu[place], 0)
        seed = np.unravel_index(int(values.argmin()), values.shape)
        # A disc fills pi / 4 of its square: 0.45 leaves room for the horseshoe of a relaxed trachea.
        if area / extent**2 < 0.45 or values[seed] > _LUMEN_HU:
            continue
        row, column = ndimage.center_of_mass(region)
        found.append(
            (
                row + place[0].start,
                column + place[1].start,
                (int(seed[0]) + place[0].start, int(seed[1]) + place[1].start),
            )
        )
    return found
