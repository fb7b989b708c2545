"""Multi-label surface nets: one pass over a label map gives the boundary of every label, shared by its neighbours.

A vertex stands in each cell (the cube between eight voxel centres) whose corners do not all have the same label, and
a quadrilateral crosses each pair of adjacent voxels whose labels differ. Two labels that touch therefore have exactly
the same boundary between them.

Sources: S. F. F. Gibson, "Constrained elastic surface nets" (MICCAI 1998); S. Frisken, "SurfaceNets for multi-label
segmentations with preservation of sharp boundaries" (JCGT 11, 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.cells import REGULAR_CELLS
from voxelmill_mesh.compiled import compiled, inlined
from voxelmill_mesh.parallel import WORKERS, in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

_SLABS_PER_WORKER = 4
"""A slab full of surface takes longer than one of air: several of them even out."""


@dataclass(frozen=True, slots=True)
class SurfaceNet:
    """The boundaries of all labels, in voxel indices.

    Attributes
    ----------
    vertices
        (n, 3) float32, (column, row, slice); the centre of voxel (0, 0, 0) is the origin. In the order of their
        slices, rows and columns.
    links
        (n, 6) int32: the vertices that pull at a vertex when it is smoothed, towards -column, +column, -row, +row,
        -slice, +slice; -1 for none. Where three labels or more meet, only the neighbours along that curve count, so
        the curve is smoothed along itself.
    quads
        (m, 4) int32: vertices, anticlockwise as seen from the side of the second label (for an affine that keeps the
        handedness).
    sides
        (m, 2): the labels on both sides of each quadrilateral, the lower first. Beyond the label map is label 0.
    extent
        (2, 3) float32: the lowest and the highest column, row and slice of the image's outer faces. Where a label map
        is a part of the image, they may lie beyond it.
    regular
        (n,) bool: the surface is a disc around this vertex. Elsewhere three labels meet, or a label touches itself.
    """

    vertices: NDArray[np.float32]
    links: NDArray[np.int32]
    quads: NDArray[np.int32]
    sides: NDArray[np.unsignedinteger]
    extent: NDArray[np.float32]
    regular: NDArray[np.bool_]


@inlined
def _flag_row(labels: Array, z: int, y: int, steep: Array, flags: Array) -> bool:
    """Set `flags` where the eight corners of a cell of a row differ; False if they do nowhere.

    In loops without branches, so that the compiler takes many voxels at a time.
    """
    here, after = labels[z, y], labels[z, y + 1]
    above, across = labels[z + 1, y], labels[z + 1, y + 1]
    columns = here.size
    found = np.uint8(0)
    for x in range(columns):
        steep[x] = np.uint8(((here[x] ^ after[x]) | (here[x] ^ above[x]) | (here[x] ^ across[x])) != 0)
    for x in range(columns - 1):
        flag = steep[x] | steep[x + 1] | np.uint8(here[x] != here[x + 1])
        flags[x] = flag
        found |= flag
    return bool(found != 0)


@compiled
def _count_layers(labels: Array, first: int, last: int, counts: Array, steep: Array, flags: Array) -> None:
    _, rows, columns = labels.shape
    for z in range(first, last):
        vertices = np.uint32(0)
        quads = np.uint32(0)
        for y in range(rows - 1):
            if not _flag_row(labels, z, y, steep, flags):
                continue
            here, after, above = labels[z, y], labels[z, y + 1], labels[z + 1, y]
            row_vertices = np.uint32(0)
            row_quads = np.uint32(0)
            for x in range(columns - 1):
                row_vertices += flags[x]
                row_quads += (
                    np.uint32(here[x] != here[x + 1]) + np.uint32(here[x] != after[x]) + np.uint32(here[x] != above[x])
                )
            vertices += row_vertices
            quads += row_quads
        counts[z, 0] = vertices
        counts[z, 1] = quads


@inlined
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


@inlined
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


@inlined
def _link(links: Array, before: int, after: int, junctions: tuple[int, int], direction: int, distinct: int) -> None:
    """Link the vertices of two cells that share a face with `distinct` labels at its corners."""
    if distinct > 1:
        if distinct > 2 or not junctions[1]:
            links[after, direction] = before
        if distinct > 2 or not junctions[0]:
            links[before, direction + 1] = after


@compiled
def _number(labels: Array, z: int, v: int, index: Array, junction: Array, steep: Array, flags: Array) -> None:
    """Number the vertices of a layer of cells from v on, and note where three labels or more meet."""
    _, rows, columns = labels.shape
    for y in range(rows - 1):
        if _flag_row(labels, z, y, steep, flags):
            for x in range(columns - 1):
                if flags[x]:
                    index[y, x] = v
                    junction[y, x] = _is_junction(
                        labels[z, y, x],
                        labels[z, y, x + 1],
                        labels[z, y + 1, x],
                        labels[z, y + 1, x + 1],
                        labels[z + 1, y, x],
                        labels[z + 1, y, x + 1],
                        labels[z + 1, y + 1, x],
                        labels[z + 1, y + 1, x + 1],
                    )
                    v += 1


@inlined
def _set_quad(quads: Array, sides: Array, q: int, ring: tuple[int, int, int, int], first: int, second: int) -> None:
    """Write a quad, turned round if the label behind it is the higher one."""
    lower = first < second
    quads[q, 0] = ring[0]
    quads[q, 1] = ring[1] if lower else ring[3]
    quads[q, 2] = ring[2]
    quads[q, 3] = ring[3] if lower else ring[1]
    sides[q, 0] = min(first, second)
    sides[q, 1] = max(first, second)


@compiled
def _fill_layers(  # noqa: C901 - one loop over the cells that touches each voxel once
    labels: Array,
    first: int,
    last: int,
    starts: Array,
    vertices: Array,
    links: Array,
    quads: Array,
    sides: Array,
    regular: Array,
    table: Array,
    index: Array,
    junction: Array,
    steep: Array,
    flags: Array,
) -> None:
    _, rows, columns = labels.shape
    if first > 0:
        before = (first - 1) & 1
        _number(labels, first - 1, starts[first - 1, 0], index[before], junction[before], steep, flags)
    v = starts[first, 0]
    q = starts[first, 1]
    for z in range(first, last):
        now = z & 1
        below = 1 - now
        for y in range(rows - 1):
            if not _flag_row(labels, z, y, steep, flags):
                continue
            for x in range(columns - 1):
                if not flags[x]:
                    continue
                a = labels[z, y, x]
                b = labels[z, y, x + 1]
                c = labels[z, y + 1, x]
                d = labels[z, y + 1, x + 1]
                e = labels[z + 1, y, x]
                f = labels[z + 1, y, x + 1]
                g = labels[z + 1, y + 1, x]
                h = labels[z + 1, y + 1, x + 1]
                # The margin shifts the indices by one, the centre of the cell by one half.
                vertices[v, 0] = x - 0.5
                vertices[v, 1] = y - 0.5
                vertices[v, 2] = z - 0.5
                here = _is_junction(a, b, c, d, e, f, g, h)
                index[now, y, x] = v
                junction[now, y, x] = here
                corners = (
                    (b != a)
                    | (c != a) << 1
                    | (d != a) << 2
                    | (e != a) << 3
                    | (f != a) << 4
                    | (g != a) << 5
                    | (h != a) << 6
                )
                regular[v] = not here and table[corners]
                # The margin is 0 everywhere, so no boundary crosses the outer faces of the first cells.
                if x > 0:
                    _link(links, index[now, y, x - 1], v, (junction[now, y, x - 1], here), 0, _distinct(a, c, e, g))
                if y > 0:
                    _link(links, index[now, y - 1, x], v, (junction[now, y - 1, x], here), 2, _distinct(a, b, e, f))
                if z > 0:
                    _link(links, index[below, y, x], v, (junction[below, y, x], here), 4, _distinct(a, b, c, d))
                if a != b:
                    ring = (v, index[now, y - 1, x], index[below, y - 1, x], index[below, y, x])
                    _set_quad(quads, sides, q, ring, a, b)
                    q += 1
                if a != c:
                    ring = (v, index[below, y, x], index[below, y, x - 1], index[now, y, x - 1])
                    _set_quad(quads, sides, q, ring, a, c)
                    q += 1
                if a != e:
                    ring = (v, index[now, y, x - 1], index[now, y - 1, x - 1], index[now, y - 1, x])
                    _set_quad(quads, sides, q, ring, a, e)
                    q += 1
                v += 1


def _count(labels: Array, first: int, last: int, counts: Array) -> None:
    """Write the numbers of vertices and quads of each layer of cells from `first` to before `last`."""
    _count_layers(labels, first, last, counts, *np.zeros((2, labels.shape[2]), np.uint8))


def _fill(labels: Array, first: int, last: int, parts: tuple[Array, Array, Array, Array, Array, Array, Array]) -> None:
    """Write the vertices and quads of the layers of cells from `first` to before `last`."""
    index = np.full((2, *labels.shape[1:]), -1, np.int32)
    junction = np.zeros(index.shape, np.uint8)
    _fill_layers(labels, first, last, *parts, index, junction, *np.zeros((2, labels.shape[2]), np.uint8))


def surface_net(labels: NDArray[np.unsignedinteger], extent: NDArray[np.float64] | None = None) -> SurfaceNet:
    """Return the boundaries of all labels of a label map, closed also where a label touches the border.

    The result does not depend on the number of cores.

    Parameters
    ----------
    labels
        (slices, rows, columns), uint8 or uint16; 0 is background. Its outermost voxels are a margin and must be 0
        (`label_map.renumber` gives it so); the origin is the first voxel within.
    extent
        (2, 3) the image's outer faces, `LabelMap.extent`; those of the label map if not given.
    """
    layers = labels.shape[0] - 1
    slabs = np.unique(np.linspace(0, layers, _SLABS_PER_WORKER * WORKERS + 1).astype(np.int64))
    counts = np.zeros((layers, 2), np.int64)
    with in_parallel() as run:
        run(_count, ((labels, first, last, counts) for first, last in pairwise(slabs)))
        starts = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(counts, axis=0)])
        vertex_count, quad_count = (int(total) for total in starts[-1])
        vertices = np.empty((vertex_count, 3), np.float32)
        links = np.full((vertex_count, 6), -1, np.int32)
        quads = np.empty((quad_count, 4), np.int32)
        sides = np.empty((quad_count, 2), labels.dtype)
        regular = np.empty(vertex_count, np.bool_)
        parts = (starts, vertices, links, quads, sides, regular, REGULAR_CELLS)
        run(_fill, ((labels, first, last, parts) for first, last in pairwise(slabs)))
    if extent is None:
        extent = np.array(
            [(-0.5, -0.5, -0.5), np.array(labels.shape[::-1]) - 2.5]
        )  # less the margin, less half a voxel
    return SurfaceNet(vertices, links, quads, sides, extent.astype(np.float32), regular)
