"""VTK's surface nets of all labels together with their own smoothing, parted by label, fast-simplification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mesh_vtk import arrays_of, decimated, image_of
from vtkmodules.util import numpy_support
from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

if TYPE_CHECKING:
    from mesh_worker import Work


def run(work: Work) -> None:
    """Make the surfaces; extraction and smoothing are one step there."""
    with work.step("extract and smooth"):
        labels = (np.flatnonzero(np.bincount(work.labels.ravel())[1:]) + 1).tolist()
        nets = vtkSurfaceNets3D()
        # It leaves open what touches the volume's border: a voxel around it closes that.
        nets.SetInputData(image_of(np.pad(work.labels, 1), work.spacing, (-1, -1, -1)))
        nets.SetNumberOfLabels(len(labels))
        for place, label in enumerate(labels):
            nets.SetLabel(place, label)
        nets.SetBackgroundLabel(0)
        nets.SetOutputMeshTypeToTriangles()
        # Half a voxel, as Voxelmill bounds its own smoothing. VTK's own bound, two voxels, spoils thin organs' volumes
        # three times as much.
        nets.AutomaticSmoothingConstraintsOff()
        nets.SetConstraintStrategyToConstraintBox()
        nets.SetConstraintBox(*(size / 2 for size in work.spacing[::-1]))
        nets.Update()
        vertices, faces = arrays_of(nets.GetOutput())
        sides = numpy_support.vtk_to_numpy(nets.GetOutput().GetCellData().GetArray("BoundaryLabels"))
        # The normal points from the first side to the second: of the second label's surface the winding is turned.
        every = np.concatenate([sides[:, 0], sides[:, 1]]).astype(np.uint8)
        order = np.argsort(every, kind="stable")
        bounds = np.searchsorted(every[order], np.arange(257))
    local = np.full(len(vertices), -1, np.int32)
    for label in labels:
        with work.step("part"):
            mine, own = _part(vertices, faces, order[bounds[label] : bounds[label + 1]], local)
        work.keep(label, "before", mine, own)
        with work.step("decimate"):
            mine, own = decimated(work, mine, own)
        work.keep(label, "after", mine, own)


def _part(vertices: Any, faces: Any, chosen: Any, local: Any) -> tuple[Any, Any]:
    second = chosen >= len(faces)
    own = faces[np.where(second, chosen - len(faces), chosen)]
    own[second] = own[second][:, ::-1]
    used = np.zeros(len(vertices), bool)
    used[own] = True
    numbers = np.flatnonzero(used)
    local[numbers] = np.arange(len(numbers), dtype=np.int32)
    return vertices[numbers], local[own]
