"""Decimation by edge collapses that never break a manifold.

The cost of a collapse is the quadric error of Garland and Heckbert with a small pull towards the vertices' own places
(the isotropic term of Trettner and Kobbelt), which keeps the equations solvable in flat places and the triangles well
shaped. Collapses are done in passes, cheapest first: each pass takes the cheapest part of the edges, and no two
neighbouring edges in the same pass. A collapse is refused if it would fold a face over, make a sliver, or change the
topology (the link condition of Dey et al.): a closed manifold stays one, and no part of it is ever lost.

Sources: M. Garland, P. S. Heckbert, "Surface simplification using quadric error metrics" (SIGGRAPH 1997);
P. Trettner, L. Kobbelt, "Fast and robust QEF minimization using probabilistic quadrics" (CGF 39, 2020); T. K. Dey,
H. Edelsbrunner, S. Guha, D. V. Nekhayev, "Topology preserving edge contraction" (Publ. Inst. Math. 66, 1999).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.manifold import following, pair_half_edges, preceding
from voxelmill_mesh.surface import Mesh

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

PULL = 1e-3
"""The weight of a vertex's own place beside the planes of its faces."""

PASS_SHARE = 0.4
"""The part of the vertices that one pass may take away at most; neighbours must wait for the next."""

FOLD_COSINE = 0.5
"""How far a face may turn in one collapse: by the arc cosine of this, 60 degrees."""

SLIVER = 0.1
"""Twice a face's area over the square of its longest edge (0.87 if equilateral): no face gets worse than this, unless
it was, and then it must get better."""


@compiled
def _quadrics(vertices: Array, faces: Array) -> Array:
    """Return (n, 10): xx xy xz yy yz zz of the matrix, x y z of the vector, and the constant."""
    quadrics = np.zeros((vertices.shape[0], 10))
    for f in range(faces.shape[0]):
        px, py, pz = vertices[faces[f, 0], 0], vertices[faces[f, 0], 1], vertices[faces[f, 0], 2]
        ax, ay, az = vertices[faces[f, 1], 0] - px, vertices[faces[f, 1], 1] - py, vertices[faces[f, 1], 2] - pz
        bx, by, bz = vertices[faces[f, 2], 0] - px, vertices[faces[f, 2], 1] - py, vertices[faces[f, 2], 2] - pz
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        if length == 0.0:
            continue
        nx, ny, nz = nx / length, ny / length, nz / length
        d = -(nx * px + ny * py + nz * pz)
        weight = length / 6  # a third of the area for each corner
        for k in range(3):
            v = faces[f, k]
            x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
            quadric = quadrics[v]
            quadric[0] += weight * (nx * nx + PULL)
            quadric[1] += weight * nx * ny
            quadric[2] += weight * nx * nz
            quadric[3] += weight * (ny * ny + PULL)
            quadric[4] += weight * ny * nz
            quadric[5] += weight * (nz * nz + PULL)
            quadric[6] += weight * (nx * d - PULL * x)
            quadric[7] += weight * (ny * d - PULL * y)
            quadric[8] += weight * (nz * d - PULL * z)
            quadric[9] += weight * (d * d + PULL * (x * x + y * y + z * z))
    return quadrics


@compiled
def _optimum(first: Array, second: Array) -> tuple[float, float, float, float]:
    """Return the place of least error of two quadrics' sum, and that error."""
    xx, xy, xz = first[0] + second[0], first[1] + second[1], first[2] + second[2]
    yy, yz, zz = first[3] + second[3], first[4] + second[4], first[5] + second[5]
    bx, by, bz = first[6] + second[6], first[7] + second[7], first[8] + second[8]
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * cxx + xy * cxy + xz * cxz
    if determinant <= 0.0:
        return 0.0, 0.0, 0.0, np.inf
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    x = -(cxx * bx + cxy * by + cxz * bz) / determinant
    y = -(cxy * bx + cyy * by + cyz * bz) / determinant
    z = -(cxz * bx + cyz * by + czz * bz) / determinant
    return x, y, z, max(0.0, bx * x + by * y + bz * z + first[9] + second[9])


@compiled
def _cheapest(u: int, start: int, corners: Array, twin: Array, quadrics: Array) -> tuple[int, float]:
    """Return the cheapest half-edge from u to a vertex with a higher number, and its cost."""
    best = -1
    least = np.inf
    h = start
    while True:
        v = corners[following(h)]
        if v > u:
            cost = _optimum(quadrics[u], quadrics[v])[3]
            if cost < least:
                least = cost
                best = h
        h = twin[preceding(h)]
        if h == start:
            return best, least


@compiled
def _spoils(
    u: int, v: int, start: int, corners: Array, twin: Array, vertices: Array, x: float, y: float, z: float
) -> bool:
    """Tell whether moving u to (x, y, z) folds a face around u, or makes a sliver; faces with v will be gone."""
    h = start
    while True:
        p = corners[following(h)]
        q = corners[preceding(h)]
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
        h = twin[preceding(h)]
        if h == start:
            return False


@compiled
def _keeps_topology(h: int, corners: Array, twin: Array, stamps: Array, stamp: int) -> bool:
    """Tell whether the ends of an edge have just the two neighbours in common that face it."""
    walker = h
    while True:
        stamps[corners[following(walker)]] = stamp
        walker = twin[preceding(walker)]
        if walker == h:
            break
    common = 0
    start = twin[h]
    walker = start
    while True:
        if stamps[corners[following(walker)]] == stamp:
            common += 1
        walker = twin[preceding(walker)]
        if walker == start:
            break
    if common != 2:
        return False
    # A facing vertex with three faces would be left with two, back to back.
    for opposite in (preceding(h), preceding(start)):
        walker = opposite
        for _ in range(3):
            walker = twin[preceding(walker)]
        if walker == opposite:
            return False
    return True


@compiled
def _collapse(h: int, corners: Array, twin: Array, edges: Array) -> None:
    """Merge the start u of half-edge h into its end v and take the two faces of the edge away."""
    g = twin[h]
    v = corners[g]
    u = corners[h]
    walker = h
    while True:
        corners[walker] = v
        walker = twin[preceding(walker)]
        if walker == h:
            break
    a, b = twin[following(h)], twin[preceding(h)]
    c, d = twin[following(g)], twin[preceding(g)]
    twin[a], twin[b] = b, a
    twin[c], twin[d] = d, c
    edges[u] = -1
    edges[v] = b
    edges[corners[a]] = a
    edges[corners[c]] = c
    for face in (h // 3, g // 3):
        corners[3 * face] = -1


@compiled
def _threshold(costs: Array, alive: Array, wanted: int) -> float:
    """Return a cost that about `wanted` vertices do not exceed.

    A float32 that is not negative orders like its bits, so their upper half makes a histogram without any scale.
    """
    bits = costs.view(np.uint32)
    infinite = 0x7F80
    histogram = np.zeros(infinite + 1, np.int64)
    for i in range(alive.size):
        histogram[bits[alive[i]] >> 16] += 1
    total = 0
    for upper in range(infinite):
        total += histogram[upper]
        if total >= wanted:
            return float(np.array([(upper << 16) | 0xFFFF], np.uint32).view(np.float32)[0])
    return np.inf


@compiled
def _refresh(
    alive: Array, stale: Array, costs: Array, best: Array, edges: Array, corners: Array, twin: Array, quadrics: Array
) -> int:
    """Move the vertices that are left to the front of `alive`, see to their costs, and return how many there are."""
    survivors = 0
    for i in range(alive.size):
        u = alive[i]
        if edges[u] < 0:
            continue
        alive[survivors] = u
        survivors += 1
        if stale[u]:
            best[u], costs[u] = _cheapest(u, edges[u], corners, twin, quadrics)
            stale[u] = False
    return survivors


@compiled
def _try_collapse(
    h: int,
    vertices: Array,
    quadrics: Array,
    box: Array,
    corners: Array,
    twin: Array,
    edges: Array,
    stamps: Array,
    stamp: int,
) -> bool:
    """Collapse a half-edge if shape and topology allow it."""
    u = corners[h]
    v = corners[following(h)]
    x, y, z, _ = _optimum(quadrics[u], quadrics[v])
    x = min(max(x, box[0, 0]), box[1, 0])
    y = min(max(y, box[0, 1]), box[1, 1])
    z = min(max(z, box[0, 2]), box[1, 2])
    if (
        not _keeps_topology(h, corners, twin, stamps, stamp)
        or _spoils(u, v, h, corners, twin, vertices, x, y, z)
        or _spoils(v, u, twin[h], corners, twin, vertices, x, y, z)
    ):
        return False
    _collapse(h, corners, twin, edges)
    vertices[v, 0], vertices[v, 1], vertices[v, 2] = x, y, z
    for k in range(10):
        quadrics[v, k] += quadrics[u, k]
    return True


@compiled
def _mark_around(v: int, start: int, corners: Array, twin: Array, stale: Array) -> None:
    """Mark a vertex and its neighbours: the costs of their edges have changed."""
    stale[v] = True
    walker = start
    while True:
        stale[corners[following(walker)]] = True
        walker = twin[preceding(walker)]
        if walker == start:
            break


@compiled
def _reduce(vertices: Array, corners: Array, twin: Array, quadrics: Array, box: Array, target: int) -> int:
    """Collapse edges in place until `target` faces are left or none can go; return how many are left."""
    vertex_count = vertices.shape[0]
    edges = np.empty(vertex_count, np.int32)  # a half-edge that starts at the vertex; -1 once it is gone
    for h in range(corners.size):
        edges[corners[h]] = h
    costs = np.empty(vertex_count, np.float32)
    best = np.empty(vertex_count, np.int32)
    stale = np.ones(vertex_count, np.bool_)
    stamps = np.zeros(vertex_count, np.int32)
    stamp = 0
    alive = np.arange(vertex_count).astype(np.int32)
    face_count = corners.size // 3
    while face_count > target:
        alive = alive[: _refresh(alive, stale, costs, best, edges, corners, twin, quadrics)]
        needed = (face_count - target + 1) // 2
        limit = _threshold(costs, alive, min(needed + needed // 2, int(alive.size * PASS_SHARE) + 1))
        candidates = 0
        for i in range(alive.size):
            u = alive[i]
            # A vertex beside a collapse of this pass is stale: its cost is not what it was.
            if stale[u] or not costs[u] <= limit or costs[u] == np.inf:
                continue
            candidates += 1
            h = best[u]
            v = corners[following(h)]
            if stale[v]:
                continue
            stamp += 1
            if not _try_collapse(h, vertices, quadrics, box, corners, twin, edges, stamps, stamp):
                costs[u] = np.inf  # until something around it changes
                continue
            _mark_around(v, edges[v], corners, twin, stale)
            face_count -= 2
            if face_count <= target:
                break
        if candidates == 0:
            break  # every edge that is left is needed for the shape or the topology
    return face_count


@compiled
def _compact(vertices: Array, corners: Array, face_count: int) -> tuple[Array, Array]:
    """Leave out what is gone; vertices are numbered in the order in which the faces use them."""
    numbers = np.full(vertices.shape[0], -1, np.int32)
    kept = np.empty((vertices.shape[0], 3), np.float32)
    faces = np.empty((face_count, 3), np.int32)
    count = 0
    f = 0
    for face in range(corners.size // 3):
        if corners[3 * face] < 0:
            continue
        for k in range(3):
            v = corners[3 * face + k]
            if numbers[v] < 0:
                numbers[v] = count
                for axis in range(3):
                    kept[count, axis] = np.float32(vertices[v, axis])
                count += 1
            faces[f, k] = numbers[v]
        f += 1
    return kept[:count].copy(), faces


def decimate(mesh: Mesh, target: int) -> Mesh:
    """Return a closed manifold with `target` triangles, or as few more as its shape and topology allow.

    It stays within the bounding box of the mesh.

    Parameters
    ----------
    mesh
        A closed manifold (`make_manifold`).
    target
        The number of triangles wanted. A mesh that has no more is returned as it is.
    """
    if len(mesh.faces) <= target:
        return mesh
    twin = pair_half_edges(mesh.vertices, mesh.faces)
    origin = (mesh.vertices.min(axis=0).astype(np.float64) + mesh.vertices.max(axis=0)) / 2
    vertices = (mesh.vertices - origin).astype(np.float64)  # small numbers: the quadrics hold their squares
    corners: NDArray[np.int32] = mesh.faces.reshape(-1).copy()
    box = np.stack([vertices.min(axis=0), vertices.max(axis=0)])
    face_count = _reduce(vertices, corners, twin, _quadrics(vertices, mesh.faces), box, target)
    kept, faces = _compact(vertices + origin, corners, face_count)
    return Mesh(kept, faces)
