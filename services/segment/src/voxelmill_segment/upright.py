"""Tilted slices set upright for a model, and its labels leaned back.

A gantry tilt leaves a volume whose slices do not stand above each other (PS3.3 C.7.6.2.1.1, a shear in the affine).
The models reckon with axes at right angles; so each slice is moved within its plane to where an upright stack has it.
It is moved by whole pixels: no voxel is blurred, which would thicken thin bones (ribs of two voxels by a fifth, as
measured with straight lines between pixels), and the labels go back to the very voxels that they were found in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_shared.imaging.volume import Volume

_LEAST_PIXELS = 0.5
"""A lean of less than this over the whole stack is nothing to set right."""


@dataclass(frozen=True, slots=True)
class Upright:
    """How the slices of a sheared volume move to stand above each other.

    Parameters
    ----------
    lean
        Rows and columns by which a slice lies beside the one before it.
    origin
        Row and column of the upright grid at which the volume's own first row and column lie, for the first slice.
    size
        Rows and columns of the upright grid, which holds every slice whole.
    """

    lean: tuple[float, float]
    origin: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, volume: Volume) -> Self | None:
        """Return how to set a volume upright, or None if it stands already."""
        columns, rows, step = volume.affine[:3, :3].T
        lean = float(step @ rows / (rows @ rows)), float(step @ columns / (columns @ columns))
        slices, *shape = volume.voxels.shape
        whole = [one * (slices - 1) for one in lean]
        if max(map(abs, whole)) < _LEAST_PIXELS:
            return None
        origin = [-int(np.floor(min(0.0, end))) for end in whole]
        size = [n + first + int(np.ceil(max(0.0, end))) + 1 for n, first, end in zip(shape, origin, whole, strict=True)]
        return cls(lean, (origin[0], origin[1]), (size[0], size[1]))

    def volume(self, leaning: Volume) -> Volume:
        """Return the volume with its slices moved; beside them lies its lowest value.

        Its slice axis is at right angles to the others, and each voxel is within half a pixel of its place.
        """
        voxels = leaning.voxels
        result = np.full((len(voxels), *self.size), voxels.min(), voxels.dtype)
        for k, plane in enumerate(voxels):
            result[k][self._window(k, plane.shape)] = plane
        columns, rows, step = leaning.affine[:3, :3].T
        normal = np.cross(columns, rows)
        affine = leaning.affine.copy()
        affine[:3, 2] = normal * (step @ normal) / (normal @ normal)
        affine[:3, 3] -= rows * self.origin[0] + columns * self.origin[1]
        return replace(leaning, voxels=result, affine=affine)

    def labels(self, upright: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Return labels of the upright volume on the grid (slices, rows, columns) that it was made from."""
        result = np.empty(shape, np.uint8)
        for k in range(shape[0]):
            result[k] = upright[k][self._window(k, shape[1:])]
        return result

    def _window(self, k: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return where a slice lies within the upright grid."""
        first = [round(one * k) + start for one, start in zip(self.lean, self.origin, strict=True)]
        return tuple(slice(start, start + n) for start, n in zip(first, shape, strict=True))
