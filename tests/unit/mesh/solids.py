"""Solids made by trimesh, for tests of files: nothing here comes from the way from a label map to meshes."""

from __future__ import annotations

import numpy as np
import trimesh

from voxelmill_mesh.surface import Mesh
from voxelmill_mesh.writers.segment import ColouredMesh


def mesh_of(solid: trimesh.Trimesh) -> Mesh:
    """Return what trimesh made as a mesh of ours."""
    return Mesh(np.asarray(solid.vertices, np.float32), np.asarray(solid.faces, np.int32))


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """Return a mesh for trimesh to judge."""
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, validate=False)


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0), subdivisions: int = 3) -> Mesh:
    """Return a ball in mm."""
    solid = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    solid.apply_translation(centre)
    return mesh_of(solid)


def pair() -> list[ColouredMesh]:
    """A translucent lung at the patient's right and an opaque bone at the left, some 400 mm superior."""
    lung = ball(40, (-100.25, -20.1, 470))
    solid = trimesh.creation.box((30, 20, 60)).subdivide().subdivide()
    solid.apply_translation((55.3, 10.7, 450))
    return [
        ColouredMesh("lung_right", (150, 205, 240), 0.6, lung),
        ColouredMesh("bones", (241, 232, 205), 1.0, mesh_of(solid)),
    ]
