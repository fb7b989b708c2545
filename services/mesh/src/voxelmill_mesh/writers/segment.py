"""What a file says of a segment beside its shape: name, colour, opacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxelmill_mesh.surface import Mesh


@dataclass(frozen=True, slots=True)
class ColouredMesh:
    """One segment's mesh. `rgb` is sRGB, 0 to 255; `opacity` 0 to 1."""

    name: str
    rgb: tuple[int, int, int]
    opacity: float
    mesh: Mesh
