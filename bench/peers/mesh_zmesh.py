"""zmesh: marching cubes of all labels together, simplified with its own quadrics; it has no smoothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import zmesh

if TYPE_CHECKING:
    from typing import Any

    from mesh_worker import Work


def run(work: Work) -> None:
    """Make the surfaces; zmesh's own bound on the error, one voxel, holds, and no least number of triangles."""
    spacing = np.array(work.spacing[::-1], np.float32)

    def get(label: int, factor: int) -> tuple[Any, Any]:
        mesh = mesher.get(label, normals=False, reduction_factor=factor, max_error=None)
        # A border of one voxel was put around the volume, to close what touches it.
        return mesh.vertices - spacing, mesh.faces.astype(np.int32)

    with work.step("extract"):
        mesher = zmesh.Mesher(tuple(spacing.tolist()))
        mesher.mesh(work.labels.T, close=True)
        labels = sorted(mesher.ids())
    for label in labels:
        with work.step("decimate"):
            vertices, faces = get(label, round(100 / (100 - work.reduction_percent)))
        work.keep(label, "after", vertices, faces)
        if work.folder is not None:
            work.keep(label, "before", *get(label, 0))
        mesher.erase(label)
