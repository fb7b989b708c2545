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

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from voxelmill_mesh.compiled import Array

PULL = 1e-3
"""The weight of a vertex's own place beside the planes of its faces."""


@compiled
def vertex_quadrics(vertices: Array, faces: Array) -> Array:
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
