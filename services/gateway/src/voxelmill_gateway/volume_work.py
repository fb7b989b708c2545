"""A series' volume as NIfTI, whole and as a preview that is there soon. Runs in a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from voxelmill_shared.imaging.nifti import read_grid, read_nifti
from voxelmill_shared.imaging.nifti_writing import write_nifti
from voxelmill_shared.imaging.series import lay_out_volumes, open_images

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from voxelmill_gateway.task import BuildVolume
    from voxelmill_shared.imaging.series import SeriesLayout
    from voxelmill_shared.work import Report

PREVIEW: Final = "preview"
"""What is reported when the preview stands."""
LONGEST_SIDE: Final = 256
"""The most voxels of a preview along an axis, and"""
MOST_VOXELS: Final = 5_000_000
"""in all: with `_LEVELS` about 3 MB for a chest."""
_LEVELS: Final = 512
"""How many steps the range of a preview's values is told in: more than a screen shows, and noise is not sent."""
_SAME_MM: Final = 1e-2
_FULL_LEVEL: Final = 1
_INT16_STEPS: Final = 65_000


def build_volume(task: BuildVolume, report: Report) -> None:
    """Write the preview, report it, and write the whole volume.

    Raises
    ------
    UnsupportedSeriesError
        If the files make no volume.
    """
    volume = read_nifti(task.paths[0]) if task.nifti else _layout(task.paths, task.label_map).read()
    voxels, slope, intercept = whole_numbers(volume.voxels)
    smaller, affine = reduced(voxels, volume.affine)
    partly = task.preview.with_suffix(".part")
    write_nifti(partly, stepped(smaller), affine, description="Voxelmill preview", slope=slope, intercept=intercept)
    partly.replace(task.preview)
    report(PREVIEW)
    partly = task.full.with_suffix(".part")
    write_nifti(
        partly,
        voxels,
        volume.affine,
        description="Voxelmill volume",
        slope=slope,
        intercept=intercept,
        level=_FULL_LEVEL,
    )
    partly.replace(task.full)


def _layout(paths: tuple[Path, ...], label_map: Path | None) -> SeriesLayout:
    """Return the volume that the label map lies in; the largest, where there is no label map."""
    layouts = lay_out_volumes(open_images(paths)).layouts
    if label_map is None or len(layouts) == 1:
        return layouts[0]
    shape, affine = read_grid(label_map)
    return next(
        (
            layout
            for layout in layouts
            if layout.shape == shape and np.allclose(layout.stack.affine, affine, atol=_SAME_MM)
        ),
        layouts[0],
    )


def whole_numbers(voxels: NDArray[Any]) -> tuple[NDArray[np.int16], float, float]:
    """Return voxels as int16 with the slope and intercept that give their values; HU are what they are, 1 and 0."""
    if voxels.dtype == np.int16:
        return voxels, 1.0, 0.0
    low, high = float(voxels.min()), float(voxels.max())
    slope = (high - low) / _INT16_STEPS or 1.0
    middle = low + (high - low) / 2
    scaled = np.empty(voxels.shape, np.int16)
    for number, plane in enumerate(voxels):
        scaled[number] = np.rint((plane - middle) / slope)
    return scaled, slope, middle


def factors_of(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return how many voxels along slices, rows and columns become one of the preview.

    Where something must go, it goes where voxels are nearest to each other.
    """
    factors = [1, 1, 1]

    def sizes() -> list[int]:
        return [-(-size // factor) for size, factor in zip(shape, factors, strict=True)]

    while max(sizes()) > LONGEST_SIDE or np.prod(sizes()) > MOST_VOXELS:
        long = [axis for axis in range(3) if sizes()[axis] > LONGEST_SIDE]
        choice = long or [axis for axis in range(3) if sizes()[axis] > 1]
        factors[min(choice, key=lambda axis: float(spacing[axis]) * factors[axis])] += 1
    return factors[0], factors[1], factors[2]


def reduced(voxels: NDArray[np.int16], affine: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return a smaller volume of the same place in space: each voxel is the mean of a block, and lies at its middle.

    Parameters
    ----------
    voxels
        (slices, rows, columns).
    affine
        (column, row, slice) index to mm.

    Returns
    -------
    tuple
        The voxels and their affine. A block that the volume's end cuts through is filled up with its last voxels.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    factors = factors_of(voxels.shape, spacing)
    if factors == (1, 1, 1):
        return voxels, affine
    count = -(-voxels.shape[0] // factors[0])
    planes = [_mean_of(_slab(voxels, number * factors[0], factors[0]), factors) for number in range(count)]
    steps = np.array(factors[::-1], float)
    grid = np.diag([*steps, 1.0])
    grid[:3, 3] = (steps - 1) / 2
    return np.stack(planes), affine @ grid


def _slab(voxels: NDArray[np.int16], first: int, count: int) -> NDArray[np.int16]:
    return voxels[np.minimum(np.arange(first, first + count), len(voxels) - 1)]


def _mean_of(slab: NDArray[np.int16], factors: tuple[int, int, int]) -> NDArray[np.int16]:
    """Return the means of the blocks of one slab; whole numbers throughout, which takes a third of floats' time."""
    total = slab.sum(axis=0, dtype=np.int32)
    for axis, factor in ((0, factors[1]), (1, factors[2])):
        missing = -total.shape[axis] % factor
        if missing:
            edges = ((0, missing), (0, 0)) if axis == 0 else ((0, 0), (0, missing))
            total = np.pad(total, edges, mode="edge")
        parts = [total[k::factor] if axis == 0 else total[:, k::factor] for k in range(factor)]
        total = sum(parts[1:], parts[0])
    block = factors[0] * factors[1] * factors[2]
    mean: NDArray[np.int16] = ((total + block // 2) // block).astype(np.int16)
    return mean


def stepped(voxels: NDArray[np.int16]) -> NDArray[np.int16]:
    """Round to multiples of a power of two, 8 HU for a CT: what is left compresses to a third."""
    low, high = np.percentile(voxels[::2, ::2, ::2], (0.1, 99.9))
    step = 1 << round(np.log2(max(1.0, (high - low) / _LEVELS)))
    if step == 1:
        return voxels
    half = step // 2
    return (np.clip(voxels, -32768, 32767 - half) + np.int16(half)) & np.int16(-step)
