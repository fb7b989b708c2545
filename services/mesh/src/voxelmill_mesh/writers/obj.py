"""Wavefront OBJ, millimetres, LPS, and one MTL with the materials of all segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    import numpy as np
    from numpy.typing import NDArray

    from voxelmill_mesh.writers.segment import ColouredMesh

MATERIALS = "materials.mtl"
_ROWS = 1 << 16


def _write_rows(file: BinaryIO, row: str, values: NDArray[np.number]) -> None:
    # One format operation for many rows: some fifty times as fast as one for each.
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        file.write((row * len(part) % tuple(part.ravel().tolist())).encode("ascii"))


def write_obj(segment: ColouredMesh, path: Path) -> None:
    """Write a segment as OBJ that takes its material from `materials.mtl` beside it; positions to 0.1 um."""
    with path.open("wb") as file:
        file.write(f"# Voxelmill; unit mm; patient LPS\nmtllib {MATERIALS}\no {segment.name}\n".encode())
        _write_rows(file, "v %.4f %.4f %.4f\n", segment.mesh.vertices)
        file.write(f"usemtl {segment.name}\n".encode())
        _write_rows(file, "f %d %d %d\n", segment.mesh.faces + 1)


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
