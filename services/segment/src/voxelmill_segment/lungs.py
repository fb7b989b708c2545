"""The lungs, after Hu, Hoffman and Reinhardt (IEEE TMI 20:490, 2001): threshold, split, smooth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from voxelmill_segment.morphology import Mask, bounding_box, closed, components, depth, fill_slices, within

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_segment.grid import Grid

LEFT, RIGHT = 1, 2

_FIRST_THRESHOLD_HU = -500.0
_LEAST_ML = 8.0
_LARGE_ML = 400.0
_CLOSING_MM = 8.0
_SPLIT_MM = (0.0, 2.0, 4.0, 6.0, 9.0, 12.0)
_LEAST_SIDE_SHARE = 0.12


def optimal_threshold(grid: Grid, body: Mask) -> float:
    """Return the HU that separates the air within the body from its tissue (Hu 2001, section II.A).

    The threshold is moved to the mean of the two sides' means until it rests; it is kept within -600 and -350 HU, so
    that a volume without air keeps a sensible one.
    """
    values = grid.hu[body]
    threshold = _FIRST_THRESHOLD_HU
    for _ in range(20):
        low, high = values[values < threshold], values[values >= threshold]
        if low.size == 0 or high.size == 0:
            break
        moved = (float(low.mean()) + float(high.mean())) / 2.0
        rests, threshold = abs(moved - threshold) < 1.0, moved
        if rests:
            break
    return float(np.clip(threshold, -600.0, -350.0))


def find_lung_air(grid: Grid, body: Mask, threshold: float) -> Mask:
    """Return the lungs' air, with the airways that are joined to it.

    Components of air within the body are lung if their inside, one and a half voxels away from the edge (where partial
    volume makes any air grey), is mostly parenchyma, -950 to -500 HU; bowel gas and sinuses are bare air. A component
    of more than 400 mL may be darker: emphysema.
    """
    air = body & (grid.hu < threshold)
    labels, counts = components(air)
    inner = depth(air, grid.spacing) > 1.5 * min(grid.spacing)
    grey = inner & (grid.hu > -950) & (grid.hu < -500)
    inside = np.bincount(labels[inner], minlength=len(counts))
    parenchyma = np.bincount(labels[grey], minlength=len(counts)) / np.maximum(inside, 1)
    volume_ml = counts * grid.voxel_ml
    keep = (volume_ml > _LEAST_ML) & (inside * grid.voxel_ml > 0.15 * volume_ml) & (parenchyma > 0.5)
    keep |= (volume_ml > _LARGE_ML) & (parenchyma > 0.15)
    keep[0] = False
    lungs: Mask = keep[labels]
    return lungs


def split_lungs(lungs: Mask, body: Mask, spacing: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Tell the left lung from the right: 1 and 2, 0 elsewhere.

    Where the lungs touch (at the junction lines), the mask is eroded until its two largest parts hold a fair share each
    and lie on either side; the other parts go by the nearer side, and each voxel to its nearest part. A single lung, or
    parts of one, go by the body's midline.
    """
    sides = np.zeros(lungs.shape, np.uint8)
    if not lungs.any():
        return sides
    box = bounding_box(lungs, 1)
    cut = np.ascontiguousarray(lungs[box])
    midline = float(np.median(np.nonzero(body[box[0]])[2])) - box[2].start
    inner = depth(cut, spacing)
    parts, border = None, midline
    for radius in _SPLIT_MM:
        labels, counts = components(inner > radius)
        counts[0] = 0
        if len(counts) < 3:
            continue
        largest = np.argsort(counts)[:-3:-1]
        if counts[largest[1]] < _LEAST_SIDE_SHARE * counts.sum():
            continue
        centres = [float(np.nonzero(labels == number)[2].mean()) for number in largest]
        apart = abs(centres[0] - centres[1]) * spacing[2]
        if apart > 40.0 and min(centres) < midline + 25.0 / spacing[2] and max(centres) > midline - 25.0 / spacing[2]:
            parts, border = labels, (centres[0] + centres[1]) / 2.0
            break
    if parts is None:
        side = np.where(np.arange(cut.shape[2]) > midline, LEFT, RIGHT).astype(np.uint8)
        labels, counts = components(cut)
        on_left = np.bincount(labels[:, :, int(max(0, midline)) + 1 :].ravel(), minlength=len(counts)) / counts
        whole = np.where(on_left > 0.5, LEFT, RIGHT).astype(np.uint8)
        crosses = (on_left > 0.25) & (on_left < 0.75)
        sides[box] = np.where(crosses[labels], side, whole[labels]) * cut
        return sides
    numbers = np.arange(parts.max() + 1)
    centres_x = np.zeros(len(numbers))
    totals = np.bincount(parts.ravel(), minlength=len(numbers))
    for column in range(parts.shape[2]):
        centres_x += column * np.bincount(parts[:, :, column].ravel(), minlength=len(numbers))
    centres_x /= np.maximum(totals, 1)
    part_side = np.where(centres_x > border, LEFT, RIGHT).astype(np.uint8)
    part_side[0] = 0
    seeds = part_side[parts]
    if (seeds > 0)[cut].all():
        sides[box] = seeds
        return sides
    nearest = ndimage.distance_transform_edt(seeds == 0, sampling=spacing, return_distances=False, return_indices=True)
    sides[box] = seeds[tuple(nearest)] * cut
    return sides


def smooth_lung(lung: Mask, grid: Grid, keep_out: Mask) -> Mask:
    """Close one lung by 8 mm, so that its vessels and nodules belong to it, as they do to a radiologist.

    `keep_out` (the airways, the other lung, the outside of the body) is never entered, nor is bone.
    """

    def work(cut: Mask, hu: npt.NDArray[np.int16], barred: Mask) -> Mask:
        smooth = closed(cut, _CLOSING_MM, grid.spacing) & ~barred & (hu < 160)
        smooth |= cut
        return fill_slices(smooth) & ~barred

    return within(lung, _CLOSING_MM + 2.0, grid.spacing, work, grid.hu, keep_out)
