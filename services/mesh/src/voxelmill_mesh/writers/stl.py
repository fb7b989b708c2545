"""Binary STL: triangles and nothing else, millimetres, LPS."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_mesh.surface import Mesh

HEADER = b"Voxelmill; unit mm; patient LPS".ljust(80, b"\0")
"""80 bytes that must not begin with `solid`, the mark of the text format."""

_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])


def write_stl(mesh: Mesh, path: Path) -> None:
    """Write a mesh as binary STL: 50 bytes for each triangle, normals of the faces included."""
    triangles = np.zeros(len(mesh.faces), _TRIANGLE)
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = normals / np.where(lengths > 0, lengths, 1)
    triangles["corners"] = corners
    with path.open("wb") as file:
        file.write(HEADER)
        file.write(struct.pack("<I", len(triangles)))
        file.write(triangles.data)
