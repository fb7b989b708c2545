"""The boundaries of all labels as one complex of triangles, whose vertices and faces neighbours share.

Around most vertices the complex is a disc. Along curves three sheets or more meet, and curves end in corners. A label
that touches itself, at an edge of two diagonal voxels, gives such curves too. How far a complex may be changed without
a change of its topology depends on which of the three a vertex is.

Source: T. K. Dey, H. Edelsbrunner, S. Guha, D. V. Nekhayev, "Topology preserving edge contraction" (Publ. Inst. Math.
66, 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled, inlined
from voxelmill_mesh.quadrics import add_line, add_plane, optimum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.nets import SurfaceNet

DISC = 0
CURVE = 1
CORNER = 2
"""What the complex is around a vertex: one sheet, sheets that meet in one smooth curve, anything else."""

_UNKNOWN = 255

LARGEST_STAR = 48
"""A vertex with more faces than this is called a corner unseen."""


@dataclass(frozen=True, slots=True)
class Complex:
    """The boundaries of all labels, in patient millimetres.

    Attributes
    ----------
    vertices
        (n, 3) float64, millimetres from `origin`.
    faces
        (m, 3) int32. Their normals point from the first to the second of their labels.
    sides
        (m, 2) the labels on both sides, the lower first.
    kinds
        (n,) uint8: `DISC`, `CURVE` or `CORNER`.
    quadrics
        (n, 10) float64, or (0, 10) if it is not decimated: the error of each vertex about the surface that the complex
        was made from (`quadrics`).
    origin
        (3,) float64, patient millimetres: near the middle, so that squares of distances stay small.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    sides: NDArray[np.unsignedinteger]
    kinds: NDArray[np.uint8]
    quadrics: NDArray[np.float64]
    origin: NDArray[np.float64]


@compiled
def corners_of(faces: Array) -> Array:
    """Return the corners of faces, four a face: three vertices and -1, so that a corner's place tells its face."""
    corners = np.empty(4 * faces.shape[0], np.int32)
    for f in range(faces.shape[0]):
        corners[4 * f] = faces[f, 0]
        corners[4 * f + 1] = faces[f, 1]
        corners[4 * f + 2] = faces[f, 2]
        corners[4 * f + 3] = -1
    return corners


@compiled
def link_corners(corners: Array, vertex_count: int) -> tuple[Array, Array]:
    """Return a first corner of each vertex, and for each corner the next one at the same vertex, in a ring."""
    heads = np.full(vertex_count, -1, np.int32)
    ring = np.empty(corners.size, np.int32)
    for c in range(corners.size):
        v = corners[c]
        if v < 0:
            continue
        if heads[v] < 0:
            heads[v] = c
            ring[c] = c
        else:
            ring[c] = ring[heads[v]]
            ring[heads[v]] = c
    return heads, ring


@inlined
def others(c: int, corners: Array) -> tuple[int, int]:
    """Return the two other vertices of the face of a corner, in their order."""
    base = c & ~3
    twice = 2 * (c & 3)
    return corners[base + (0b001001 >> twice & 3)], corners[base + (0b010010 >> twice & 3)]


@inlined
def count_faces(v: int, w: int, heads: Array, ring: Array, corners: Array) -> int:
    """Return how many faces have both vertices."""
    count = 0
    c = heads[v]
    while True:
        p, q = others(c, corners)
        count += w in (p, q)
        c = ring[c]
        if c == heads[v]:
            return count


@inlined
def _find(nodes: Array, count: int, w: int) -> int:
    for i in range(count):
        if nodes[i] == w:
            return i
    return -1


@inlined
def _kind(  # noqa: C901, PLR0912 - one walk around a vertex, one answer for each shape of its link
    v: int, heads: Array, ring: Array, corners: Array, nodes: Array, arcs: Array, degrees: Array
) -> int:
    """Return what the complex is around a vertex, told by its link: a circle, arcs between two poles, anything else."""
    node_count = 0
    arc_count = 0
    c = heads[v]
    while True:
        if arc_count == LARGEST_STAR:
            return CORNER
        for k, w in enumerate(others(c, corners)):
            i = _find(nodes, node_count, w)
            if i < 0:
                i = node_count
                nodes[i] = w
                degrees[i] = 0
                node_count += 1
            degrees[i] += 1
            arcs[arc_count, k] = i
        arc_count += 1
        c = ring[c]
        if c == heads[v]:
            break
    first = -1
    last = -1
    for i in range(node_count):
        if degrees[i] != 2:
            if first < 0:
                first = i
            elif last < 0:
                last = i
            else:
                return CORNER
    if first < 0:
        walked, end = _walk(0, arcs, arc_count, degrees, 0)
        return DISC if walked == arc_count and end == 0 else CORNER
    if last < 0 or degrees[first] != degrees[last] or degrees[first] < 3:
        return CORNER
    total = 0
    for start in range(arc_count):
        if first in (arcs[start, 0], arcs[start, 1]):
            walked, end = _walk(start, arcs, arc_count, degrees, first)
            if end != last:
                return CORNER
            total += walked
    return CURVE if total == arc_count else CORNER


@inlined
def _walk(start: int, arcs: Array, arc_count: int, degrees: Array, first: int) -> tuple[int, int]:
    """Go along a link from a node over an arc, to the next node that is no mere way point; return arcs and node."""
    arc = start
    node = arcs[arc, 1] if arcs[arc, 0] == first else arcs[arc, 0]
    walked = 1
    while node != first and degrees[node] == 2 and walked <= arc_count:
        for i in range(arc_count):
            if i != arc and (arcs[i, 0] == node or arcs[i, 1] == node):
                arc = i
                break
        node = arcs[arc, 1] if arcs[arc, 0] == node else arcs[arc, 0]
        walked += 1
    return walked, node


@compiled
def _classify(
    kinds: Array, heads: Array, ring: Array, corners: Array, unknown: int, nodes: Array, arcs: Array, degrees: Array
) -> None:
    for v in range(kinds.size):
        if kinds[v] == unknown:
            kinds[v] = _kind(v, heads, ring, corners, nodes, arcs, degrees) if heads[v] >= 0 else CORNER


@compiled
def net_quadrics(vertices: Array, quads: Array, merged: Array, quadrics: Array) -> None:
    """Add the quadrics of a net's quads to those of the vertices into which its own are merged."""
    for q in range(quads.shape[0]):
        a, b, c, d = vertices[quads[q, 0]], vertices[quads[q, 1]], vertices[quads[q, 2]], vertices[quads[q, 3]]
        px, py, pz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        qx, qy, qz = d[0] - b[0], d[1] - b[1], d[2] - b[2]
        nx, ny, nz = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        if length == 0.0:
            continue
        nx, ny, nz = nx / length, ny / length, nz / length
        offset = -0.25 * (
            nx * (a[0] + b[0] + c[0] + d[0]) + ny * (a[1] + b[1] + c[1] + d[1]) + nz * (a[2] + b[2] + c[2] + d[2])
        )
        for k in range(4):
            v = quads[q, k]
            add_plane(quadrics[merged[v]], nx, ny, nz, offset, length / 8, vertices[v])


@inlined
def _ring_of(quads: Array, q: int, merged: Array, ring: Array) -> int:
    """Write the different corners of a quad after merging; return how many they are, 0 if no face is left."""
    count = 0
    for k in range(4):
        v = merged[quads[q, k]]
        if count and (v == ring[count - 1] or (k == 3 and v == ring[0])):
            continue
        ring[count] = v
        count += 1
    if count < 3 or (count == 4 and (ring[0] == ring[2] or ring[1] == ring[3])):
        return 0
    return count


@compiled
def _triangulate(vertices: Array, quads: Array, sides: Array, merged: Array, flipped: bool) -> tuple[Array, Array]:
    ring = np.empty(4, np.int32)
    count = 0
    for q in range(quads.shape[0]):
        count += max(_ring_of(quads, q, merged, ring) - 2, 0)
    faces = np.empty((count, 3), np.int32)
    face_sides = np.empty((count, 2), sides.dtype)
    f = 0
    for q in range(quads.shape[0]):
        size = _ring_of(quads, q, merged, ring)
        if size == 0:
            continue
        if flipped:
            ring[1], ring[size - 1] = ring[size - 1], ring[1]
        start = 0
        if size == 4:  # the shorter diagonal
            first_length = 0.0
            second_length = 0.0
            for axis in range(3):
                first_length += (vertices[ring[0], axis] - vertices[ring[2], axis]) ** 2
                second_length += (vertices[ring[1], axis] - vertices[ring[3], axis]) ** 2
            start = 0 if first_length <= second_length else 1
        for k in range(size - 2):
            faces[f, 0] = ring[start]
            faces[f, 1] = ring[(start + k + 1) % size]
            faces[f, 2] = ring[(start + k + 2) % size]
            face_sides[f, 0] = sides[q, 0]
            face_sides[f, 1] = sides[q, 1]
            f += 1
    return faces, face_sides


@compiled
def _places(vertices: Array, merged: Array, quadrics: Array, regular: Array, reach: float) -> tuple[Array, Array]:
    """Return where the merged vertices stand, and their kinds.

    One that stands for several goes where the error is least, unless that is further than `reach` from their mean.
    """
    count = quadrics.shape[0]
    places = np.zeros((count, 3))
    members = np.zeros(count, np.int32)
    kinds = np.full(count, DISC, np.uint8)
    for v in range(vertices.shape[0]):
        m = merged[v]
        members[m] += 1
        for axis in range(3):
            places[m, axis] += vertices[v, axis]
        if not regular[v]:
            kinds[m] = _UNKNOWN
    none = np.zeros(10)
    for m in range(count):
        if members[m] == 1:
            continue
        for axis in range(3):
            places[m, axis] /= members[m]
        x, y, z, _ = optimum(quadrics[m], none)
        if (x - places[m, 0]) ** 2 + (y - places[m, 1]) ** 2 + (z - places[m, 2]) ** 2 <= reach * reach:
            places[m, 0], places[m, 1], places[m, 2] = x, y, z
    return places, kinds


@compiled
def _add_curves(kinds: Array, places: Array, quadrics: Array, heads: Array, ring: Array, corners: Array) -> None:
    """Add to the quadrics of the vertices of curves how far a place is from the curves' lines."""
    for v in range(kinds.size):
        if kinds[v] != CURVE and kinds[v] != CORNER:
            continue
        start = heads[v]
        c = start
        while start >= 0:
            for w in others(c, corners):
                if kinds[w] != DISC and count_faces(v, w, heads, ring, corners) > 2:
                    dx, dy, dz = places[w, 0] - places[v, 0], places[w, 1] - places[v, 1], places[w, 2] - places[v, 2]
                    add_line(quadrics[v], dx, dy, dz, places[v])
            c = ring[c]
            if c == start:
                break


def classify(
    kinds: NDArray[np.uint8],
    heads: NDArray[np.int32],
    ring: NDArray[np.int32],
    corners: NDArray[np.int32],
    unknown: int,
) -> None:
    """Replace the kinds that are `unknown` by what the complex is there (`link_corners` for `heads` and `ring`)."""
    nodes, degrees = np.empty((2, 2 * LARGEST_STAR), np.int32)
    _classify(kinds, heads, ring, corners, unknown, nodes, np.empty((LARGEST_STAR, 2), np.int32), degrees)


@compiled
def _transform(points: Array, matrix: Array, shift: Array) -> Array:
    placed = np.empty(points.shape, np.float32)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for axis in range(3):
            placed[i, axis] = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2] * z + shift[axis]
    return placed


def transform(
    points: NDArray[np.float32], affine: NDArray[np.float64], origin: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return places in millimetres from `origin` of voxel indices (n, 3) (column, row, slice)."""
    placed: NDArray[np.float32] = _transform(points, np.ascontiguousarray(affine[:3, :3]), affine[:3, 3] - origin)
    return placed


def make_complex(
    vertices: NDArray[np.float32],
    net: SurfaceNet,
    merged: NDArray[np.int32],
    count: int,
    affine: NDArray[np.float64],
    *,
    with_quadrics: bool = True,
) -> Complex:
    """Return the complex of a net whose vertices are merged.

    Parameters
    ----------
    vertices
        (n, 3) float32: the net's vertices, smoothed, in voxel indices (column, row, slice).
    net
        The surface net.
    merged, count
        The vertex that each of the net's vertices becomes, from 0 to before `count` (`clusters.merge_blocks`).
    affine
        (4, 4) voxel index to patient millimetres.
    with_quadrics
        False for a complex that will not be decimated: it has no quadrics, and no kinds but `CORNER`.
    """
    middle = net.extent.astype(np.float64).mean(axis=0)
    matrix = affine[:3, :3]
    origin = matrix @ middle + affine[:3, 3]
    flipped = bool(np.linalg.det(matrix) < 0)
    placed = transform(vertices, affine, origin)
    if not with_quadrics:
        places = placed.astype(np.float64)
        faces, sides = _triangulate(places, net.quads, net.sides, merged, flipped)
        return Complex(places, faces, sides, np.full(count, CORNER, np.uint8), np.empty((0, 10)), origin)
    quadrics = np.zeros((count, 10))
    net_quadrics(placed, net.quads, merged, quadrics)
    places, kinds = _places(placed, merged, quadrics, net.regular, float(np.linalg.norm(matrix, axis=0).max()))
    faces, sides = _triangulate(places, net.quads, net.sides, merged, flipped)
    corners = corners_of(faces)
    heads, ring = link_corners(corners, count)
    classify(kinds, heads, ring, corners, _UNKNOWN)
    _add_curves(kinds, places, quadrics, heads, ring, corners)
    return Complex(places, faces, sides, kinds, quadrics, origin)
