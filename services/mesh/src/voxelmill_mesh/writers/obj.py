"""Wavefront OBJ, millimetres, LPS, and one MTL with the materials of all segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.writers.segment import ColouredMesh

MATERIALS = "materials.mtl"

_ROWS = 1 << 16
"""Lines made at a time, 4 MB."""

_LINE = 72
"""The longest line: three numbers of at most 20 signs and a separator each, and what stands around them."""

_DECIMALS = 10_000
_FARTHEST = 1e12
"""Millimetres; a position beyond it would not fit into a line."""


@compiled
def _put(out: Array, end: int, number: Any) -> int:
    """Write a number >= 0 in decimal; return where it ends."""
    digits = 1
    rest = number // 10
    while rest > 0:
        digits += 1
        rest //= 10
    place = end + digits
    for _ in range(digits):
        place -= 1
        out[place] = 48 + number % 10
        number //= 10
    return end + digits


@compiled
def _vertex_lines(vertices: Array, out: Array) -> int:
    end = 0
    for i in range(vertices.shape[0]):
        out[end] = 118  # v
        end += 1
        for axis in range(3):
            out[end] = 32
            end += 1
            number = np.int64(np.rint(np.float64(vertices[i, axis]) * _DECIMALS))
            if number < 0:
                out[end] = 45
                end += 1
                number = -number
            end = _put(out, end, number // _DECIMALS)
            fraction = number % _DECIMALS
            out[end] = 46
            out[end + 1] = 48 + fraction // 1000
            out[end + 2] = 48 + fraction // 100 % 10
            out[end + 3] = 48 + fraction // 10 % 10
            out[end + 4] = 48 + fraction % 10
            end += 5
        out[end] = 10
        end += 1
    return end


@compiled
def _face_lines(faces: Array, out: Array) -> int:
    end = 0
    for i in range(faces.shape[0]):
        out[end] = 102  # f
        end += 1
        for k in range(3):
            out[end] = 32
            end = _put(out, end + 1, np.int64(faces[i, k]) + 1)
        out[end] = 10
        end += 1
    return end


def write_obj(segment: ColouredMesh, path: Path) -> None:
    """Write a segment as OBJ that takes its material from `materials.mtl` beside it; positions to 0.1 um.

    Raises
    ------
    ValueError
        If a position is no number or farther than 1e12 mm away.
    """
    mesh = segment.mesh
    if not (np.abs(mesh.vertices) < _FARTHEST).all():
        raise ValueError(f"{segment.name}: a vertex has no position that a file could hold")
    out = np.empty(_LINE * min(_ROWS, max(len(mesh.vertices), len(mesh.faces))), np.uint8)
    with path.open("wb") as file:
        file.write(f"# Voxelmill; unit mm; patient LPS; SPACE=LPS\nmtllib {MATERIALS}\no {segment.name}\n".encode())
        for start in range(0, len(mesh.vertices), _ROWS):
            file.write(out[: _vertex_lines(mesh.vertices[start : start + _ROWS], out)].data)
        file.write(f"usemtl {segment.name}\n".encode())
        for start in range(0, len(mesh.faces), _ROWS):
            file.write(out[: _face_lines(mesh.faces[start : start + _ROWS], out)].data)


def write_materials(segments: Sequence[ColouredMesh], path: Path) -> None:
    """Write one material for each segment: diffuse colour, opacity (`d`), a faint highlight."""
    with path.open("wb") as file:
        file.write(b"# Voxelmill\n")
        for segment in segments:
            red, green, blue = (value / 255 for value in segment.rgb)
            file.write(
                f"\nnewmtl {segment.name}\nKd {red:.4f} {green:.4f} {blue:.4f}\nKs 0.1000 0.1000 0.1000\nNs 20\n"
                f"d {segment.opacity:.2f}\nillum 2\n".encode()
            )
