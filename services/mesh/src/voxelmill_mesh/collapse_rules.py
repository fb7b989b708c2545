"""When an edge may collapse: the rules of shape, topology and distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.complexes import CURVE, DISC, count_faces, others

if TYPE_CHECKING:
    from voxelmill_mesh.compiled import Array

FOLD_COSINE = 0.5
"""How far a face may turn in one collapse: by the arc cosine of this, 60 degrees."""

SLIVER = 0.1
"""Twice a face's area over the square of its longest edge (0.87 if equilateral): no face gets worse than this, unless
it was, and then it must get better."""


@compiled
def spoils(
    u: int, v: int, heads: Array, ring: Array, corners: Array, vertices: Array, x: float, y: float, z: float
) -> bool:
    """Tell whether moving u to (x, y, z) folds a face around u, or makes a sliver; faces with v will be gone."""
    c = heads[u]
    while True:
        p, q = others(c, corners)
        if v not in (p, q):
            px, py, pz = vertices[p, 0], vertices[p, 1], vertices[p, 2]
            qx, qy, qz = vertices[q, 0], vertices[q, 1], vertices[q, 2]
            ex, ey, ez = qx - px, qy - py, qz - pz
            ox, oy, oz = vertices[u, 0] - px, vertices[u, 1] - py, vertices[u, 2] - pz
            wx, wy, wz = x - px, y - py, z - pz
            onx, ony, onz = ey * oz - ez * oy, ez * ox - ex * oz, ex * oy - ey * ox
            nnx, nny, nnz = ey * wz - ez * wy, ez * wx - ex * wz, ex * wy - ey * wx
            turn = onx * nnx + ony * nny + onz * nnz
            old_area = onx * onx + ony * ony + onz * onz  # squared, twice the area: no root is needed
            new_area = nnx * nnx + nny * nny + nnz * nnz
            if turn < 0 or turn * turn < FOLD_COSINE * FOLD_COSINE * old_area * new_area:
                return True
            edge = ex * ex + ey * ey + ez * ez
            longest = max(edge, wx * wx + wy * wy + wz * wz, (x - qx) ** 2 + (y - qy) ** 2 + (z - qz) ** 2)
            if new_area <= SLIVER * SLIVER * longest * longest:
                was = max(
                    edge,
                    ox * ox + oy * oy + oz * oz,
                    (vertices[u, 0] - qx) ** 2 + (vertices[u, 1] - qy) ** 2 + (vertices[u, 2] - qz) ** 2,
                )
                if new_area * was * was <= old_area * longest * longest:
                    return True
        c = ring[c]
        if c == heads[u]:
            return False


@compiled
def _has_face_of(u: int, v: int, heads: Array, ring: Array, corners: Array, stamps: Array, apex: int) -> bool:
    """Tell whether u has a face without v whose two other vertices both face the edge of u and v."""
    c = heads[u]
    while True:
        p, q = others(c, corners)
        if stamps[p] == apex and stamps[q] == apex and v not in (p, q):
            return True
        c = ring[c]
        if c == heads[u]:
            return False


@compiled
def keeps_topology(
    u: int, v: int, heads: Array, ring: Array, corners: Array, kinds: Array, stamps: Array, stamp: int
) -> bool:
    """Tell whether u may go into v, whose kind is no lower: the links of both share no more than the link of the edge.

    The same holds for the curves alone, and a vertex of a curve goes along it.
    """
    around = 0
    c = heads[u]
    while True:
        p, q = others(c, corners)
        if v in (p, q):
            around += 1
        stamps[p] = stamp
        stamps[q] = stamp
        c = ring[c]
        if c == heads[u]:
            break
    if kinds[u] == CURVE and around == 2:
        return False
    common = 0
    c = heads[v]
    while True:
        for w in others(c, corners):
            if w != u and stamps[w] == stamp:
                stamps[w] = stamp + 1
                common += 1
                if (
                    kinds[u] == CURVE
                    and kinds[w] != DISC
                    and (count_faces(u, w, heads, ring, corners) > 2 and count_faces(v, w, heads, ring, corners) > 2)
                ):
                    return False
        c = ring[c]
        if c == heads[v]:
            break
    # Faces that u and v both have over the same edge would come to lie back to back.
    return common == around and not (
        _has_face_of(u, v, heads, ring, corners, stamps, stamp + 1)
        and _has_face_of(v, u, heads, ring, corners, stamps, stamp + 1)
    )


@compiled
def far_from_triangle(p: Array, a: Array, b: Array, c: Array) -> float:
    """Return the square of the distance of a point from a triangle (Ericson, Real-Time Collision Detection, 5.1.5)."""
    abx, aby, abz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    acx, acy, acz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    apx, apy, apz = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    ab_ab = abx * abx + aby * aby + abz * abz
    ab_ac = abx * acx + aby * acy + abz * acz
    ac_ac = acx * acx + acy * acy + acz * acz
    ab_ap = abx * apx + aby * apy + abz * apz
    ac_ap = acx * apx + acy * apy + acz * apz
    area = ab_ab * ac_ac - ab_ac * ab_ac
    s = ac_ac * ab_ap - ab_ac * ac_ap
    t = ab_ab * ac_ap - ab_ac * ab_ap
    if area > 0 and s >= 0 and t >= 0 and s + t <= area:
        s /= area
        t /= area
        return float((apx - s * abx - t * acx) ** 2 + (apy - s * aby - t * acy) ** 2 + (apz - s * abz - t * acz) ** 2)
    # Otherwise one of the edges is nearest.
    s = min(max(ab_ap / ab_ab, 0.0), 1.0) if ab_ab > 0 else 0.0
    least = (apx - s * abx) ** 2 + (apy - s * aby) ** 2 + (apz - s * abz) ** 2
    s = min(max(ac_ap / ac_ac, 0.0), 1.0) if ac_ac > 0 else 0.0
    least = min(least, (apx - s * acx) ** 2 + (apy - s * acy) ** 2 + (apz - s * acz) ** 2)
    bcx, bcy, bcz = acx - abx, acy - aby, acz - abz
    bpx, bpy, bpz = apx - abx, apy - aby, apz - abz
    bc_bc = bcx * bcx + bcy * bcy + bcz * bcz
    s = min(max((bcx * bpx + bcy * bpy + bcz * bpz) / bc_bc, 0.0), 1.0) if bc_bc > 0 else 0.0
    return float(min(least, (bpx - s * bcx) ** 2 + (bpy - s * bcy) ** 2 + (bpz - s * bcz) ** 2))


@compiled
def far_from_star(
    point: Array, u: int, v: int, heads: Array, ring: Array, corners: Array, vertices: Array, place: Array
) -> float:
    """Return how far a point is from the faces of u and v as they are once both have gone to a place."""
    least = np.inf
    for each, other in ((u, v), (v, u)):
        c = heads[each]
        while True:
            p, q = others(c, corners)
            if other not in (p, q):
                least = min(least, far_from_triangle(point, place, vertices[p], vertices[q]))
            c = ring[c]
            if c == heads[each]:
                break
    return float(np.sqrt(least))
