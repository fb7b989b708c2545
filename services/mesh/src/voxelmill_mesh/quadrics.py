"""The quadric error: how far a place is from the planes of the faces around, weighted by their areas.

To Garland and Heckbert's planes comes a small pull towards the vertices' own places (the isotropic term of Trettner and
Kobbelt), which keeps the equations solvable in flat places and the triangles well shaped.

A quadric is a symmetric matrix A, a vector b and a constant c; the error of a place x is x A x + 2 b x + c. The
quadric of a merged vertex is the sum of both.

Sources: M. Garland, P. S. Heckbert, "Surface simplification using quadric error metrics" (SIGGRAPH 1997);
P. Trettner, L. Kobbelt, "Fast and robust QEF minimization using probabilistic quadrics" (CGF 39, 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled, inlined

if TYPE_CHECKING:
    from voxelmill_mesh.compiled import Array

PULL = 1e-3
"""The weight of a vertex's own place beside the planes of its faces."""


@inlined
def add_plane(quadric: Array, nx: float, ny: float, nz: float, d: float, weight: float, place: Array) -> None:
    """Add a plane (unit normal, offset) and the pull towards a vertex's own place to its quadric.

    A quadric is xx xy xz yy yz zz of the matrix, x y z of the vector, and the constant.
    """
    x, y, z = place[0], place[1], place[2]
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


@inlined
def add_line(quadric: Array, dx: float, dy: float, dz: float, place: Array) -> None:
    """Add to a quadric how far a place is from the line through `place` along (dx, dy, dz), by the length squared."""
    x, y, z = place[0], place[1], place[2]
    square = dx * dx + dy * dy + dz * dz
    xx, xy, xz = square - dx * dx, -dx * dy, -dx * dz
    yy, yz, zz = square - dy * dy, -dy * dz, square - dz * dz
    bx, by, bz = -(xx * x + xy * y + xz * z), -(xy * x + yy * y + yz * z), -(xz * x + yz * y + zz * z)
    for k, value in enumerate((xx, xy, xz, yy, yz, zz, bx, by, bz, -(bx * x + by * y + bz * z))):
        quadric[k] += value


@inlined
def optimum(first: Array, second: Array) -> tuple[float, float, float, float]:
    """Return the place of least error of two quadrics' sum, and that error."""
    xx, xy, xz = first[0] + second[0], first[1] + second[1], first[2] + second[2]
    yy, yz, zz = first[3] + second[3], first[4] + second[4], first[5] + second[5]
    bx, by, bz = first[6] + second[6], first[7] + second[7], first[8] + second[8]
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * cxx + xy * cxy + xz * cxz
    if determinant <= 0.0:
        return 0.0, 0.0, 0.0, np.inf
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    scale = -1.0 / determinant
    x = scale * (cxx * bx + cxy * by + cxz * bz)
    y = scale * (cxy * bx + cyy * by + cyz * bz)
    z = scale * (cxz * bx + cyz * by + czz * bz)
    return x, y, z, max(0.0, bx * x + by * y + bz * z + first[9] + second[9])


@inlined
def error_at(first: Array, second: Array, x: float, y: float, z: float) -> float:
    """Return the error of a place about two quadrics' sum."""
    xx, xy, xz = first[0] + second[0], first[1] + second[1], first[2] + second[2]
    yy, yz, zz = first[3] + second[3], first[4] + second[4], first[5] + second[5]
    bx, by, bz = first[6] + second[6], first[7] + second[7], first[8] + second[8]
    value = (
        x * (xx * x + 2 * (xy * y + xz * z + bx))
        + y * (yy * y + 2 * (yz * z + by))
        + z * (zz * z + 2 * bz)
        + first[9]
        + second[9]
    )
    return float(max(0.0, value))


@inlined
def weight_of(quadric: Array) -> float:
    """Return the area of the faces in a quadric."""
    return float((quadric[0] + quadric[3] + quadric[5]) / (1 + 3 * PULL))


@compiled
def cost_limit(costs: Array, alive: Array, wanted: int) -> float:
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
