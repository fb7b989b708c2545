"""Decimation by edge collapses that never break a manifold.

Collapses are done in passes, cheapest first by the quadric error: each pass takes the cheapest part of the edges, and
none whose cost a collapse of the same pass has changed for the worse. A collapse is refused if it would fold a face
over, make a sliver, or change the topology (the link condition of Dey et al.): a closed manifold stays one, and no part
of it is ever lost.

Sources: M. Garland, P. S. Heckbert, "Surface simplification using quadric error metrics" (SIGGRAPH 1997); T. K. Dey,
H. Edelsbrunner, S. Guha, D. V. Nekhayev, "Topology preserving edge contraction" (Publ. Inst. Math. 66, 1999).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.manifold import following, pair_half_edges, preceding
from voxelmill_mesh.quadrics import optimum, vertex_quadrics
from voxelmill_mesh.surface import Mesh

if TYPE_CHECKING:
    from voxelmill_mesh.compiled import Array

PASS_SHARE = 0.4
"""The part of the vertices that one pass may take away at most; neighbours must wait for the next."""

FOLD_COSINE = 0.5
"""How far a face may turn in one collapse: by the arc cosine of this, 60 degrees."""

SLIVER = 0.1
"""Twice a face's area over the square of its longest edge (0.87 if equilateral): no face gets worse than this, unless
it was, and then it must get better."""


@compiled
def _cheapest(u: int, start: int, corners: Array, twin: Array, quadrics: Array) -> tuple[int, float]:
    """Return the neighbour with a higher number to which the edge from u is cheapest, and its cost."""
    best = -1
    least = np.inf
    h = start
    while True:
        v = corners[following(h)]
        if v > u:
            cost = optimum(quadrics[u], quadrics[v])[3]
            if cost < least:
                least = cost
                best = v
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
    x, y, z, _ = optimum(quadrics[u], quadrics[v])
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
def _half_edge(start: int, v: int, corners: Array, twin: Array) -> int:
    """Return the half-edge to v among those that start at the same vertex as `start`."""
    h = start
    while corners[following(h)] != v:
        h = twin[preceding(h)]
    return h


@compiled
def _update_around(
    u: int, v: int, edges: Array, corners: Array, twin: Array, quadrics: Array, costs: Array, best: Array, stale: Array
) -> None:
    """See to the costs around v, into which u went: v's own waits for the next pass, a neighbour's only if it must."""
    stale[v] = True
    start = edges[v]
    h = start
    while True:
        w = corners[following(h)]
        if best[w] == u or best[w] == v or costs[w] == np.inf:
            stale[w] = True
        elif w < v and not stale[w]:
            cost = np.float32(optimum(quadrics[w], quadrics[v])[3])
            if cost < costs[w]:
                costs[w] = cost
                best[w] = v
        h = twin[preceding(h)]
        if h == start:
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
            # What is stale has had a collapse beside it in this pass and waits for the next.
            if stale[u] or not costs[u] <= limit or costs[u] == np.inf:
                continue
            candidates += 1
            v = best[u]
            if stale[v]:
                continue
            h = _half_edge(edges[u], v, corners, twin)
            stamp += 1
            if not _try_collapse(h, vertices, quadrics, box, corners, twin, edges, stamps, stamp):
                costs[u] = np.inf  # until something around it changes
                continue
            _update_around(u, v, edges, corners, twin, quadrics, costs, best, stale)
            face_count -= 2
            if face_count <= target:
                break
        if candidates == 0:
            break  # every edge that is left is needed for the shape or the topology
    return face_count


@compiled
def _survivors(corners: Array, vertex_count: int, face_count: int) -> tuple[Array, Array]:
    """Return the faces that are left and the vertices that they use, in the order in which they use them."""
    kept = np.empty(face_count, np.int32)
    seen = np.zeros(vertex_count, np.bool_)
    used = np.empty(vertex_count, np.int32)
    count = 0
    face = 0
    for f in range(corners.size // 3):
        if corners[3 * f] < 0:
            continue
        kept[face] = f
        face += 1
        for k in range(3):
            v = corners[3 * f + k]
            if not seen[v]:
                seen[v] = True
                used[count] = v
                count += 1
    return kept, used[:count].copy()


@compiled
def _renumber(corners: Array, twin: Array, kept: Array, used: Array, vertex_count: int) -> tuple[Array, Array]:
    """Return the corners and twins of the faces that are left, in new numbers."""
    face_numbers = np.empty(corners.size // 3, np.int32)
    for f in range(kept.size):
        face_numbers[kept[f]] = f
    numbers = np.empty(vertex_count, np.int32)
    for v in range(used.size):
        numbers[used[v]] = v
    packed_corners = np.empty(3 * kept.size, np.int32)
    packed_twin = np.empty(3 * kept.size, np.int32)
    for f in range(kept.size):
        for k in range(3):
            h = 3 * kept[f] + k
            packed_corners[3 * f + k] = numbers[corners[h]]
            packed_twin[3 * f + k] = 3 * face_numbers[twin[h] // 3] + twin[h] % 3
    return packed_corners, packed_twin


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
    origin = (mesh.vertices.min(axis=0).astype(np.float64) + mesh.vertices.max(axis=0)) / 2
    vertices: Array = (mesh.vertices - origin).astype(np.float64)  # small numbers: the quadrics hold their squares
    box = np.stack([vertices.min(axis=0), vertices.max(axis=0)])
    quadrics = vertex_quadrics(vertices, mesh.faces)
    corners: Array = mesh.faces.reshape(-1).copy()
    twin: Array = pair_half_edges(mesh.vertices, mesh.faces)
    face_count = len(mesh.faces)
    wanted = face_count
    while wanted > target:
        # Half of it at a time, then packed: the longer the faces in use lie scattered, the slower they are found.
        wanted = max(target, face_count // 2)
        face_count = _reduce(vertices, corners, twin, quadrics, box, wanted)
        kept, used = _survivors(corners, len(vertices), face_count)
        corners, twin = _renumber(corners, twin, kept, used, len(vertices))
        vertices, quadrics = vertices[used], quadrics[used]
        if face_count > wanted:
            break  # no more can go
    return Mesh((vertices + origin).astype(np.float32), corners.reshape(-1, 3))
