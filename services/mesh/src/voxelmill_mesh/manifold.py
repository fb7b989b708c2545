"""From a closed surface that touches itself to a closed manifold.

Voxels of a label that touch at an edge or a corner only give edges with four faces and vertices where several
surfaces meet. Printers, slicers and finite-element programs refuse both. Here the faces around such an edge are paired
so that each pair bounds one solid (diagonal voxels are not connected), vertices are doubled, and the doubles are
moved a little into their own solid, so that the parts stay apart also in a file that knows only positions (STL).

The surface is known by its half-edges: half-edge h = 3 f + k runs from corner k of face f to corner (k + 1) mod 3, and
`twin[h]` is the half-edge of the neighbouring face that runs the other way.

Source: A. Guéziec, G. Taubin, F. Lazarus, B. Horn, "Cutting and stitching: converting sets of polygons to manifold
surfaces" (IEEE TVCG 7, 2001).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled, inlined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array


@inlined
def following(h: int) -> int:
    """Return the next half-edge of the same face."""
    return h - 2 if np.uint32(h) % np.uint32(3) == 2 else h + 1


@inlined
def preceding(h: int) -> int:
    """Return the half-edge before, of the same face."""
    return h + 2 if np.uint32(h) % np.uint32(3) == 0 else h - 1


@compiled
def _outgoing(corners: Array, vertex_count: int) -> tuple[Array, Array]:
    """Sort the half-edges by the vertex that they start from."""
    offsets = np.zeros(vertex_count + 1, np.int32)
    for h in range(corners.size):
        offsets[corners[h] + 1] += 1
    offsets = np.cumsum(offsets).astype(np.int32)
    place = offsets[:-1].copy()
    outgoing = np.empty(corners.size, np.int32)
    for h in range(corners.size):
        outgoing[place[corners[h]]] = h
        place[corners[h]] += 1
    return outgoing, offsets


@inlined
def _angle(vertices: Array, corners: Array, h: int, first: int, last: int) -> float:
    """Return the angle of the face of half-edge h around the edge from `first` to `last`, from -pi to pi."""
    third = corners[preceding(h)]
    ax = np.float64(vertices[last, 0]) - vertices[first, 0]
    ay = np.float64(vertices[last, 1]) - vertices[first, 1]
    az = np.float64(vertices[last, 2]) - vertices[first, 2]
    length = np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax / length, ay / length, az / length
    # Any direction across the edge will do for zero, if it is the same for all faces of the edge.
    if abs(ax) < 0.6:
        sx, sy, sz = 0.0, az, -ay
    else:
        sx, sy, sz = -az, 0.0, ax
    rx = np.float64(vertices[third, 0]) - vertices[first, 0]
    ry = np.float64(vertices[third, 1]) - vertices[first, 1]
    rz = np.float64(vertices[third, 2]) - vertices[first, 2]
    ux, uy, uz = ay * sz - az * sy, az * sx - ax * sz, ax * sy - ay * sx
    return float(np.arctan2(rx * ux + ry * uy + rz * uz, rx * sx + ry * sy + rz * sz))


@inlined
def _is_first_behind(vertices: Array, corners: Array, h: int, one: int, other: int) -> bool:
    """Tell which of two faces that run against half-edge h bounds the same part of the solid: `one`, not `other`.

    The solid lies behind a face that runs along the edge, towards smaller angles; the next face there bounds it too.
    """
    first = corners[h]
    last = corners[following(h)]
    here = _angle(vertices, corners, h, first, last)
    back = (here - _angle(vertices, corners, one, first, last)) % (2 * np.pi)
    other_back = (here - _angle(vertices, corners, other, first, last)) % (2 * np.pi)
    return bool(back <= other_back)


@inlined
def _same_fan(twin: Array, h: int, other: int) -> bool:
    """Tell whether two half-edges that start at the same vertex belong to the same fan of faces around it."""
    walker = twin[preceding(h)]
    while walker != h:
        if walker == other:
            return True
        walker = twin[preceding(walker)]
    return h == other


@inlined
def _part_fans(twin: Array, contacts: Array) -> None:
    """Pair the faces of an edge the other way where both pairs belong to the same fan at both of its ends.

    There the edge would stay double; turned, the one fan becomes two at each end.
    """
    for i in range(contacts.shape[0]):
        h = contacts[i, 0]
        other = contacts[i, 1]
        if _same_fan(twin, h, other) and _same_fan(twin, twin[h], twin[other]):
            against = twin[h]
            other_against = twin[other]
            twin[h] = other_against
            twin[other_against] = h
            twin[other] = against
            twin[against] = other


@compiled
def _pair(vertices: Array, corners: Array) -> Array:
    """Return the twins. The surface is closed, so as many half-edges run along an edge as against it."""
    outgoing, offsets = _outgoing(corners, vertices.shape[0])
    twin = np.full(corners.size, -1, np.int32)
    contacts = np.empty((corners.size // 4, 2), np.int32)
    contact_count = 0
    for h in range(corners.size):
        if twin[h] >= 0:
            continue
        first = corners[h]
        last = corners[following(h)]
        along = 0
        other_along = -1
        for i in range(offsets[first], offsets[first + 1]):
            if corners[following(outgoing[i])] == last:
                along += 1
                if outgoing[i] != h:
                    other_along = outgoing[i]
        against = -1
        other_against = -1
        for i in range(offsets[last], offsets[last + 1]):
            if corners[following(outgoing[i])] == first:
                other_against = against
                against = outgoing[i]
        if along == 2:
            # Four faces, as a surface net gives them at most.
            if not _is_first_behind(vertices, corners, h, against, other_against):
                against, other_against = other_against, against
            twin[other_along] = other_against
            twin[other_against] = other_along
            contacts[contact_count, 0] = h
            contacts[contact_count, 1] = other_along
            contact_count += 1
        twin[h] = against
        twin[against] = h
    _part_fans(twin, contacts[:contact_count])
    return twin


@compiled
def _fans(corners: Array, twin: Array, vertex_count: int) -> tuple[Array, Array, Array]:
    """Give each fan a vertex of its own.

    Return the new vertex of each corner, the old vertex of each new one, and how many each old one became.
    """
    source = np.empty(corners.size, np.int32)
    doubles = np.zeros(vertex_count, np.int32)
    renamed = np.full(corners.size, -1, np.int32)
    count = 0
    for h in range(corners.size):
        if renamed[h] >= 0:
            continue
        walker = h
        while renamed[walker] < 0:
            renamed[walker] = count
            walker = twin[preceding(walker)]
        source[count] = corners[h]
        doubles[corners[h]] += 1
        count += 1
    return renamed, source[:count].copy(), doubles


@compiled
def _place(vertices: Array, corners: Array, renamed: Array, source: Array, doubles: Array, gap: float) -> Array:
    """Return the new vertices' places: the old ones, doubles moved by `gap` into their own solid."""
    count = source.size
    inward = np.zeros((count, 3), np.float64)
    for f in range(corners.size // 3):
        a, b, c = corners[3 * f], corners[3 * f + 1], corners[3 * f + 2]
        if doubles[a] == 1 and doubles[b] == 1 and doubles[c] == 1:
            continue
        bx, by, bz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        cx, cy, cz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        for k in range(3):
            v = renamed[3 * f + k]
            inward[v, 0] -= by * cz - bz * cy
            inward[v, 1] -= bz * cx - bx * cz
            inward[v, 2] -= bx * cy - by * cx
    placed = np.empty((count, 3), np.float32)
    for v in range(count):
        step = 0.0
        if doubles[source[v]] > 1:
            length = np.sqrt(inward[v, 0] ** 2 + inward[v, 1] ** 2 + inward[v, 2] ** 2)
            if length > 0:
                step = gap / length
        for axis in range(3):
            placed[v, axis] = vertices[source[v], axis] + step * inward[v, axis]
    return placed


def make_manifold(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], gap: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return vertices and faces of a manifold with the same surface.

    Parameters
    ----------
    vertices
        (n, 3) float32.
    faces
        (m, 3) int32, closed and oriented: as many faces run along each edge as against it, two of each at most.
    gap
        How far the doubles of a vertex are moved into their own solid, in the unit of the vertices.
    """
    corners = faces.reshape(-1)
    twin = _pair(vertices, corners)
    renamed, source, doubles = _fans(corners, twin, len(vertices))
    placed = _place(vertices, corners, renamed, source, doubles, gap)
    return placed, renamed.reshape(-1, 3)


def pair_half_edges(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the twin of each half-edge of a closed manifold, (3 m) int32."""
    twin: NDArray[np.int32] = _pair(vertices, faces.reshape(-1))
    return twin
