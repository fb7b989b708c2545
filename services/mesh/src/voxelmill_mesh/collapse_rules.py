"""When an edge may collapse: the rules of shape, topology and distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import inlined
from voxelmill_mesh.complexes import CURVE, DISC, others

if TYPE_CHECKING:
    from voxelmill_mesh.compiled import Array

FOLD_COSINE = 0.5
"""How far a face may turn in one collapse: by the arc cosine of this, 60 degrees."""

SLIVER = 0.1
"""Twice a face's area over the square of its longest edge (0.87 if equilateral): no face gets worse than this, unless
it was, and then it must get better."""


@inlined
def gather_star(u: int, heads: Array, ring: Array, corners: Array, star: Array) -> int:
    """Write the corners at a vertex, each with the two other vertices of its face; return how many, -1 if too many.

    What follows asks the same faces again and again: here they lie together.
    """
    count = 0
    c = heads[u]
    while True:
        if count == star.shape[0]:
            return -1
        star[count, 0] = c
        star[count, 1], star[count, 2] = others(c, corners)
        count += 1
        c = ring[c]
        if c == heads[u]:
            return count


@inlined
def spoils(u: int, v: int, star: Array, vertices: Array, x: float, y: float, z: float) -> bool:
    """Tell whether moving u to (x, y, z) folds a face around u, or makes a sliver; faces with v will be gone."""
    for i in range(star.shape[0]):
        p, q = star[i, 1], star[i, 2]
        if v in (p, q):
            continue
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
    return False


@inlined
def _has(star: Array, w: int) -> bool:
    """Tell whether a vertex is one of a star's rim."""
    for i in range(star.shape[0]):  # noqa: SIM110 - compiled: a generator would not be
        if star[i, 1] == w or star[i, 2] == w:
            return True
    return False


@inlined
def _on_edge(star: Array, v: int, w: int) -> bool:
    """Tell whether a star has a face with both v and w."""
    for i in range(star.shape[0]):  # noqa: SIM110 - compiled: a generator would not be
        if (star[i, 1] == v and star[i, 2] == w) or (star[i, 1] == w and star[i, 2] == v):
            return True
    return False


@inlined
def _closes(star: Array, v: int) -> bool:
    """Tell whether a star has a face without v whose two other vertices both lie across the edge to v."""
    for i in range(star.shape[0]):
        p, q = star[i, 1], star[i, 2]
        if v not in (p, q) and _on_edge(star, v, p) and _on_edge(star, v, q):
            return True
    return False


@inlined
def _count_with(star: Array, w: int) -> int:
    count = 0
    for i in range(star.shape[0]):
        if star[i, 1] == w or star[i, 2] == w:
            count += 1
    return count


@inlined
def keeps_topology(u: int, v: int, star: Array, other: Array, kinds: Array) -> bool:
    """Tell whether u may go into v, whose kind is no lower: their links share no more than the link of the edge.

    The same holds for the curves alone, and a vertex of a curve goes along it. `star` is that of u, `other` that of v.
    """
    around = _count_with(star, v)
    if kinds[u] == CURVE and around == 2:
        return False
    for i in range(star.shape[0]):
        for k in range(1, 3):
            w = star[i, k]
            if w == v or not _has(other, w):
                continue
            if not _on_edge(star, v, w):
                return False  # a neighbour of both that does not lie across their edge
            if kinds[u] == CURVE and kinds[w] != DISC and _count_with(star, w) > 2 and _count_with(other, w) > 2:
                return False
    # Faces that u and v both have over the same edge would come to lie back to back.
    return not (_closes(star, v) and _closes(other, u))


@inlined
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


@inlined
def far_from_star(point: Array, u: int, v: int, star: Array, other: Array, vertices: Array, place: Array) -> float:
    """Return how far a point is from the faces of u and v as they are once both have gone to a place."""
    least = np.inf
    for i in range(star.shape[0]):
        p, q = star[i, 1], star[i, 2]
        if v not in (p, q):
            least = min(least, far_from_triangle(point, place, vertices[p], vertices[q]))
    for i in range(other.shape[0]):
        p, q = other[i, 1], other[i, 2]
        if u not in (p, q):
            least = min(least, far_from_triangle(point, place, vertices[p], vertices[q]))
    return float(np.sqrt(least))
