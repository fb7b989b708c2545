"""Constrained Taubin smoothing of a surface net: the staircase of the voxels goes, volume and neighbourhood stay.

All labels are smoothed at once on their shared vertices, so no gap and no overlap opens between them. It works in
voxel indices: with equal weights the filter commutes with every affine map, so slices that are thick, sheared or
flipped need no special care.

Sources: G. Taubin, "A signal processing approach to fair surface design" (SIGGRAPH 1995); S. F. F. Gibson,
"Constrained elastic surface nets" (MICCAI 1998), for the bound on how far a vertex may go.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.parallel import WORKERS, in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.nets import SurfaceNet

STEPS = (0.65, -0.7)
"""Taubin's lambda and mu: a pass-band frequency of 1/0.65 - 1/0.7 = 0.11."""

LAST_STEPS = (0.5, -0.53)
"""Those of the last iteration, with the same pass band: they take the shortest waves, those of neighbours to and fro,
away altogether."""

BOUND = 0.49
"""How far a vertex may go from the centre of its cell along each axis, in voxels: it never leaves the cell (0.5), and
two vertices never meet."""


def _pulls() -> NDArray[np.float32]:
    """Return (64, 4) for each set of links: the mean of the steps to the linked cells, and one over their number."""
    table = np.zeros((64, 4), np.float32)
    for links in range(64):
        present = [k for k in range(6) if links >> k & 1]
        if len(present) >= 2:  # one alone is the end of a curve where labels meet: there is no curvature to take away
            for k in present:
                table[links, k // 2] += (2 * (k % 2) - 1) / len(present)
            table[links, 3] = 1 / len(present)
    return table


_PULLS = _pulls()


@compiled
def _close_links(links: Array, present: Array, nowhere: int, first: int, last: int) -> None:
    """Note which links a vertex has, and let those that it has not lead to a vertex that never moves."""
    for v in range(first, last):
        found = 0
        for k in range(6):
            if 0 <= links[v, k] < nowhere:
                found |= 1 << k
            else:
                links[v, k] = nowhere
        present[v] = found


@compiled
def _step(
    links: Array, present: Array, pulls: Array, old: Array, new: Array, weight: np.float32, first: int, last: int
) -> None:
    """Move each vertex towards the mean of its neighbours, by `weight`; places are those relative to the cells.

    Four numbers a vertex and no branch: the compiler takes the axes at once.
    """
    bound = np.float32(BOUND)
    for v in range(first, last):
        a, b, c, d, e, f = links[v, 0], links[v, 1], links[v, 2], links[v, 3], links[v, 4], links[v, 5]
        pull = pulls[present[v]]
        share = weight * pull[3]
        stay = np.float32(1) - weight if share != 0 else np.float32(1)
        for axis in range(4):
            total = (old[a, axis] + old[b, axis]) + (old[c, axis] + old[d, axis]) + (old[e, axis] + old[f, axis])
            new[v, axis] = min(max(stay * old[v, axis] + share * total + weight * pull[axis], -bound), bound)
        new[v, 3] = 0


@compiled
def _find_border(centres: Array, extent: Array) -> Array:
    """Return the vertices on the outer faces of the image's voxels."""
    found = np.empty(centres.shape[0], np.int32)
    count = 0
    for v in range(centres.shape[0]):
        for axis in range(3):
            if centres[v, axis] == extent[0, axis] or centres[v, axis] == extent[1, axis]:
                found[count] = v
                count += 1
                break
    return found[:count].copy()


@compiled
def _hold_border(border: Array, centres: Array, extent: Array, places: Array) -> None:
    """Let no vertex at the border leave the outer faces of the image's voxels."""
    for i in range(border.size):
        v = border[i]
        for axis in range(3):
            if centres[v, axis] == extent[0, axis]:
                places[v, axis] = max(places[v, axis], np.float32(0))
            if centres[v, axis] == extent[1, axis]:
                places[v, axis] = min(places[v, axis], np.float32(0))


@compiled
def _add(centres: Array, places: Array, first: int, last: int) -> None:
    for v in range(first, last):
        for axis in range(3):
            places[v, axis] += centres[v, axis]


def smooth(net: SurfaceNet, iterations: int) -> NDArray[np.float32]:
    """Return the smoothed vertices of a surface net, (n, 3) float32 voxel indices (column, row, slice).

    One iteration is a step that shrinks and a step that inflates. The result does not depend on the number of cores:
    every step reads the old positions only. No vertex leaves the outer faces of the image's voxels. The net's
    links are spent: what is missing there leads to a number beyond the vertices afterwards.
    """
    count = len(net.vertices)
    if not iterations or not count:
        return net.vertices
    old = np.zeros((count + 1, 4), np.float32)  # the last is the vertex that never moves
    new = np.zeros((count + 1, 4), np.float32)
    present = np.empty(count, np.uint8)
    extent = net.extent  # a vertex at the border of the image stands on its outer face
    border = _find_border(net.vertices, extent)
    bounds = list(pairwise(np.linspace(0, count, WORKERS + 1).astype(np.int64)))
    with in_parallel() as run:
        run(_close_links, ((net.links, present, count, first, last) for first, last in bounds))
        for weight in (*STEPS * (iterations - 1), *LAST_STEPS):
            step = (net.links, present, _PULLS, old, new, np.float32(weight))
            run(_step, ((*step, first, last) for first, last in bounds))
            _hold_border(border, net.vertices, extent, new)
            old, new = new, old
        run(_add, ((net.vertices, old, first, last) for first, last in bounds))
    return old[:count, :3]
