"""Which cells of two labels are crossed by one simple piece of surface.

A cell is the cube between eight voxel centres. Bit k of a cell's number is set if corner k + 1 has another label than
corner 0; corner k lies at column k & 1, row k >> 1 & 1, slice k >> 2.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _is_connected(corners: set[int]) -> bool:
    """Tell whether one can go between any two of some corners along edges of the cube, from corner to corner."""
    if not corners:
        return True
    reached = {min(corners)}
    front = set(reached)
    while front:
        front = {corner ^ bit for corner in front for bit in (1, 2, 4)} & corners - reached
        reached |= front
    return reached == corners


def _is_regular(number: int) -> bool:
    other = {corner for corner in range(1, 8) if number >> (corner - 1) & 1}
    same = set(range(8)) - other
    for axes in combinations((1, 2, 4), 2):
        (rest,) = {1, 2, 4} - set(axes)
        for start in (0, rest):
            face = [start, start ^ axes[0], start ^ axes[0] ^ axes[1], start ^ axes[1]]
            within = [corner in other for corner in face]
            if within[0] == within[2] != within[1] == within[3]:
                return False
    return _is_connected(other) and _is_connected(same)


REGULAR_CELLS: NDArray[np.bool_] = np.array([_is_regular(number) for number in range(128)])
"""For each number of a cell: both labels are connected along its edges, and on none of its faces do they lie crosswise.
The surface within is then a disc, or there is none."""
