"""MZ3, the mesh format of Surfice and niivue, with a colour at each vertex, gzip.

Those viewers lay meshes over NIfTI volumes, so positions here are millimetres in NIfTI's RAS system and not in LPS: x
and y change their signs, a half turn, which keeps the winding.

Source: https://github.com/neurolabusc/surf-ice/tree/master/mz3
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from isal import isal_zlib

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_mesh.writers.segment import ColouredMesh

_MAGIC = 0x5A4D
_FACES, _VERTICES, _COLOURS = 1, 2, 4
_LEVEL = 2
_GZIP = 16 + zlib.MAX_WBITS
_ROWS = 1 << 17
_LPS_TO_RAS = np.array([-1, -1, 1], "<f4")


def write_mz3(segment: ColouredMesh, path: Path) -> None:
    """Write a segment as MZ3: faces, positions, and the segment's colour and opacity at every vertex."""
    mesh = segment.mesh
    packer = isal_zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    colour = np.array([*segment.rgb, round(255 * segment.opacity)], np.uint8)
    colours = np.broadcast_to(colour, (min(_ROWS, len(mesh.vertices)), 4)).tobytes()
    with path.open("wb") as file:
        kinds = _FACES | _VERTICES | _COLOURS
        file.write(packer.compress(struct.pack("<HHIII", _MAGIC, kinds, len(mesh.faces), len(mesh.vertices), 0)))
        for start in range(0, len(mesh.faces), _ROWS):
            file.write(packer.compress(mesh.faces[start : start + _ROWS].astype("<i4", copy=False).data))
        for start in range(0, len(mesh.vertices), _ROWS):
            file.write(packer.compress((mesh.vertices[start : start + _ROWS] * _LPS_TO_RAS).data))
        for start in range(0, len(mesh.vertices), _ROWS):
            file.write(packer.compress(colours[: 4 * min(_ROWS, len(mesh.vertices) - start)]))
        file.write(packer.flush())
