"""What most projects do: marching cubes on the whole volume for each label, trimesh's Taubin, fast-simplification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fast_simplification
import numpy as np
import trimesh
from skimage.measure import marching_cubes

if TYPE_CHECKING:
    from mesh_worker import Work


def run(work: Work) -> None:
    """Make the surfaces one after the other. What touches the volume's border stays open there."""
    for label in (np.flatnonzero(np.bincount(work.labels.ravel())[1:]) + 1).tolist():
        with work.step("extract"):
            vertices, faces, *_ = marching_cubes(work.labels == label, 0.5, spacing=work.spacing)
        with work.step("smooth"):
            # From (slice, row, column) to (column, row, slice), a mirror: it turns the faces outward.
            mesh = trimesh.Trimesh(vertices[:, ::-1], faces, process=False)
            trimesh.smoothing.filter_taubin(mesh)
            vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
        work.keep(label, "before", vertices, faces)
        with work.step("decimate"):
            if (target := work.target(len(faces))) < len(faces):
                vertices, faces = fast_simplification.simplify(vertices, faces, target_count=target)
        work.keep(label, "after", vertices, faces)
