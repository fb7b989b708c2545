"""Normals at the vertices of a mesh, for shading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.surface import Mesh


@compiled
def _vertex_normals(vertices: Array, faces: Array) -> Array:
    normals = np.zeros((vertices.shape[0], 3), np.float32)
    for t in range(faces.shape[0]):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        vx = vertices[c, 0] - vertices[a, 0]
        vy = vertices[c, 1] - vertices[a, 1]
        vz = vertices[c, 2] - vertices[a, 2]
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        for k in range(3):
            corner = faces[t, k]
            normals[corner, 0] += nx
            normals[corner, 1] += ny
            normals[corner, 2] += nz
    for i in range(normals.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0:
            for axis in range(3):
                normals[i, axis] /= length
        else:
            normals[i, 2] = 1
    return normals


def vertex_normals(mesh: Mesh) -> NDArray[np.float32]:
    """Return outward unit normals at the vertices, (n, 3) float32: the faces' normals weighted by their areas."""
    normals: NDArray[np.float32] = _vertex_normals(mesh.vertices, mesh.faces)
    return normals
