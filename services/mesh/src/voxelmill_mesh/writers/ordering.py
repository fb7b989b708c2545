"""The order in which triangles and vertices are stored, for files that are packed.

The packer (meshopt.py) says a triangle in one byte if it shares one of the last edges with those before it and its
third vertex is new or was used lately, and it stores the differences between consecutive vertices. So triangles are
walked from neighbour to neighbour, and vertices are numbered as the walk meets them. Graphics cards like that too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

_EDGES = 15
"""Edges that a byte can name."""

_VERTICES = 12
"""Vertices, besides the last, that a byte can name."""

_NEW, _FORGOTTEN = 10, 6
"""What a new and a forgotten third vertex cost, beside the triangles that wait for a vertex; found by trial on the
surfaces of 117 organs, where the walk comes to 1.17 bytes for each triangle (meshoptimizer's own order: 1.21)."""


@compiled
def _twins(faces: Array, vertex_count: int) -> Array:
    """Return for each half-edge 3 t + k, from corner k of face t to the next, the one that runs against it, or -1."""
    offsets = np.zeros(vertex_count + 1, np.int64)
    for t in range(faces.shape[0]):
        for k in range(3):
            offsets[faces[t, k] + 1] += 1
    offsets = np.cumsum(offsets)
    place = offsets.copy()
    leaving = np.empty(3 * faces.shape[0], np.int32)
    for t in range(faces.shape[0]):
        for k in range(3):
            start = faces[t, k]
            leaving[place[start]] = 3 * t + k
            place[start] += 1
    twins = np.full(3 * faces.shape[0], -1, np.int32)
    for t in range(faces.shape[0]):
        for k in range(3):
            start = faces[t, k]
            end = faces[t, (k + 1) % 3]
            for i in range(offsets[end], offsets[end + 1]):
                other = leaving[i]
                if faces[other // 3, (other % 3 + 1) % 3] == start:
                    twins[3 * t + k] = other
                    break
    return twins


@compiled
def _count_faces(faces: Array, vertex_count: int) -> Array:
    counts = np.zeros(vertex_count, np.int32)
    for t in range(faces.shape[0]):
        for k in range(3):
            counts[faces[t, k]] += 1
    return counts


@compiled
def _best_edge(
    faces: Array, edges: Array, edge_count: int, done: Array, number: Array, age: Array, clock: int, waiting: Array
) -> int:
    """Return the half-edge, of those across the last edges, whose face costs the packer least; -1 if there is none."""
    best = -1
    best_cost = 1 << 30
    for i in range(_EDGES):
        half = edges[(edge_count - 1 - i) & 15]
        if half < 0 or done[half // 3]:
            continue
        first = faces[half // 3, half % 3]
        second = faces[half // 3, (half % 3 + 1) % 3]
        third = faces[half // 3, (half % 3 + 2) % 3]
        # Best is a third vertex that the packer remembers. Else one around which few triangles are left: when the walk
        # comes back to those that are left out, the packer has forgotten it, and naming it takes two bytes or three.
        if number[third] < 0:
            cost = 16 * (_NEW + min(waiting[first], waiting[second])) + i
        elif clock - age[third] <= _VERTICES:
            cost = i
        else:
            cost = 16 * (_FORGOTTEN + waiting[third]) + i
        if cost < best_cost:
            best_cost = cost
            best = half
    return best


@compiled
def _way_back(twins: Array, done: Array, track: Array, length: int) -> tuple[int, int]:
    """Go back to the last face with a neighbour that was left out; return that half-edge, or -1, and what is left."""
    while length:
        t = track[length - 1]
        for k in range(3):
            half = twins[3 * t + k]
            if half >= 0 and not done[half // 3]:
                return half, length
        length -= 1
    return -1, 0


@compiled
def _walk(faces: Array, twins: Array, vertex_count: int) -> tuple[Array, Array]:
    count = faces.shape[0]
    ordered = np.empty((count, 3), np.int32)
    number = np.full(vertex_count, -1, np.int32)  # new numbers, as vertices are met
    source = np.empty(vertex_count, np.int32)
    met = 0
    waiting = _count_faces(faces, vertex_count)  # faces of a vertex that are still to come
    age = np.full(vertex_count, -(1 << 30), np.int32)  # when the packer last remembered a vertex
    clock = 0
    edges = np.full(16, -1, np.int32)  # half-edges across the last edges: each lies in a neighbour
    edge_count = 0
    done = np.zeros(count, np.bool_)
    track = np.empty(count, np.int32)
    length = 0
    untouched = 0
    for step in range(count):
        half = _best_edge(faces, edges, edge_count, done, number, age, clock, waiting)
        if half < 0:
            half, length = _way_back(twins, done, track, length)
        if half < 0:
            while done[untouched]:
                untouched += 1
            half = 3 * untouched
        t = half // 3
        done[t] = True
        track[length] = t
        length += 1
        for k in range(3):
            corner = faces[t, (half % 3 + k) % 3]
            if number[corner] < 0:
                number[corner] = met
                source[met] = corner
                met += 1
            if clock - age[corner] > _VERTICES:
                clock += 1
                age[corner] = clock
            waiting[corner] -= 1
            ordered[step, k] = number[corner]
            across = twins[3 * t + (half % 3 + k) % 3]
            if across >= 0 and not done[across // 3]:
                edges[edge_count & 15] = across
                edge_count += 1
    return ordered, source[:met].copy()


def walk(faces: NDArray[np.int32], vertex_count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the faces in the order of the walk with their vertices renumbered, and the old number of each vertex.

    Parameters
    ----------
    faces
        (m, 3); vertices that none of them uses are left out.

    Returns
    -------
    faces
        (m, 3) int32. Corners may be turned in place; the winding stays.
    source
        (n,) int32: new vertex i was `source[i]`.
    """
    ordered, source = _walk(faces, _twins(faces, vertex_count), vertex_count)
    return ordered, source
