"""VTK's flying edges on each label's box, a windowed sinc, fast-simplification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mesh_vtk import arrays_of, decimated, image_of
from scipy import ndimage
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D, vtkWindowedSincPolyDataFilter

if TYPE_CHECKING:
    from mesh_worker import Work


def run(work: Work) -> None:
    """Make the surfaces one after the other, closed at the volume's border by a voxel around each box."""
    with work.step("extract"):
        boxes = ndimage.find_objects(work.labels)
    for label, box in enumerate(boxes, 1):
        if box is None:
            continue
        with work.step("extract"):
            mask = np.pad((work.labels[box] == label).view(np.uint8), 1)
            edges = vtkFlyingEdges3D()
            edges.SetInputData(image_of(mask, work.spacing, tuple(part.start - 1 for part in box)))
            edges.SetValue(0, 0.5)
            edges.ComputeNormalsOff()
            edges.ComputeGradientsOff()
            edges.ComputeScalarsOff()
            edges.Update()
        with work.step("smooth"):
            sinc = vtkWindowedSincPolyDataFilter()
            sinc.SetInputConnection(edges.GetOutputPort())
            sinc.SetNumberOfIterations(20)
            sinc.SetPassBand(0.1)
            sinc.NormalizeCoordinatesOn()
            sinc.NonManifoldSmoothingOn()
            sinc.FeatureEdgeSmoothingOff()
            sinc.Update()
            vertices, faces = arrays_of(sinc.GetOutput())
        work.keep(label, "before", vertices, faces)
        with work.step("decimate"):
            vertices, faces = decimated(work, vertices, faces)
        work.keep(label, "after", vertices, faces)
