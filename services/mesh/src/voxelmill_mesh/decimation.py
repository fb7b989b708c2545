"""Decimation of all labels at once, by edge collapses on the complex that they share.

An edge between two labels collapses for both, so no gap opens between neighbours. A collapse is refused if it would
fold a face over, make a sliver, or change the topology (the link condition for complexes whose sheets meet in curves):
every label stays closed, no part of it is lost, corners where labels meet stay where they are and curves go along
themselves.

Collapses are done in passes, cheapest first by the quadric error: each pass takes the cheapest part of the edges, and
none whose cost a collapse of the same pass has changed for the worse. A label that has come down to its number of
triangles takes no part any more.

Sources: M. Garland, P. S. Heckbert, "Surface simplification using quadric error metrics" (SIGGRAPH 1997); T. K. Dey,
H. Edelsbrunner, S. Guha, D. V. Nekhayev, "Topology preserving edge contraction" (Publ. Inst. Math. 66, 1999).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.collapse_costs import place, refresh, update_around
from voxelmill_mesh.collapse_rules import far_from_star, gather_star, keeps_topology, spoils
from voxelmill_mesh.compiled import compiled, inlined
from voxelmill_mesh.complexes import LARGEST_STAR, Complex, corners_of, link_corners
from voxelmill_mesh.quadrics import cost_limit, weight_of
from voxelmill_mesh.surface import count_sides

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

PASS_SHARE = 0.8
"""The part of the vertices that one pass may take away at most; neighbours must wait for the next."""


@inlined
def _may_lose(v: int, star: Array, sides: Array, counts: Array, targets: Array) -> bool:
    """Tell whether all labels around the edge to v have more triangles than they shall keep."""
    for i in range(star.shape[0]):
        if v in (star[i, 1], star[i, 2]):
            f = star[i, 0] >> 2
            for side in range(2):
                label = sides[f, side]
                if label and counts[label] <= targets[label]:
                    return False
    return True


@inlined
def _unlink(c: int, heads: Array, ring: Array, corners: Array) -> None:
    """Take a corner out of the ring of its vertex."""
    before = c
    while ring[before] != c:
        before = ring[before]
    ring[before] = ring[c]
    if heads[corners[c]] == c:
        heads[corners[c]] = before


@inlined
def _collapse(
    u: int,
    v: int,
    star: Array,
    other: Array,
    heads: Array,
    ring: Array,
    corners: Array,
    sides: Array,
    counts: Array,
) -> None:
    """Let u go into v and take the faces of their edge away; their labels' counts go down."""
    first = -1
    last = -1
    for i in range(other.shape[0]):
        if u not in (other[i, 1], other[i, 2]):
            c = other[i, 0]
            if first < 0:
                first = c
            else:
                ring[last] = c
            last = c
    for i in range(star.shape[0]):
        c, p, q = star[i, 0], star[i, 1], star[i, 2]
        if v in (p, q):
            base = c & ~3
            for k in range(3):
                if corners[base + k] not in (u, v):
                    _unlink(base + k, heads, ring, corners)
            for side in range(2):
                counts[sides[c >> 2, side]] -= 1
            corners[base] = -1
        else:
            corners[c] = v
            if first < 0:
                first = c
            else:
                ring[last] = c
            last = c
    ring[last] = first
    heads[v] = first
    heads[u] = -1


@compiled
def _pass(
    alive: Array,
    limit: float,
    vertices: Array,
    corners: Array,
    sides: Array,
    kinds: Array,
    quadrics: Array,
    heads: Array,
    ring: Array,
    costs: Array,
    best: Array,
    stale: Array,
    refused: Array,
    counts: Array,
    targets: Array,
    errors: Array,
    bound: float,
    heirs: Array,
    blur: float,
    target: Array,
    first: Array,
    second: Array,
) -> int:
    """Collapse what costs no more than `limit`; return how many collapses were tried.

    The last three are room for work: a function that makes no array of its own need not count references to any.
    """
    tried = 0
    for i in range(alive.size):
        u = alive[i]
        # What is stale has had a collapse beside it in this pass and waits for the next.
        if heads[u] < 0 or stale[u] or not costs[u] <= limit or costs[u] == np.inf:
            continue
        v = best[u]
        gone, stays = (u, v) if kinds[u] <= kinds[v] else (v, u)
        size = gather_star(gone, heads, ring, corners, first)
        if size < 0 or not _may_lose(stays, first[:size], sides, counts, targets):
            costs[u] = np.inf
            continue
        tried += 1
        if stale[v]:
            continue
        other_size = gather_star(stays, heads, ring, corners, second)
        if other_size < 0:
            costs[u] = np.inf
            continue
        star, other = first[:size], second[:other_size]
        x, y, z, cost = place(u, v, vertices, kinds, quadrics)
        target[0], target[1], target[2] = x, y, z
        error = 0.0
        if bound < np.inf:
            error = max(
                errors[gone] + far_from_star(vertices[gone], gone, stays, star, other, vertices, target),
                errors[stays] + far_from_star(vertices[stays], gone, stays, star, other, vertices, target),
            )
        if (
            error > bound
            or cost > blur * blur * (weight_of(quadrics[u]) + weight_of(quadrics[v]))
            or not keeps_topology(gone, stays, star, other, kinds)
            or spoils(gone, stays, star, vertices, x, y, z)
            or (kinds[gone] == kinds[stays] and spoils(stays, gone, other, vertices, x, y, z))
        ):
            if refused[u] < 0:
                refused[u] = v  # its next best edge comes in the next pass
                stale[u] = True
            else:
                costs[u] = np.inf  # until something around it changes
            continue
        _collapse(gone, stays, star, other, heads, ring, corners, sides, counts)
        heirs[gone] = stays
        errors[stays] = error
        vertices[stays, 0], vertices[stays, 1], vertices[stays, 2] = x, y, z
        for k in range(10):
            quadrics[stays, k] += quadrics[gone, k]
        update_around(gone, stays, heads, ring, corners, vertices, kinds, quadrics, costs, best, stale, refused)
    return tried


@compiled
def _excess(counts: Array, targets: Array) -> int:
    total = 0
    for label in range(1, counts.size):
        total += max(0, counts[label] - targets[label])
    return total


@compiled
def _resolve(heirs: Array, numbers: Array) -> None:
    """Replace what each vertex went into by the vertex, in new numbers, that is left there in the end."""
    for v in range(heirs.size):
        last = v
        while heirs[last] >= 0 and heirs[last] != last:
            last = heirs[last]
        walker = v
        while walker != last:
            after = heirs[walker]
            heirs[walker] = last
            walker = after
        heirs[last] = last
    for v in range(heirs.size):
        heirs[v] = numbers[heirs[v]]


def decimate(
    complex_: Complex,
    targets: NDArray[np.int64],
    blur: float,
    bound: float | None = None,
    held: NDArray[np.bool_] | None = None,
    tell: Callable[[int], None] = lambda _: None,
    *,
    spend: bool = False,
) -> tuple[Complex, NDArray[np.int32]]:
    """Return a complex in which each label has no more triangles than its target, as far as its topology allows.

    Parameters
    ----------
    complex_
        The boundaries of all labels. It is not changed, unless its quadrics may be spent.
    targets
        For each label from 0 on, the number of triangles wanted. That of 0 does not matter.
    blur
        How far a vertex may come to lie from the planes of the faces that went into it, millimetres: the root of the
        mean of the squares, by area. It keeps the tips of thin vessels, whose area is too small to make them dear.
    bound
        How far a vertex may come to lie from the new surface by the collapses of what it went into, millimetres; None
        for as far as it takes. Collapses beside these are not looked at: `deviation` tells what came of it.
    held
        (n,) bool, with a bound: vertices that stay where they are.
    tell
        Is told after each pass how many labels have reached their target. What it raises ends the work.
    spend
        Whether the complex's quadrics are needed no more: a copy of them takes 80 bytes a vertex.

    Returns
    -------
    Complex
        What is left.
    NDArray
        (n,) int32: the vertex of the new complex that each vertex of the old one went into.
    """
    vertices = complex_.vertices.copy()
    quadrics = complex_.quadrics if spend else complex_.quadrics.copy()
    corners = corners_of(complex_.faces)
    kinds, sides = complex_.kinds, complex_.sides
    counts = count_sides(sides, len(targets))
    count = len(vertices)
    heads, ring = link_corners(corners, count)
    costs = np.empty(count, np.float32)
    best = np.empty(count, np.int32)
    stale = np.ones(count, np.bool_)
    refused = np.full(count, -1, np.int32)
    heirs = np.full(count, -1, np.int32)
    errors = np.zeros(count, np.float32)
    if held is not None:
        errors[held] = np.inf
    alive = np.arange(count, dtype=np.int32)
    room = (np.empty(3), np.empty((LARGEST_STAR, 3), np.int32), np.empty((LARGEST_STAR, 3), np.int32))
    while True:
        tell(int((counts[1:] <= targets[1:]).sum()))
        needed = _excess(counts, targets) // 2
        state = (heads, ring, corners, vertices, kinds, quadrics)
        survivors = refresh(alive, stale, costs, best, refused, *state, sides, counts, targets)
        alive = alive[:survivors]
        if not needed or not survivors:
            break
        limit = cost_limit(costs, alive, min(needed + needed // 2, int(alive.size * PASS_SHARE) + 1))
        parts = (vertices, corners, sides, kinds, quadrics, heads, ring, costs, best, stale, refused)
        reach = np.inf if bound is None else bound
        tried = _pass(alive, limit, *parts, counts, targets, errors, reach, heirs, blur, *room)
        if not tried:
            break  # every edge that is left is needed for the shape or the topology
    faces = corners.reshape(-1, 4)[:, :3]
    kept = faces[:, 0] >= 0
    used = heads >= 0
    numbers = np.cumsum(used, dtype=np.int32) - 1
    _resolve(heirs, numbers)
    left = Complex(vertices[used], numbers[faces[kept]], sides[kept], kinds[used], quadrics[used], complex_.origin)
    return left, heirs
