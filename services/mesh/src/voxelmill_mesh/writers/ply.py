"""Binary PLY with a colour at each vertex, millimetres, LPS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_mesh.writers.segment import ColouredMesh

_ROWS = 1 << 17
"""Vertices or faces made at a time, 2 MB."""

_VERTEX = np.dtype([("position", "<f4", 3), ("colour", "u1", 3)])
_FACE = np.dtype([("count", "u1"), ("vertices", "<i4", 3)])
_HEADER = """\
ply
format binary_little_endian 1.0
comment Voxelmill; unit mm; patient LPS
comment SPACE=LPS
element vertex {vertices}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face {faces}
property list uchar int vertex_indices
end_header
"""


def write_ply(segment: ColouredMesh, path: Path) -> None:
    """Write a segment as binary little-endian PLY 1.0; every vertex has the segment's colour."""
    mesh = segment.mesh
    vertices = np.empty(min(_ROWS, len(mesh.vertices)), _VERTEX)
    vertices["colour"] = segment.rgb
    faces = np.empty(min(_ROWS, len(mesh.faces)), _FACE)
    faces["count"] = 3
    with path.open("wb") as file:
        file.write(_HEADER.format(vertices=len(mesh.vertices), faces=len(mesh.faces)).encode("ascii"))
        for start in range(0, len(mesh.vertices), _ROWS):
            positions = mesh.vertices[start : start + _ROWS]
            vertices["position"][: len(positions)] = positions
            file.write(vertices[: len(positions)].data)
        for start in range(0, len(mesh.faces), _ROWS):
            corners = mesh.faces[start : start + _ROWS]
            faces["vertices"][: len(corners)] = corners
            file.write(faces[: len(corners)].data)
