"""Slices between slices: an even stack out of one that is uneven or has gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_shared.imaging.transform import Values

_SAME_PLACE = 1e-6


def between(voxels: Values, places: NDArray[np.float64]) -> Values:
    """Interpolate slices in straight lines along the slice axis.

    Parameters
    ----------
    voxels
        (slices, rows, columns).
    places
        Where the slices wanted lie: 3.25 is a quarter of the way from slice 3 to slice 4.

    Returns
    -------
    numpy.ndarray
        As many slices as there are places, of the same type; whole numbers are rounded.
    """
    result = np.empty((len(places), *voxels.shape[1:]), voxels.dtype)
    for k, place in enumerate(places):
        lower = min(int(place + _SAME_PLACE), len(voxels) - 1)
        part = np.float32(place - lower)
        if abs(part) <= _SAME_PLACE:
            result[k] = voxels[lower]
            continue
        mixed = voxels[lower] * (1 - part) + voxels[lower + 1] * part
        result[k] = np.rint(mixed) if voxels.dtype == np.int16 else mixed
    return result


def sources(places: NDArray[np.float64]) -> list[int]:
    """Return for each place the slice that it is, or -1 where it lies between two."""
    nearest = np.rint(places)
    return [int(n) if abs(place - n) <= _SAME_PLACE else -1 for place, n in zip(places, nearest, strict=True)]
