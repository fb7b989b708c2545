"""The working grid: a coarse copy of a CT, on which anatomy is found before it is refined voxel by voxel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

AIR_HU = -1024
"""The least value a CT voxel can mean; padding lies below it (PS3.3 C.7.5.1.1.2) and counts as air."""

DENSEST_HU = 3071
"""The greatest value of a 12-bit CT; metal on an extended scale counts as this."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarse CT in the patient's axes.

    Parameters
    ----------
    hu
        int16 (superior, posterior, left), the means of blocks of voxels.
    spacing
        Millimetres between samples.
    factors
        Voxels of the full volume in one block, by axis. The last block of an axis may be cut.
    """

    hu: npt.NDArray[np.int16]
    spacing: tuple[float, float, float]
    factors: tuple[int, int, int]

    @classmethod
    def of(cls, hu: npt.NDArray[np.int16], spacing: tuple[float, float, float], target_mm: float) -> Grid:
        """Average a CT down to about `target_mm` along each axis; an axis that is coarser already stays as it is."""
        factors = tuple(max(1, round(target_mm / step)) for step in spacing)
        shape = tuple(-(-n // f) for n, f in zip(hu.shape, factors, strict=True))
        mean = np.empty(shape, np.int16)
        in_slabs(lambda a, b: _block_mean(hu, mean, (factors[0], factors[1], factors[2]), a, b), shape[0])
        steps = tuple(step * f for step, f in zip(spacing, factors, strict=True))
        return cls(mean, (steps[0], steps[1], steps[2]), (factors[0], factors[1], factors[2]))

    @property
    def voxel_ml(self) -> float:
        """The volume of one block in millilitres."""
        return float(np.prod(self.spacing)) / 1000.0

    def spread(self, array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Repeat each block's value over its voxels, up to the full shape."""
        for axis, (factor, size) in enumerate(zip(self.factors, shape, strict=True)):
            if factor > 1:
                array = np.repeat(array, factor, axis=axis)
            array = array[(slice(None),) * axis + (slice(0, size),)]
        return array


def in_slabs(work: Callable[[int, int], Any], size: int, threads: int = 2) -> None:
    """Call `work(first, last)` over 0..size in as many slabs as there are threads; it must let go of the GIL."""
    edges = np.linspace(0, size, min(threads, size) + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1].tolist(), edges[1:].tolist()))


@njit(cache=True, nogil=True)
def _block_mean(
    hu: npt.NDArray[np.int16], mean: npt.NDArray[np.int16], factors: tuple[int, int, int], first: int, last: int
) -> None:
    fz, fy, fx = factors
    depth, height, width = hu.shape
    for k in range(first, last):
        for j in range(mean.shape[1]):
            for i in range(mean.shape[2]):
                total = 0
                count = 0
                for z in range(k * fz, min(depth, k * fz + fz)):
                    for y in range(j * fy, min(height, j * fy + fy)):
                        for x in range(i * fx, min(width, i * fx + fx)):
                            total += min(max(hu[z, y, x], AIR_HU), DENSEST_HU)
                            count += 1
                mean[k, j, i] = round(total / count)
