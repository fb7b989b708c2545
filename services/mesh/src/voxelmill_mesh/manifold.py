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
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def following(h):  # type: ignore[no-untyped-def]  # compiled by numba, which infers the types
    """Return the next half-edge of the same face."""
    return h - 2 if h % 3 == 2 else h + 1


@njit(cache=True, nogil=True)
def preceding(h):  # type: ignore[no-untyped-def]  # compiled by numba
    """Return the half-edge before, of the same face."""
    return h + 2 if h % 3 == 0 else h - 1


@njit(cache=True, nogil=True)
def _outgoing(corners, vertex_count):  # type: ignore[no-untyped-def]  # compiled by numba
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


@njit(cache=True, nogil=True)
def _angle(vertices, corners, h, first, last):  # type: ignore[no-untyped-def]  # compiled by numba
    """Return the angle of the face of half-edge h around the edge from `first` to `last`, from 0 to 2 pi."""
    axis = vertices[last].astype(np.float64) - vertices[first]
    axis /= np.sqrt(np.sum(axis * axis))
    side = np.zeros(3)  # any direction that is not along the edge: the same for all faces of the edge
    side[np.argmin(np.abs(axis))] = 1.0
    side -= axis * np.sum(side * axis)
    up = np.cross(axis, side)
    arm = vertices[corners[preceding(h)]].astype(np.float64) - vertices[first]
    return np.arctan2(np.sum(arm * up), np.sum(arm * side)) % (2 * np.pi)


@njit(cache=True, nogil=True)
def _same_fan(twin, h, other):  # type: ignore[no-untyped-def]  # compiled by numba
    """Tell whether two half-edges that start at the same vertex belong to the same fan of faces around it."""
    walker = twin[preceding(h)]
    while walker != h:
        if walker == other:
            return True
        walker = twin[preceding(walker)]
    return h == other


@njit(cache=True, nogil=True)
def _pair(vertices, corners):  # type: ignore[no-untyped-def]  # compiled by numba
    """Return the twins. The surface is closed, so as many half-edges run along an edge as against it."""
    outgoing, offsets = _outgoing(corners, vertices.shape[0])
    twin = np.full(corners.size, -1, np.int32)
    contacts = []
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
            # Four faces, as a surface net gives them at most. The solid lies behind a face that runs along the edge,
            # towards smaller angles; the next face that runs against it bounds the same part of the solid.
            here = _angle(vertices, corners, h, first, last)
            back = (here - _angle(vertices, corners, against, first, last)) % (2 * np.pi)
            other_back = (here - _angle(vertices, corners, other_against, first, last)) % (2 * np.pi)
            if other_back < back:
                against, other_against = other_against, against
            twin[other_along] = other_against
            twin[other_against] = other_along
            contacts.append((h, other_along))
        twin[h] = against
        twin[against] = h
    # Where both pairs end in the same fan at both ends, the edge would stay double: pair the faces the other way, and
    # the one fan becomes two at each end.
    for h, other in contacts:
        if _same_fan(twin, h, other) and _same_fan(twin, twin[h], twin[other]):
            against = twin[h]
            other_against = twin[other]
            twin[h] = other_against
            twin[other_against] = h
            twin[other] = against
            twin[against] = other
    return twin


@njit(cache=True, nogil=True)
def _split(vertices, corners, twin, gap):  # type: ignore[no-untyped-def]  # compiled by numba
    """Give each fan a vertex of its own; `corners` is rewritten."""
    half_edge_count = corners.size
    source = np.empty(half_edge_count, np.int32)
    fans = np.zeros(vertices.shape[0], np.int32)
    done = np.zeros(half_edge_count, np.bool_)
    renamed = np.empty(half_edge_count, np.int32)
    count = 0
    for h in range(half_edge_count):
        if done[h]:
            continue
        walker = h
        while not done[walker]:
            done[walker] = True
            renamed[walker] = count
            walker = twin[preceding(walker)]
        source[count] = corners[h]
        fans[corners[h]] += 1
        count += 1
    placed = np.empty((count, 3), np.float32)
    inward = np.zeros((count, 3), np.float64)
    for v in range(count):
        placed[v] = vertices[source[v]]
    for f in range(half_edge_count // 3):
        a, b, c = corners[3 * f], corners[3 * f + 1], corners[3 * f + 2]
        if fans[a] == 1 and fans[b] == 1 and fans[c] == 1:
            continue
        one = vertices[b].astype(np.float64) - vertices[a]
        two = vertices[c].astype(np.float64) - vertices[a]
        normal = np.cross(one, two)
        for k in range(3):
            inward[renamed[3 * f + k]] -= normal
    for v in range(count):
        if fans[source[v]] > 1:
            length = np.sqrt(np.sum(inward[v] * inward[v]))
            if length > 0:
                for axis in range(3):
                    placed[v, axis] += np.float32(gap * inward[v, axis] / length)
    corners[:] = renamed
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
    renamed = corners.copy()
    placed = _split(vertices, renamed, twin, gap)
    return placed, renamed.reshape(-1, 3)


def pair_half_edges(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the twin of each half-edge of a closed manifold, (3 m) int32."""
    twin: NDArray[np.int32] = _pair(vertices, faces.reshape(-1))
    return twin
