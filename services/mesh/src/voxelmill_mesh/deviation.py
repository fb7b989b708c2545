"""How far the surface of each label is from the smoothed boundary of its voxels.

Only faces that bound the same label count: a neighbour's surface may be near where a label's own is not. What is looked
for from a vertex is the nearest face in its neighbourhood, so every distance told is an upper bound of that of its
point; between the points that are measured it may be a little more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.collapse_rules import far_from_triangle
from voxelmill_mesh.compiled import compiled, inlined
from voxelmill_mesh.complexes import corners_of, link_corners
from voxelmill_mesh.surface import index_sides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.complexes import Complex
    from voxelmill_mesh.nets import SurfaceNet

_THOROUGH = 250
"""In the neighbourhood of so many vertices the nearest face is looked for where it matters."""

STRIDE = 32
"""Of so many of the net's vertices one is a sample. To measure all of them takes a third of the time of decimation."""

_MOST_LABELS = 8
"""Labels around a vertex of a net: its cell has eight corners."""


@inlined
def _nearest(
    point: Array, label: int, v: int, vertices: Array, faces: Array, sides: Array, heads: Array, ring: Array
) -> tuple[float, int]:
    """Return the square of a point's distance from the faces of a label around a vertex, and the nearest; else -1."""
    least = np.inf
    nearest = -1
    c = heads[v]
    while c >= 0:
        f = c >> 2
        if label in (sides[f, 0], sides[f, 1]):
            square = far_from_triangle(point, vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]])
            if square < least:
                least = square
                nearest = f
        c = ring[c]
        if c == heads[v]:
            break
    return least, nearest


@inlined
def _towards(
    point: Array, label: int, v: int, vertices: Array, faces: Array, sides: Array, heads: Array, ring: Array
) -> tuple[float, int]:
    """Go on from vertex to vertex while that brings a label's faces nearer; return the square, and the last vertex."""
    least, nearest = _nearest(point, label, v, vertices, faces, sides, heads, ring)
    while nearest >= 0:
        closest = np.inf
        for k in range(3):
            w = faces[nearest, k]
            square = 0.0
            for axis in range(3):
                square += (vertices[w, axis] - point[axis]) ** 2
            if square < closest:
                closest = square
                v = w
        square, face = _nearest(point, label, v, vertices, faces, sides, heads, ring)
        if not square < least:
            break
        least, nearest = square, face
    return least, v


@inlined
def _around(
    point: Array,
    label: int,
    v: int,
    vertices: Array,
    faces: Array,
    sides: Array,
    heads: Array,
    ring: Array,
    stamps: Array,
    stamp: int,
    queue: Array,
) -> float:
    """Return the square of a point's distance from a label's faces in the neighbourhood of a vertex.

    The neighbourhood is as large as the queue.
    """
    least = np.inf
    queue[0] = v
    stamps[v] = stamp
    count = 1
    i = 0
    while i < count:
        least = min(least, _nearest(point, label, queue[i], vertices, faces, sides, heads, ring)[0])
        c = heads[queue[i]]
        while c >= 0:
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
    return least


@compiled
def _far(
    point: Array,
    label: int,
    v: int,
    limit: float,
    vertices: Array,
    faces: Array,
    sides: Array,
    heads: Array,
    ring: Array,
    stamps: Array,
    queue: Array,
    state: Array,
) -> float:
    """Return the square of a point's distance from a label's surface, looked for from a vertex.

    It is looked for more thoroughly, which is seldom, where it would be more than `limit`.
    """
    # What a vertex went into may have slid along the surface, so the nearest face need not be beside it.
    least, last = _towards(point, label, v, vertices, faces, sides, heads, ring)
    if least > limit:
        state[0] += 1
        least = min(least, _around(point, label, last, vertices, faces, sides, heads, ring, stamps, state[0], queue))
    return float(least)


@compiled
def _labels_around(quads: Array, sides: Array, stride: int, labels: Array) -> None:
    for q in range(quads.shape[0]):
        for k in range(4):
            v = quads[q, k]
            if v % stride:
                continue
            for side in range(2):
                for place in range(labels.shape[1]):
                    if labels[v // stride, place] == sides[q, side]:
                        break
                    if labels[v // stride, place] == 0:
                        labels[v // stride, place] = sides[q, side]
                        break


@compiled
def _measure_samples(
    points: Array,
    labels: Array,
    starts: Array,
    vertices: Array,
    faces: Array,
    sides: Array,
    heads: Array,
    ring: Array,
    stamps: Array,
    queue: Array,
    state: Array,
    largest: Array,
) -> None:
    for i in range(points.shape[0]):
        for place in range(labels.shape[1]):
            label = labels[i, place]
            if label == 0:
                break
            limit = largest[label]
            square = _far(points[i], label, starts[i], limit, vertices, faces, sides, heads, ring, stamps, queue, state)
            largest[label] = max(limit, square)


@compiled
def _measure_all(
    points: Array,
    own_faces: Array,
    order: Array,
    offsets: Array,
    starts: Array,
    vertices: Array,
    faces: Array,
    sides: Array,
    heads: Array,
    ring: Array,
    stamps: Array,
    queue: Array,
    state: Array,
    largest: Array,
    bound: float,
    seen: Array,
    beyond: Array,
    middle: Array,
) -> None:
    """Measure each vertex and the middle of each face, for each label that it bounds."""
    for label in range(1, offsets.size - 1):
        for i in range(offsets[label], offsets[label + 1]):
            f = order[i]
            if f < 0:
                f = ~f
            for axis in range(3):
                middle[axis] = (
                    points[own_faces[f, 0], axis] + points[own_faces[f, 1], axis] + points[own_faces[f, 2], axis]
                ) / 3
            for k in range(4):
                v = own_faces[f, k % 3]
                if k < 3:
                    if seen[v] == label:
                        continue
                    seen[v] = label
                limit = min(largest[label], bound)
                point = points[v] if k < 3 else middle
                square = _far(point, label, starts[v], limit, vertices, faces, sides, heads, ring, stamps, queue, state)
                largest[label] = max(largest[label], square)
                if square > bound:
                    beyond[v] = True
                    if k == 3:
                        beyond[own_faces[f, 1]] = True
                        beyond[own_faces[f, 2]] = True


@compiled
def _find_members(points: Array, heirs: Array, vertices: Array, nearest: Array, squares: Array) -> None:
    for v in range(heirs.size):
        w = heirs[v]
        square = 0.0
        for axis in range(3):
            square += (points[v, axis] - vertices[w, axis]) ** 2
        if square < squares[w]:
            squares[w] = square
            nearest[w] = v


class _Search:
    """A complex in which the nearest face of a label is looked for."""

    def __init__(self, complex_: Complex) -> None:
        count = len(complex_.vertices)
        heads, ring = link_corners(corners_of(complex_.faces), count)
        stamps, queue = np.zeros(count, np.int32), np.empty(_THOROUGH, np.int32)
        state = np.zeros(1, np.int32)
        self.parts = (complex_.vertices, complex_.faces, complex_.sides, heads, ring, stamps, queue, state)


@dataclass(frozen=True, slots=True)
class Samples:
    """Some of the vertices of a smoothed net.

    Attributes
    ----------
    points
        (n, 3) float32, millimetres from the complex's origin.
    labels
        (n, 8): the labels around each, the rest 0.
    heirs
        (n,) the vertex of the complex that each became.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.unsignedinteger]
    heirs: NDArray[np.int32]


def sampled_labels(net: SurfaceNet) -> NDArray[np.unsignedinteger]:
    """Return the labels around each vertex of a net whose number is a multiple of `STRIDE`, (n, 8), the rest 0."""
    labels = np.zeros((-(-len(net.vertices) // STRIDE), _MOST_LABELS), net.sides.dtype)
    _labels_around(net.quads, net.sides, STRIDE, labels)
    return labels


def sampled_deviations(samples: Samples, complex_: Complex, label_count: int) -> NDArray[np.float64]:
    """Return for each label how far the samples of its boundary are from its surface at most, millimetres.

    Parameters
    ----------
    samples
        Their `heirs` are vertices of the complex: the nearest face is looked for from there.
    complex_
        The boundaries as they are written.
    label_count
        One more than the highest label.
    """
    largest = np.zeros(label_count)
    _measure_samples(samples.points, samples.labels, samples.heirs, *_Search(complex_).parts, largest)
    return np.sqrt(largest)


def deviations(
    net: Complex, left: Complex, heirs: NDArray[np.int32], label_count: int, bound: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return for each label the largest distance, there and back, between the net and what is left of it, millimetres.

    Measured is at each vertex and at the middle of each face of both, for each label that it bounds, to the faces that
    bound the same label. And for each vertex of what is left, whether something there is further than `bound`.

    Parameters
    ----------
    net
        The smoothed net as a complex, each of its vertices for itself.
    left
        What decimation and the mending of volumes left of it.
    heirs
        (n,) the vertex of `left` into which each vertex of the net went.
    label_count
        One more than the highest label.
    bound
        Millimetres.
    """
    members = np.full(len(left.vertices), -1, np.int32)
    _find_members(net.vertices, heirs, left.vertices, members, np.full(len(left.vertices), np.inf))
    largest = np.zeros(label_count)
    far = []
    for here, there, starts in ((net, left, heirs), (left, net, members)):
        index = index_sides(here.sides, label_count)
        beyond = np.zeros(len(here.vertices), np.bool_)
        seen = np.zeros(len(here.vertices), np.int32)
        own = (here.vertices, here.faces, index.order, index.offsets, starts)
        _measure_all(*own, *_Search(there).parts, largest, bound * bound, seen, beyond, np.empty(3))
        far.append(beyond)
    found = far[1]
    found[heirs[far[0]]] = True
    return np.sqrt(largest), found
