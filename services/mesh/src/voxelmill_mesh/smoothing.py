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

SHRINK = 0.5
INFLATE = -0.53
"""Taubin's lambda and mu: a pass-band frequency of 1/0.5 - 1/0.53 = 0.11."""

BOUND = 0.49
"""How far a vertex may go from the centre of its cell along each axis, in voxels: it never leaves the cell (0.5), and
two vertices never meet."""


@compiled
def _step(
    centres: Array, links: Array, old: Array, new: Array, weight: np.float32, extent: Array, first: int, last: int
) -> None:
    for v in range(first, last):
        column = np.float32(0)
        row = np.float32(0)
        slice_ = np.float32(0)
        count = 0
        for k in range(6):
            u = links[v, k]
            if u >= 0:
                column += old[u, 0]
                row += old[u, 1]
                slice_ += old[u, 2]
                count += 1
        if count < 2:  # the end of a curve where labels meet: it has no curvature to take away
            for axis in range(3):
                new[v, axis] = old[v, axis]
            continue
        share = np.float32(1) / np.float32(count)
        means = (column * share, row * share, slice_ * share)
        for axis in range(3):
            moved = old[v, axis] + weight * (means[axis] - old[v, axis])
            low = max(centres[v, axis] - np.float32(BOUND), np.float32(-0.5))
            high = min(centres[v, axis] + np.float32(BOUND), extent[axis])
            new[v, axis] = min(max(moved, low), high)


def smooth(net: SurfaceNet, iterations: int) -> NDArray[np.float32]:
    """Return the smoothed vertices of a surface net, (n, 3) float32 voxel indices (column, row, slice).

    One iteration is a step that shrinks and a step that inflates. The result does not depend on the number of cores:
    every step reads the old positions only. No vertex leaves the outer faces of the label map's voxels.
    """
    if not iterations or not len(net.vertices):
        return net.vertices
    old = net.vertices.copy()
    new = np.empty_like(old)
    extent = net.vertices.max(axis=0)  # a vertex at the border of the label map stands on its outer face
    bounds = np.linspace(0, len(old), WORKERS + 1).astype(np.int64)
    with in_parallel() as run:
        for weight in (SHRINK, INFLATE) * iterations:
            run(
                _step,
                (
                    (net.vertices, net.links, old, new, np.float32(weight), extent, first, last)
                    for first, last in pairwise(bounds)
                ),
            )
            old, new = new, old
    return old
