"""How far decimation and the mending of volumes took the surface from the smoothed boundary of the voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.collapse_rules import far_from_triangle
from voxelmill_mesh.compiled import compiled, inlined
from voxelmill_mesh.complexes import corners_of, link_corners

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.complexes import Complex

_THOROUGH = 250
"""In the neighbourhood of so many vertices the nearest face is looked for where it matters."""

STRIDE = 32
"""Of so many of the net's vertices one is measured: enough for the largest and the mean, at little cost."""


@inlined
def _nearest(point: Array, v: int, vertices: Array, faces: Array, heads: Array, ring: Array) -> tuple[float, int]:
    """Return the square of a point's distance from the faces around a vertex, and the nearest of these."""
    least = np.inf
    nearest = -1
    c = heads[v]
    while True:
        f = c >> 2
        square = far_from_triangle(point, vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]])
        if square < least:
            least = square
            nearest = f
        c = ring[c]
        if c == heads[v]:
            return least, nearest


@inlined
def _towards(point: Array, v: int, vertices: Array, faces: Array, heads: Array, ring: Array) -> tuple[float, int]:
    """Return what `_nearest` does, going on from vertex to vertex towards the point while that brings it nearer."""
    least, nearest = _nearest(point, v, vertices, faces, heads, ring)
    while True:
        closest = np.inf
        for k in range(3):
            w = faces[nearest, k]
            square = 0.0
            for axis in range(3):
                square += (vertices[w, axis] - point[axis]) ** 2
            if square < closest:
                closest = square
                v = w
        square, face = _nearest(point, v, vertices, faces, heads, ring)
        if not square < least:
            return least, nearest
        least, nearest = square, face


@inlined
def _around(
    point: Array,
    v: int,
    vertices: Array,
    faces: Array,
    heads: Array,
    ring: Array,
    stamps: Array,
    stamp: int,
    queue: Array,
) -> tuple[float, int]:
    """Return what `_nearest` does, of all faces in the neighbourhood of a vertex, which is as large as the queue."""
    least = np.inf
    nearest = -1
    queue[0] = v
    stamps[v] = stamp
    count = 1
    i = 0
    while i < count:
        square, face = _nearest(point, queue[i], vertices, faces, heads, ring)
        if square < least:
            least = square
            nearest = face
        c = heads[queue[i]]
        while True:
            for k in range(3):
                w = faces[c >> 2, k]
                if stamps[w] != stamp and count < queue.size:
                    stamps[w] = stamp
                    queue[count] = w
                    count += 1
            c = ring[c]
            if c == heads[queue[i]]:
                break
        i += 1
    return least, nearest


@compiled
def _measure(
    points: Array,
    heirs: Array,
    vertices: Array,
    faces: Array,
    heads: Array,
    ring: Array,
    sides: Array,
    largest: Array,
    queue: Array,
    bound: float,
    beyond: Array,
    stamps: Array,
) -> None:
    for i in range(points.shape[0]):
        # What a vertex went into may have slid along the surface, so the nearest face need not be beside it.
        least, nearest = _towards(points[i], heirs[i], vertices, faces, heads, ring)
        if least > min(largest[sides[nearest, 0]], largest[sides[nearest, 1]], bound * bound):
            # It would be a new largest one, or too large: look more thoroughly, which is seldom.
            square, face = _around(points[i], heirs[i], vertices, faces, heads, ring, stamps, i, queue)
            if square < least:
                least, nearest = square, face
        beyond[i] = least > bound * bound
        for side in range(2):
            label = sides[nearest, side]
            largest[label] = max(largest[label], least)


def deviations(
    points: NDArray[np.float32],
    heirs: NDArray[np.int32],
    complex_: Complex,
    label_count: int,
    bound: float = np.inf,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return for each label how far a point of its boundary is from its surface at most, millimetres.

    And for each point whether that is more than `bound`.

    Parameters
    ----------
    points
        (n, 3): vertices of the smoothed net, millimetres from the complex's origin.
    heirs
        (n,) the vertex of the complex into which each went. The nearest face is looked for from there, so that what
        is returned is an upper bound.
    complex_
        The boundaries as they are written.
    label_count
        One more than the highest label.
    """
    heads, ring = link_corners(corners_of(complex_.faces), len(complex_.vertices))
    largest = np.zeros(label_count)
    beyond = np.empty(len(points), np.bool_)
    queue = np.empty(_THOROUGH, np.int32)
    stamps = np.full(len(complex_.vertices), -1, np.int32)
    parts = (complex_.vertices, complex_.faces, heads, ring, complex_.sides)
    _measure(points, heirs, *parts, largest, queue, bound, beyond, stamps)
    return np.sqrt(largest), beyond
