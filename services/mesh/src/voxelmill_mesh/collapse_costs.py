"""What the collapse of each edge would cost, and which edge of a vertex is the cheapest: kept up to date by passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled, inlined
from voxelmill_mesh.complexes import CORNER, DISC, others
from voxelmill_mesh.quadrics import error_at, optimum

if TYPE_CHECKING:
    from voxelmill_mesh.compiled import Array


@inlined
def place(u: int, v: int, vertices: Array, kinds: Array, quadrics: Array) -> tuple[float, float, float, float]:
    """Return where the vertex of two goes, and at what cost; a vertex goes into one of a higher kind, not beside it."""
    if kinds[u] == kinds[v]:
        if kinds[u] == CORNER:
            return 0.0, 0.0, 0.0, np.inf
        return optimum(quadrics[u], quadrics[v])
    stays = u if kinds[u] > kinds[v] else v
    x, y, z = vertices[stays, 0], vertices[stays, 1], vertices[stays, 2]
    return x, y, z, error_at(quadrics[u], quadrics[v], x, y, z)


@inlined
def _cheapest(
    u: int, heads: Array, ring: Array, corners: Array, vertices: Array, kinds: Array, quadrics: Array, refused: int
) -> tuple[int, float]:
    """Return the neighbour with a higher number to which the edge from u is cheapest, and its cost."""
    best = -1
    least = np.inf
    c = heads[u]
    while True:
        p, q = others(c, corners)
        if p > u and p != refused:
            cost = place(u, p, vertices, kinds, quadrics)[3]
            if cost < least:
                least = cost
                best = p
        if kinds[u] != DISC and q > u and q != refused:  # around a disc each neighbour is the first of one face
            cost = place(u, q, vertices, kinds, quadrics)[3]
            if cost < least:
                least = cost
                best = q
        c = ring[c]
        if c == heads[u]:
            return best, least


@inlined
def _is_open(u: int, heads: Array, ring: Array, kinds: Array, sides: Array, counts: Array, targets: Array) -> bool:
    """Tell whether a vertex can still go: between labels that both have more triangles than they shall keep."""
    c = heads[u]
    while True:
        first, second = sides[c >> 2, 0], sides[c >> 2, 1]
        if (not first or counts[first] > targets[first]) and counts[second] > targets[second]:
            return True
        c = ring[c]
        if kinds[u] == DISC or c == heads[u]:
            return False


@compiled
def refresh(
    alive: Array,
    stale: Array,
    costs: Array,
    best: Array,
    refused: Array,
    heads: Array,
    ring: Array,
    corners: Array,
    vertices: Array,
    kinds: Array,
    quadrics: Array,
    sides: Array,
    counts: Array,
    targets: Array,
) -> int:
    """Move the vertices that can still go to the front of `alive`, see to their costs, and return how many they are."""
    survivors = 0
    for i in range(alive.size):
        u = alive[i]
        if heads[u] < 0 or not _is_open(u, heads, ring, kinds, sides, counts, targets):
            continue
        alive[survivors] = u
        survivors += 1
        if stale[u]:
            best[u], costs[u] = _cheapest(u, heads, ring, corners, vertices, kinds, quadrics, refused[u])
            stale[u] = False
    return survivors


@inlined
def update_around(
    u: int,
    v: int,
    heads: Array,
    ring: Array,
    corners: Array,
    vertices: Array,
    kinds: Array,
    quadrics: Array,
    costs: Array,
    best: Array,
    stale: Array,
    refused: Array,
) -> None:
    """See to the costs around v, into which u went: v's own waits for the next pass, a neighbour's only if it must."""
    stale[v] = True
    refused[v] = -1
    c = heads[v]
    while True:
        p, q = others(c, corners)
        for w in (p, q):
            if kinds[v] == DISC and w == q:
                continue
            if best[w] == u or best[w] == v or costs[w] == np.inf:
                stale[w] = True
                refused[w] = -1
            elif w < v and not stale[w]:
                cost = np.float32(place(w, v, vertices, kinds, quadrics)[3])
                if cost < costs[w]:
                    costs[w] = cost
                    best[w] = v
        c = ring[c]
        if c == heads[v]:
            break
