"""Merging the vertices of eight cells into one where that changes no topology: three quarters of a net at little cost.

A block is 2 x 2 x 2 cells. It becomes one vertex if two labels meet there and the coarse cell between its eight
corners tells the same as its 27 voxels: the voxel in the middle of an edge has the label of one of the edge's ends,
that in the middle of a face that of one of its corners, that in the middle one of the eight, and neither the coarse
cell nor one of the fine ones is ambiguous. What is left is decimated by edge collapses.

Source: T. Ju, F. Losasso, S. Schaefer, J. Warren, "Dual contouring of hermite data" (SIGGRAPH 2002), section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.cells import REGULAR_CELLS
from voxelmill_mesh.compiled import compiled, inlined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.nets import SurfaceNet


def _middles() -> NDArray[np.int64]:
    """Return for each voxel of a block that is no corner the mask of the corners that it must agree with one of."""
    masks = np.zeros(27, np.int64)
    for voxel in range(27):
        place = (voxel % 3, voxel // 3 % 3, voxel // 9)
        for corner in range(8):
            at = (corner & 1, corner >> 1 & 1, corner >> 2)
            if all(p in (1, 2 * a) for p, a in zip(place, at, strict=True)):
                masks[voxel] |= 1 << corner
    return masks


_MIDDLES = _middles()


@inlined
def _cell_number(other: Array, x: int, y: int, z: int, step: int) -> int:
    """Return the number of a cell (`cells`) whose first corner is a voxel of the block."""
    base = x + 3 * y + 9 * z
    number = 0
    for k in range(1, 8):
        if other[base + step * ((k & 1) + 3 * (k >> 1 & 1) + 9 * (k >> 2))] != other[base]:
            number |= 1 << (k - 1)
    return number


@inlined
def _is_simple(  # noqa: C901, PLR0912 - one test after another, each as cheap as it can be
    labels: Array, z: int, y: int, x: int, free: Array, other: Array, table: Array, middles: Array
) -> bool:
    """Tell whether the block whose first voxel this is may become one vertex."""
    first = labels[z, y, x]
    second = first
    i = 0
    for dz in range(3):
        for dy in range(3):
            for dx in range(3):
                label = labels[z + dz, y + dy, x + dx]
                if label != first:
                    if second == first:
                        second = label
                    elif label != second:
                        return False
                other[i] = label != first
                i += 1
    if not free[first] or not free[second]:
        return False
    if not table[_cell_number(other, 0, 0, 0, 2)]:
        return False
    corners = np.int64(0)
    for k in range(8):
        corners |= np.int64(other[2 * (k & 1) + 6 * (k >> 1 & 1) + 18 * (k >> 2)]) << k
    for i in range(27):
        agreeing = corners if other[i] else ~corners
        if not agreeing & middles[i]:
            return False
    for dz in range(2):
        for dy in range(2):
            for dx in range(2):
                if not table[_cell_number(other, dx, dy, dz, 1)]:
                    return False
    return True


@compiled
def _merge(
    labels: Array, centres: Array, free: Array, table: Array, middles: Array, merged: Array, places: Array, other: Array
) -> int:
    """Number what the vertices become; the last two are room for work: blocks' numbers by place, a block's voxels."""
    slices, rows, columns = labels.shape
    layer = -1
    count = 0
    for v in range(centres.shape[0]):
        x, y, z = int(centres[v, 0] + 0.5), int(centres[v, 1] + 0.5), int(centres[v, 2] + 0.5)
        if z >> 1 != layer:
            layer = z >> 1
            places[:] = -1
        by, bx = y >> 1, x >> 1
        if places[by, bx] == -1:
            within = 2 * layer + 2 < slices and 2 * by + 2 < rows and 2 * bx + 2 < columns
            if within and _is_simple(labels, 2 * layer, 2 * by, 2 * bx, free, other, table, middles):
                places[by, bx] = count
                count += 1
            else:
                places[by, bx] = -2
        if places[by, bx] >= 0:
            merged[v] = places[by, bx]
        else:
            merged[v] = count
            count += 1
    return count


def merge_blocks(
    labels: NDArray[np.unsignedinteger], net: SurfaceNet, free: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], int]:
    """Return for each vertex of a net the one that it becomes, and how many there are then.

    Parameters
    ----------
    labels
        What the net was made from, with its margin.
    net
        The surface net.
    free
        For each label, whether its boundary may be made coarser.
    """
    merged = np.empty(len(net.vertices), np.int32)
    _, rows, columns = labels.shape
    places, other = np.empty((rows // 2 + 1, columns // 2 + 1), np.int32), np.empty(27, np.bool_)
    count = _merge(labels, net.vertices, free, REGULAR_CELLS, _MIDDLES, merged, places, other)
    return merged, int(count)
