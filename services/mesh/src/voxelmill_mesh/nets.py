"""Multi-label surface nets: one pass over a label map gives the boundary of every label, shared by its neighbours.

A vertex stands in each cell (the cube between eight voxel centres) whose corners do not all have the same label, and
a quadrilateral crosses each pair of adjacent voxels whose labels differ. Two labels that touch therefore have exactly
the same boundary between them.

Sources: S. F. F. Gibson, "Constrained elastic surface nets" (MICCAI 1998); S. Frisken, "SurfaceNets for multi-label
segmentations with preservation of sharp boundaries" (JCGT 11, 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array


@dataclass(frozen=True, slots=True)
class SurfaceNet:
    """The boundaries of all labels, in voxel indices.

    Attributes
    ----------
    vertices
        (n, 3) float32, (column, row, slice); the centre of voxel (0, 0, 0) is the origin.
    links
        (n, 6) int32: the vertices that pull at a vertex when it is smoothed, towards -column, +column, -row, +row,
        -slice, +slice; -1 for none. Where three labels or more meet, only the neighbours along that curve count, so
        the curve is smoothed along itself.
    quads
        (m, 4) int32: vertices, anticlockwise as seen from the side of the second label (for an affine that keeps the
        handedness).
    sides
        (m, 2): the labels on both sides of each quadrilateral. The border of the volume has label 0 outside.
    """

    vertices: NDArray[np.float32]
    links: NDArray[np.int32]
    quads: NDArray[np.int32]
    sides: NDArray[np.unsignedinteger]


@compiled
def _count(labels: Array) -> tuple[int, int]:
    slices, rows, columns = labels.shape
    vertices = 0
    quads = 0
    for z in range(slices - 1):
        for y in range(rows - 1):
            for x in range(columns - 1):
                label = labels[z, y, x]
                mixed = (
                    (label ^ labels[z, y, x + 1])
                    | (label ^ labels[z, y + 1, x])
                    | (label ^ labels[z, y + 1, x + 1])
                    | (label ^ labels[z + 1, y, x])
                    | (label ^ labels[z + 1, y, x + 1])
                    | (label ^ labels[z + 1, y + 1, x])
                    | (label ^ labels[z + 1, y + 1, x + 1])
                )
                if mixed:
                    vertices += 1
                    quads += label != labels[z, y, x + 1]
                    quads += label != labels[z, y + 1, x]
                    quads += label != labels[z + 1, y, x]
    return vertices, quads


@compiled
def _distinct(a: int, b: int, c: int, d: int) -> int:
    """Return how many different labels there are among four."""
    count = 1
    if b != a:
        count += 1
    if c not in (a, b):
        count += 1
    if d not in (a, b, c):
        count += 1
    return count


@compiled
def _is_junction(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int) -> bool:
    """Tell whether there are three labels or more among the eight corners of a cell."""
    first = a
    second = a
    for label in (b, c, d, e, f, g, h):
        if label != first:
            if second == first:
                second = label
            elif label != second:
                return True
    return False


@compiled
def _link(links: Array, junction: Array, before: int, after: int, direction: int, distinct: int) -> None:
    """Link the vertices of two cells that share a face with `distinct` labels at its corners."""
    if distinct > 1:
        if distinct > 2 or not junction[after]:
            links[after, direction] = before
        if distinct > 2 or not junction[before]:
            links[before, direction + 1] = after


@compiled
def _fill(  # noqa: C901, PLR0915 - one loop over the cells that touches each voxel once
    labels: Array, vertices: Array, links: Array, quads: Array, sides: Array
) -> None:
    # `labels` is padded by one, so no boundary reaches the first or last cell's far side and every quad is complete.
    slices, rows, columns = labels.shape
    index = np.full((2, rows, columns), -1, np.int32)
    junction = np.zeros(vertices.shape[0], np.bool_)
    v = 0
    q = 0
    for z in range(slices - 1):
        now = z & 1
        below = 1 - now
        for y in range(rows - 1):
            for x in range(columns - 1):
                a = labels[z, y, x]
                b = labels[z, y, x + 1]
                c = labels[z, y + 1, x]
                d = labels[z, y + 1, x + 1]
                e = labels[z + 1, y, x]
                f = labels[z + 1, y, x + 1]
                g = labels[z + 1, y + 1, x]
                h = labels[z + 1, y + 1, x + 1]
                if not ((a ^ b) | (a ^ c) | (a ^ d) | (a ^ e) | (a ^ f) | (a ^ g) | (a ^ h)):
                    continue
                # The padding shifts the indices by one, the centre of the cell by one half.
                vertices[v, 0] = x - 0.5
                vertices[v, 1] = y - 0.5
                vertices[v, 2] = z - 0.5
                index[now, y, x] = v
                junction[v] = _is_junction(a, b, c, d, e, f, g, h)
                if x > 0:
                    _link(links, junction, index[now, y, x - 1], v, 0, _distinct(a, c, e, g))
                if y > 0:
                    _link(links, junction, index[now, y - 1, x], v, 2, _distinct(a, b, e, f))
                if z > 0:
                    _link(links, junction, index[below, y, x], v, 4, _distinct(a, b, c, d))
                if a != b:
                    quads[q, 0] = v
                    quads[q, 1] = index[now, y - 1, x]
                    quads[q, 2] = index[below, y - 1, x]
                    quads[q, 3] = index[below, y, x]
                    sides[q, 0] = a
                    sides[q, 1] = b
                    q += 1
                if a != c:
                    quads[q, 0] = v
                    quads[q, 1] = index[below, y, x]
                    quads[q, 2] = index[below, y, x - 1]
                    quads[q, 3] = index[now, y, x - 1]
                    sides[q, 0] = a
                    sides[q, 1] = c
                    q += 1
                if a != e:
                    quads[q, 0] = v
                    quads[q, 1] = index[now, y, x - 1]
                    quads[q, 2] = index[now, y - 1, x - 1]
                    quads[q, 3] = index[now, y - 1, x]
                    sides[q, 0] = a
                    sides[q, 1] = e
                    q += 1
                v += 1


def surface_net(labels: NDArray[np.unsignedinteger]) -> SurfaceNet:
    """Return the boundaries of all labels of a label map, closed also where a label touches the border.

    Parameters
    ----------
    labels
        (slices, rows, columns), uint8 or uint16; 0 is background.
    """
    padded = np.pad(labels, 1)
    vertex_count, quad_count = _count(padded)
    vertices = np.empty((vertex_count, 3), np.float32)
    links = np.full((vertex_count, 6), -1, np.int32)
    quads = np.empty((quad_count, 4), np.int32)
    sides = np.empty((quad_count, 2), labels.dtype)
    _fill(padded, vertices, links, quads, sides)
    return SurfaceNet(vertices, links, quads, sides)
