"""Binary STL: triangles and nothing else, millimetres, LPS."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.surface import Mesh

HEADER = b"Voxelmill; unit mm; patient LPS; SPACE=LPS".ljust(80, b"\0")
"""80 bytes that must not begin with `solid`, the mark of the text format. `SPACE=LPS` is what 3D Slicer looks for."""

_ROWS = 1 << 16
"""Triangles made at a time, 3.3 MB."""


@compiled
def _triangles(vertices: Array, faces: Array) -> Array:
    """Return each face's unit normal and corners, (m, 12) float32."""
    rows = np.empty((faces.shape[0], 12), np.float32)
    for t in range(faces.shape[0]):
        for k in range(3):
            for axis in range(3):
                rows[t, 3 + 3 * k + axis] = vertices[faces[t, k], axis]
        ux, uy, uz = rows[t, 6] - rows[t, 3], rows[t, 7] - rows[t, 4], rows[t, 8] - rows[t, 5]
        vx, vy, vz = rows[t, 9] - rows[t, 3], rows[t, 10] - rows[t, 4], rows[t, 11] - rows[t, 5]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        if length == 0:
            length = np.float32(1)
        rows[t, 0], rows[t, 1], rows[t, 2] = nx / length, ny / length, nz / length
    return rows


def write_stl(mesh: Mesh, path: Path) -> None:
    """Write a mesh as binary STL: 50 bytes for each triangle, normals of the faces included."""
    body = np.zeros((min(_ROWS, len(mesh.faces)), 25), "<u2")  # the 25th is the attribute, always 0
    with path.open("wb") as file:
        file.write(HEADER)
        file.write(struct.pack("<I", len(mesh.faces)))
        for start in range(0, len(mesh.faces), _ROWS):
            faces = mesh.faces[start : start + _ROWS]
            part = body[: len(faces)]
            part[:, :24] = _triangles(mesh.vertices, faces).astype("<f4", copy=False).view("<u2")
            file.write(part.data)
